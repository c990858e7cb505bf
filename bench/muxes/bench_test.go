package muxes

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// each runs a benchmark for every multiplexer.
func each(b *testing.B, name string, run func(b *testing.B, opener, acceptor session)) {
	b.Helper()
	for _, m := range multiplexers() {
		b.Run(name+"mux="+m.name, func(b *testing.B) {
			quieten(b)
			opener, acceptor := pair(b, m)
			run(b, opener, acceptor)
		})
	}
}

// share spreads b.N operations over workers, and ends the benchmark at the first error.
func share(b *testing.B, workers int, operation func(worker int) error) {
	b.Helper()
	var (
		next  atomic.Int64
		group sync.WaitGroup
	)
	for w := range workers {
		group.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := operation(w); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// BenchmarkRequest is an echo of 128 bytes.
func BenchmarkRequest(b *testing.B) {
	for _, n := range []int{1, 64, 1000} {
		each(b, fmt.Sprintf("streams=%d/", n), func(b *testing.B, opener, acceptor session) {
			go accept(acceptor)
			streams := open(b, opener, n, wantEcho)
			bufs := make([][small]byte, n)
			operation := func(w int) error { return echo(streams[w], bufs[w][:]) }
			for w := range n { // warm
				if err := operation(w); err != nil {
					b.Fatal(err)
				}
			}
			done := timed(b)
			share(b, n, operation)
			done()
		})
	}
}

// BenchmarkBulk is 64 KiB of a download.
func BenchmarkBulk(b *testing.B) {
	for _, n := range []int{1, 16} {
		each(b, fmt.Sprintf("streams=%d/", n), func(b *testing.B, opener, acceptor session) {
			go accept(acceptor)
			streams := open(b, opener, n, wantDown)
			bufs := make([][]byte, n)
			for i := range bufs {
				bufs[i] = make([]byte, block)
			}
			operation := func(w int) error {
				_, err := io.ReadFull(streams[w], bufs[w])
				return err
			}
			b.SetBytes(block)
			done := timed(b)
			share(b, n, operation)
			done()
		})
	}
}

// BenchmarkOpenClose is a stream that is opened, carries a byte each way and ends, 16 at a time.
func BenchmarkOpenClose(b *testing.B) {
	each(b, "", func(b *testing.B, opener, acceptor session) {
		go accept(acceptor)
		done := timed(b)
		share(b, 16, func(int) error {
			st, err := opener.Open()
			if err != nil {
				return err
			}
			defer st.Close()
			var buf [1]byte
			buf[0] = wantOnce
			return echo(st, buf[:])
		})
		done()
	})
}

// BenchmarkIdleStream is the memory of streams that carried a byte each way and say nothing more, both ends together.
// No goroutine of the benchmark waits on them. Its time says nothing.
func BenchmarkIdleStream(b *testing.B) {
	const streams = 2000
	each(b, "", func(b *testing.B, opener, acceptor session) {
		keep := make([]stream, 0, 2*streams+2)
		one := func() {
			near := open(b, opener, 1, wantEcho)[0]
			far, err := acceptor.Accept()
			if err != nil {
				b.Fatal(err)
			}
			var buf [1]byte
			if _, err := io.ReadFull(far, buf[:]); err != nil {
				b.Fatal(err)
			}
			if err := across(far, near, buf[:]); err != nil {
				b.Fatal(err)
			}
			keep = append(keep, near, far)
		}
		one()
		before := held()
		for range streams {
			one()
		}
		b.ReportMetric(float64(held()-before)/streams, "B/stream")
		b.ReportMetric(0, "ns/op")
		runtime.KeepAlive(keep)
	})
}

// across writes at one end and reads at the other.
func across(from, to stream, buf []byte) error {
	if _, err := from.Write(buf); err != nil {
		return err
	}
	_, err := io.ReadFull(to, buf)
	return err
}

// BenchmarkEchoBesideBulk is an echo of 128 bytes while a download runs on another stream of the session.
func BenchmarkEchoBesideBulk(b *testing.B) {
	each(b, "", func(b *testing.B, opener, acceptor session) {
		go accept(acceptor)
		down := open(b, opener, 1, wantDown)[0]
		var stop atomic.Bool
		var reader sync.WaitGroup
		reader.Go(func() {
			for buf := make([]byte, block); !stop.Load(); {
				if _, err := io.ReadFull(down, buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
		st := open(b, opener, 1, wantEcho)[0]
		times := make([]time.Duration, 0, b.N)
		buf := make([]byte, small)
		b.ResetTimer()
		for range b.N {
			begin := time.Now()
			if err := echo(st, buf); err != nil {
				b.Fatal(err)
			}
			times = append(times, time.Since(begin))
		}
		b.StopTimer()
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)*99/100]), "p99-ns/op")
		stop.Store(true)
		reader.Wait()
	})
}
