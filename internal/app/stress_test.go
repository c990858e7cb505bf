package app

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"culvert/internal/control"
	"culvert/internal/dataplane"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// TestStrangersDoNotHoldUpTheEnd has connections on each port that say nothing.
func TestStrangersDoNotHoldUpTheEnd(t *testing.T) {
	s, server := startServer(t, serverConfig(t.TempDir()))
	for range 3 {
		c, err := net.Dial("tcp", s.ControlAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	await(t, "the connections to be accepted", func() bool { return answersHealth(s) })
	begun := time.Now()
	if err := server.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took >= preAuthTimeout {
		t.Errorf("took %s: it waited for strangers", took)
	}
}

// TestManyTunnelsAreQuicklyPublished publishes and withdraws as many as one hello may offer, beside as many others.
func TestManyTunnelsAreQuicklyPublished(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	m := upstream.NewStatic(upstream.StaticConfig{Address: "127.0.0.1:1"})
	for range 2 {
		begun := time.Now()
		for i := range tunnel.MaxOffers {
			name, err := tunnel.ParseName(fmt.Sprintf("http/h%d.%d.example.com", i, begun.UnixNano()))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.plane.Publish(control.Offered{Name: name, Member: m}); err != nil {
				t.Fatal(err)
			}
		}
		s.plane.Settle()
		t.Logf("%d tunnels in %s", tunnel.MaxOffers, time.Since(begun))
		if took := time.Since(begun); took > 10*time.Second { // half a second on a slow machine, if the work grows with their number alone
			t.Errorf("took %s", took)
		}
	}
}

func answersHealth(s *Server) bool {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Get("https://" + s.ControlAddr().String() + "/healthz")
	if err == nil {
		resp.Body.Close()
	}
	return err == nil
}

// TestNamesThatNobodyOffersKeepOutNone fills the server with the names of a client that has gone.
func TestNamesThatNobodyOffersKeepOutNone(t *testing.T) {
	s, _ := startServer(t, serverConfig(t.TempDir()))
	m := upstream.NewStatic(upstream.StaticConfig{Address: "127.0.0.1:1"})
	publish := func(i int) (control.Publication, error) {
		name, err := tunnel.ParseName(fmt.Sprintf("http/h%d.example.com", i))
		if err != nil {
			t.Fatal(err)
		}
		return s.plane.Publish(control.Offered{Name: name, Member: m})
	}
	for i := range dataplane.MaxTunnels - 1 {
		p, err := publish(i)
		if err != nil {
			t.Fatal(err)
		}
		p.Withdraw()
	}
	for i := range 2 {
		if _, err := publish(dataplane.MaxTunnels + i); err != nil {
			t.Error(err)
		}
	}
}
