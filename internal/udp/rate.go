package udp

import (
	"hash/maphash"
	"net/netip"
	"time"

	"culvert/internal/cidr"
)

// rateBuckets is how many sources a Rate tells apart at best: a fixed amount of memory, whoever sends.
const rateBuckets = 1 << 14

// Rate limits the datagrams of each source a second. Sources are told apart by a hash with a secret, so that nobody can
// choose whom to share a limit with. It is for one goroutine.
type Rate struct {
	perSecond float64
	seed      maphash.Seed
	buckets   []bucket
}

type bucket struct {
	left float64
	at   time.Duration // when left was reckoned
}

// NewRate makes a limit. One of 0 or less lets everything pass and needs no memory.
func NewRate(perSecond int) *Rate {
	r := &Rate{perSecond: float64(perSecond)}
	if perSecond > 0 {
		r.seed = maphash.MakeSeed()
		r.buckets = make([]bucket, rateBuckets)
		for i := range r.buckets {
			r.buckets[i].left = r.perSecond
		}
	}
	return r
}

// Allow says whether a datagram of the source may pass now. A second's worth may come at once.
func (r *Rate) Allow(source netip.Addr, now time.Duration) bool {
	if r.buckets == nil {
		return true
	}
	b := &r.buckets[maphash.Comparable(r.seed, cidr.Source(source))%rateBuckets]
	b.left = min(r.perSecond, b.left+(now-b.at).Seconds()*r.perSecond)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
