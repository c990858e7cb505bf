package udp

import "sync/atomic"

// Room is how many flows several tables may have together, give or take one each. A nil *Room has no end.
type Room struct {
	most int64
	used atomic.Int64
}

// NewRoom makes room for so many flows.
func NewRoom(most int) *Room { return &Room{most: int64(most)} }

// Most is how many flows there may be.
func (r *Room) Most() int { return int(r.most) }

func (r *Room) full() bool { return r != nil && r.used.Load() >= r.most }

func (r *Room) add(n int64) {
	if r != nil {
		r.used.Add(n)
	}
}
