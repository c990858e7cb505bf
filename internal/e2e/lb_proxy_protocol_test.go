//go:build linux

package e2e

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// requestFrom sends bytes from an address of this machine and gives the body of the answer.
func requestFrom(source, addr, what string) (string, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, what); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.Status + "\n" + string(body), err
}

const askHeaders = "GET /headers HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"

// T10, C16 and the seeds' design: HAProxy in front tells who visitors are, and nobody else may.
func TestBalancerTellsWhoTheVisitorsOfHTTPAre(t *testing.T) {
	need(t, "haproxy")
	health := freeAddr(t)
	s := startServer(t, "--lb-proxy-protocol", "auto", "--lb-trusted", "127.0.0.1", "--health-addr", health)
	o := newOrigin(t, "a")
	s.client(t, "--upstream", o.URL)
	s.members(t, 1, patience)
	for _, version := range []string{"send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c check check-send-proxy inter 50ms"} {
		front := freeAddr(t)
		startHAProxy(t, `
listen http
  mode tcp
  bind `+front+`
  server a `+s.data+` `+version+`
`)
		accepts(t, "tcp", front)
		got, err := requestFrom("127.0.0.77", front, askHeaders)
		if err != nil || !strings.Contains(got, "X-Forwarded-For: 127.0.0.77\r\n") {
			t.Errorf("%s: got %q, %v", version, got, err)
		}
	}
	const forged = "PROXY TCP4 198.51.100.7 192.0.2.99 51000 8443\r\n"
	before := o.requests.Load()
	for _, forgery := range []string{forged + askHeaders, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" + askHeaders} {
		if got, err := requestFrom("127.0.0.9", s.data, forgery); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a forged header: got %q, %v; want a reset", got, err)
		}
	}
	if got, err := requestFrom("127.0.0.1", s.data, askHeaders); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the balancer without a header: got %q, %v; want a reset", got, err)
	}
	if n := o.requests.Load() - before; n != 0 {
		t.Errorf("%d refused requests reached the service", n)
	}
	got, err := requestFrom("127.0.0.9", s.data, askHeaders)
	if err != nil || !strings.Contains(got, "X-Forwarded-For: 127.0.0.9\r\n") {
		t.Errorf("a visitor of its own: got %q, %v", got, err)
	}
	for reason, want := range map[string]float64{"proxy_spoof": 2, "proxy_missing": 1} {
		until(t, "the refusals are counted: "+reason, func() bool {
			return sum(s.metrics(t), "http_dataplane_connections_refused_total", `reason="`+reason+`"`) == want
		})
	}
	aws, err := hex.DecodeString("0d0a0d0a000d0a515549540a20110054030004d0b1a8f3" + "04004a" + strings.Repeat("00", 74))
	if err != nil {
		t.Fatal(err)
	}
	for name, header := range map[string]string{"AWS": string(aws), "DigitalOcean": forged, "none": ""} {
		if got, err := requestFrom("127.0.0.1", health, header+"GET /readyz HTTP/1.0\r\n\r\n"); err != nil || !strings.HasPrefix(got, "200 ") {
			t.Errorf("health check of %s: got %q, %v", name, got, err)
		}
	}
}

func TestTrustInPrivateAddressesIsWarnedOf(t *testing.T) {
	s := startServer(t, "--lb-proxy-protocol", "v2")
	s.line(t, `every private address may say who a visitor is: name the load balancer's with --lb-trusted`)
	off := startServer(t, "--lb-proxy-protocol", "", "--proxy-protocol", "")
	if strings.Contains(off.out.String(), "lb-trusted") {
		t.Errorf("warned without --lb-proxy-protocol:\n%s", off.out.String())
	}
}
