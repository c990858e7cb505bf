//go:build linux

package e2e

import (
	"testing"
	"time"
)

// Many downloads at once do not end with the connection that carries them, and wait for the next without much memory.
func TestDownloadsOutliveOutages(t *testing.T) {
	if long() {
		need(t, "nft")
	}
	for _, carrier := range []string{"wss", "tls"} {
		t.Run(carrier, func(t *testing.T) { downloadThroughOutages(t, carrier) })
	}
}

func downloadThroughOutages(t *testing.T, carrier string) {
	t.Helper()
	count, size := 8, int64(8<<20)
	if long() {
		count, size = 200, 20<<20
	}
	want := patternHash(size)
	s := startServer(t)
	relay := startCutter(t, s.control)
	cuts, each := outages(t, relay, s.control)
	phase := size / int64(len(cuts)+1)
	gate := newFloodgate(phase)
	c := s.clientBy(t, carrier+"://"+relay.addr, "http client", "--upstream", newGatedOrigin(t, gate))
	s.members(t, 1, patience)

	server, client := watchMemory(t, s.process), watchMemory(t, c)
	begin := time.Now()
	d := startDownloads(t, "http://"+s.data+"/", count, size)
	for i, cut := range cuts {
		d.reach(t, int64(count)*(phase*int64(i)+phase/2)) // none can have more than the whole phase
		cut.begin(t)
		gate.raise(phase * int64(i+2))
		lasts(t, each)
		had, total := d.got()
		cut.end(t)
		if total == int64(count)*phase*int64(i+2) {
			t.Errorf("cut %d: all has come that may come: it is no cut", i+1)
		}
		t.Logf("cut %d, %s for %v at %s: all go on %v after its end", i+1, cut.name, each, mebibytes(total), d.goOn(t, had))
	}
	gate.raise(size)
	d.arrive(t, want)
	took := time.Since(begin) - time.Duration(len(cuts))*each
	t.Logf("%d downloads of %s in %v, the cuts left out", count, mebibytes(size), took)
	server.grewAtMost(t, "server", 128<<20)
	client.grewAtMost(t, "client", 128<<20)
	s.settlesWithout(t, c)
}
