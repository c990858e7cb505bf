//go:build linux

package e2e

import (
	"testing"
	"time"
)

// A firewall forgets the connections that are there and says nothing, while it lets new ones through.
func TestForgottenFlow(t *testing.T) {
	onlyLong(t)
	need(t, "nft")
	l, h := startLedger(t), startHTTPLedger(t)
	s := startServer(t)
	tunnel, echo := freeAddr(t), freeAddr(t)
	s.client(t, "--upstream", port(t, tunnel)+"="+l.Addr().String(), "--upstream", h.URL,
		"--upstream", port(t, echo)+"="+startEcho(t).addr)
	accepts(t, "tcp", tunnel)
	newVisitor(t, s.data).must200(t, "www.example.com", "/") // the server keeps a connection for the next
	open := dialEcho(t, echo)
	open.echoes(t, patience)

	f := startFirewall(t)
	matches, n := flows(t, s.control)
	f.drop(t, matches...)
	begin := time.Now()
	tcp, http := servedBoth(t, begin, tunnel, s.data)
	t.Logf("%d flows forgotten: a visitor is served again over TCP after %v, over HTTP after %v", n, tcp, http)
	if max(tcp, http) > 10*time.Second {
		t.Errorf("visitors are served again after %v, want 10 s at most", max(tcp, http))
	}
	open.echoes(t, patience)
	t.Logf("the connection that was open answers again after %v", time.Since(begin))
	for range 20 {
		if v := visitLedger(tunnel, answerTime); v.err != nil {
			t.Errorf("later: %v", v.err)
		}
	}
}

// A path is away for longer than any session waits, and comes back.
func TestLongBlackhole(t *testing.T) {
	onlyLong(t)
	need(t, "nft")
	l, h := startLedger(t), startHTTPLedger(t)
	s := startServer(t)
	tunnel := freeAddr(t)
	c := s.client(t, "--upstream", port(t, tunnel)+"="+l.Addr().String(), "--upstream", h.URL)
	accepts(t, "tcp", tunnel)
	newVisitor(t, s.data).must200(t, "www.example.com", "/") // the server keeps a connection for the next

	f := startFirewall(t)
	f.drop(t, toOrFrom(t, s.control)...)
	lasts(t, 150*time.Second)
	f.clear(t)
	tcp, http := servedBoth(t, time.Now(), tunnel, s.data)
	t.Logf("after the end of the blackhole a visitor is served over TCP after %v, over HTTP after %v", tcp, http)
	if max(tcp, http) > 6*time.Second {
		t.Errorf("a visitor is served %v after the end of the blackhole, want 6 s at most", max(tcp, http))
	}
	s.settlesWithout(t, c)
}

// servedBoth is how long after a moment a visitor of each plane had an answer.
func servedBoth(t *testing.T, since time.Time, tunnel, data string) (tcp, http time.Duration) {
	t.Helper()
	v := startVisits(t, 10, func() visit { return visitHTTP(data, answerTime) })
	tcp = served(t, since, func() visit { return visitLedger(tunnel, answerTime) })
	until(t, "a visitor is served over HTTP", func() bool { return v.anySince(since) == nil })
	http = time.Minute
	for _, one := range v.stop(t) {
		if one.err == nil {
			http = min(http, one.begun.Add(one.took).Sub(since))
		}
	}
	return tcp, http
}
