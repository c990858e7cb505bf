package control

import (
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// Publisher makes tunnels reachable for visitors.
type Publisher interface {
	// Publish adds a member to the tunnel's upstream, and opens the tunnel to visitors if it is its first.
	// The error is for the client's eyes.
	Publish(o Offered) (Publication, error)
	// Settle returns when visitors reach everything that was published before.
	Settle()
}

// Offered is what a client offers and its credential covers.
type Offered struct {
	Name   tunnel.Name
	Member upstream.Member
	Offer  tunnel.Offer // with what the client said beside the name

	// Divert is set for an offer of that kind: a route is to be placed before the others of its entrypoint, to Member alone. It is
	// withdrawn when its time is over, when an operator, its client or its token ends it, and while the client is out of reach;
	// all that is counted, logged and told to the client here. A client's new session may publish a divert again before the
	// old publication is withdrawn. The publication should be a DivertPublication.
	Divert *Divert
	// End ends a divert for a reason of the publisher's own, such as that the entrypoint is gone. It calls Withdraw, so that no
	// lock may be held that this takes. Nil for other offers.
	End func(reason string)
	// MayDivert says whether the client may divert an entrypoint's traffic: it is told of no others. Nil for other offers.
	MayDivert func(entrypoint string) bool
}

// Publication is one member's place in a tunnel.
type Publication interface {
	// Address is where visitors reach the tunnel, as far as the server knows.
	Address() string
	// Withdraw takes the member out. Its open connections go on.
	Withdraw()
}

// HealthPublication is a Publication that wants to know what the client's own check of the service says. The member's
// Usable is false while the service is down, also before it is published: Offered.Offer.Down says so.
type HealthPublication interface {
	Publication
	// Health is called with each change. The cause is the client's words, and nil if the service is up.
	Health(up bool, cause error)
}
