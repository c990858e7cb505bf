package proxy

import (
	"time"

	"culvert/internal/router"
	"culvert/internal/upstream"
)

// Target is where a route leads.
type Target struct {
	Upstream *upstream.Upstream
	// Limit bounds what one member may take to give a connection, also the last one; 0 for no bound of the route's own.
	Limit time.Duration
	// Took, if not nil, hears of each connection that the route got, with nil for a flow. It must not keep it.
	Took func(*upstream.Dialed)
}

// Routes is what an entrypoint routes by. It is immutable, and safe for concurrent use.
type Routes struct {
	table   *router.L4
	targets []Target
}

// NewRoutes makes routes of a table, with a target for each of its routes, in order.
func NewRoutes(table *router.L4, targets []Target) *Routes {
	if table.Len() != len(targets) {
		panic("proxy: routes without targets")
	}
	return &Routes{table, targets}
}

// RoutesTo makes routes that lead every visitor to one upstream.
func RoutesTo(u *upstream.Upstream) *Routes {
	table, err := router.NewL4([]router.L4Route{{Name: u.Name(), Upstream: u.Name()}})
	if err != nil { // it has no name
		panic("proxy: " + err.Error())
	}
	return NewRoutes(table, []Target{{Upstream: u}})
}

// Next is the first route at or behind index from that fits, with its target; false if there is none.
func (r *Routes) Next(k router.L4Key, from int) (index int, t *Target, ok bool) {
	i, ok := r.table.Match(k, from)
	if !ok {
		return i, nil, false
	}
	return i, &r.targets[i], true
}

// Route is the i-th route. It must not be changed.
func (r *Routes) Route(i int) *router.L4Route { return r.table.Route(i) }

// CountFlow counts a flow that the i-th route got.
func (r *Routes) CountFlow(i int) {
	if took := r.targets[i].Took; took != nil {
		took(nil)
	}
}

// Len is the number of routes.
func (r *Routes) Len() int { return len(r.targets) }
