package upstream

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkDial is what the choice of a member and the account of it cost, with members that give a connection at once.
func BenchmarkDial(b *testing.B) {
	for _, n := range []int{1, 2, 3, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			u := newUpstream("x")
			for i := range n {
				u.Add(Placed{Member: &quick{place{name: fmt.Sprint(i)}}})
			}
			b.ReportAllocs()
			for b.Loop() {
				d, err := u.Dial(b.Context(), &Visit{ID: "1"})
				if err != nil {
					b.Fatal(err)
				}
				d.Place.Release()
			}
		})
	}
}

type quick struct{ place }

func (*quick) Dial(context.Context, *Visit) (Dialed, error) { return Dialed{}, nil }
