package upstream

import (
	"context"
	"fmt"
	"testing"

	"culvert/internal/balancer"
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

func BenchmarkDialParallel(b *testing.B) {
	u := newUpstream("x")
	for i := range 3 {
		u.Add(Placed{Member: &quick{place{name: fmt.Sprint(i)}}})
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		v := &Visit{ID: "1"}
		for pb.Next() {
			d, err := u.Dial(b.Context(), v)
			if err != nil {
				b.Error(err)
				return
			}
			d.Place.Release()
		}
	})
}

func BenchmarkDialOfAThousand(b *testing.B) {
	for _, p := range balancer.Policies() {
		b.Run(string(p), func(b *testing.B) {
			u := New(Config{Policy: p, Retries: 2})
			for i := range 1000 {
				u.Add(Placed{Member: &quick{place{name: fmt.Sprint(i)}}})
			}
			b.ReportAllocs()
			for b.Loop() {
				d, err := u.Dial(b.Context(), &Visit{})
				if err != nil {
					b.Fatal(err)
				}
				d.Place.Release()
			}
		})
	}
}

func BenchmarkPlaces(b *testing.B) {
	u, _ := nodes(Config{}, 20)
	b.ReportAllocs()
	for b.Loop() {
		u.Places()
	}
}
