package admin

import (
	"errors"
	"fmt"
	"time"
)

// DataPlane is what of the data plane can be asked and changed while it runs. Its methods are called at any time and at once.
type DataPlane interface {
	// State is what there is now, but for the diverts. What it gives belongs to the caller.
	State() State
	// ChangeMember drains a member, takes it back or gives it another weight. The error is an ErrNotFound, whose words name what
	// there is, or what is wrong with the change.
	ChangeMember(upstream, member string, change MemberChange) error
}

// Diverts is what the API needs of those who keep diverts.
type Diverts interface {
	// Diverts are those that are there now, the oldest first.
	Diverts() []Divert
	// EndDivert ends a divert. The reason is for whoever runs it. The error is an ErrNotFound.
	EndDivert(id, reason string) error
}

// Operator is what of the process can be asked for.
type Operator interface {
	// Reload reads the configuration file again. The warnings are of what in it has no effect, or none yet; the error is what is
	// wrong with it, and then nothing has changed.
	Reload() (warnings []string, err error)
	// Drain begins an orderly end and returns: as SIGTERM does.
	Drain()
}

// Reloaded is the answer to a reload.
type Reloaded struct {
	Warnings []string `json:"warnings,omitempty"`
}

// ErrNotFound is a name that nothing has.
var ErrNotFound = errors.New("not found")

// State is the data plane as the API shows it, in the order of the file.
type State struct {
	Entrypoints []Entrypoint `json:"entrypoints"`
	Upstreams   []Upstream   `json:"upstreams"`
	Diverts     []Divert     `json:"diverts"`
}

// Entrypoint is a place where visitors connect.
type Entrypoint struct {
	Name      string  `json:"name"`
	Protocol  string  `json:"protocol"` // tcp, udp, tls or http
	Address   string  `json:"address"`
	Listening bool    `json:"listening"`
	Reason    string  `json:"reason,omitempty"` // why it is not
	Open      int     `json:"open"`             // connections, or flows of UDP
	Total     uint64  `json:"total"`            // likewise, since the process began
	Routes    []Route `json:"routes"`           // the first match wins
}

// Route is one choice of an entrypoint.
type Route struct {
	Name     string   `json:"name"`
	Sources  []string `json:"sources,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	Percent  float64  `json:"percent,omitempty"`
	Upstream string   `json:"upstream"`
	OnDown   string   `json:"onDown"` // fail or fallback
	Total    uint64   `json:"total"`  // connections or flows that it matched
	Divert   string   `json:"divert,omitempty"`
}

// Upstream is a set of members.
type Upstream struct {
	Name    string   `json:"name"`
	Balance string   `json:"balance"`
	Usable  bool     `json:"usable"` // a member can take a connection
	Queued  int      `json:"queued"` // visitors that wait for a member with room
	Members []Member `json:"members"`
}

// Member is a place that connections go to.
type Member struct {
	Name         string      `json:"name"`
	State        MemberState `json:"state"`
	Since        time.Time   `json:"since,omitzero"` // of the state
	EjectedUntil time.Time   `json:"ejectedUntil,omitzero"`
	Check        CheckState  `json:"check,omitempty"` // what its check found last, whatever else the state is; "" without one
	LastError    string      `json:"lastError,omitempty"`
	LastErrorAt  time.Time   `json:"lastErrorAt,omitzero"`
	Weight       int         `json:"weight"`
	Backup       bool        `json:"backup,omitempty"`
	MaxConns     int         `json:"maxConns,omitempty"` // 0: no limit
	Open         int         `json:"open"`
	Total        uint64      `json:"total"`
	Failed       uint64      `json:"failed"` // connections that could not be made
}

// MemberState says what a member takes.
type MemberState string

// The states of members. One that is ejected, suspect or away may still be tried when there is no better one.
const (
	MemberUp       MemberState = "up"
	MemberDown     MemberState = "down"     // by its check
	MemberDraining MemberState = "draining" // by an operator, or of weight 0: takes nothing new
	MemberEjected  MemberState = "ejected"  // for a time, after failures
	MemberSuspect  MemberState = "suspect"  // owes an answer
	MemberAway     MemberState = "away"     // a client that is out of reach
)

// CheckState is what an active check has found.
type CheckState string

// What it may find.
const (
	CheckUp   CheckState = "up"
	CheckDown CheckState = "down"
)

// Divert is live traffic that goes to someone's machine for a time.
type Divert struct {
	ID         string    `json:"id"`
	By         string    `json:"by"`               // id of the token; "" for the shared one
	ByName     string    `json:"byName,omitempty"` // the token's name for people
	Client     string    `json:"client"`           // id and instance
	Up         bool      `json:"up"`               // false while the client is out of reach: traffic goes the other ways
	Entrypoint string    `json:"entrypoint"`
	Protocol   string    `json:"protocol,omitempty"` // known while it is up
	Sources    []string  `json:"sources,omitempty"`
	Hosts      []string  `json:"hosts,omitempty"`
	Percent    float64   `json:"percent,omitempty"`
	To         string    `json:"to"` // in the client's words
	OnDown     string    `json:"onDown"`
	Existing   string    `json:"existing"`
	Begun      time.Time `json:"begun"`
	Until      time.Time `json:"until"`
	Open       int       `json:"open"`
	Total      uint64    `json:"total"`
}

// MemberChange is what is to change of a member; nil for what is to stay.
type MemberChange struct {
	Drain  *bool `json:"drain,omitempty"`
	Weight *int  `json:"weight,omitempty"`
	Close  bool  `json:"close,omitempty"` // reset the open connections of TCP and TLS, of a member that is to be drained
}

// MaxWeight is the largest weight of a member, as in the file.
const MaxWeight = 1 << 16

func (c MemberChange) check() error {
	switch {
	case c.Drain == nil && c.Weight == nil && !c.Close:
		return errors.New(`nothing is to be changed: give "drain": true or false, or "weight": 1`)
	case c.Close && (c.Drain == nil || !*c.Drain):
		return errors.New(`"close" goes with "drain": true: else the connections would come back at once`)
	case c.Weight != nil && (*c.Weight < 0 || *c.Weight > MaxWeight):
		return fmt.Errorf(`"weight" is from 0, for nothing new, to %d`, MaxWeight)
	}
	return nil
}

// attrs is the change for the log.
func (c MemberChange) attrs() (attrs []any) {
	if c.Drain != nil {
		attrs = append(attrs, "drain", *c.Drain)
	}
	if c.Weight != nil {
		attrs = append(attrs, "weight", *c.Weight)
	}
	if c.Close {
		attrs = append(attrs, "close", true)
	}
	return attrs
}
