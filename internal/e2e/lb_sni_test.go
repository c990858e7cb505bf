//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// startTLS starts a service whose certificate has the name, and which says it.
func startTLS(t *testing.T, name string) (addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2", "http/1.1"}}
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				c := tls.Server(raw, config)
				defer raw.Close()
				defer context.AfterFunc(ctx, func() { raw.Close() })()
				_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
				if c.Handshake() != nil {
					return
				}
				_, _ = fmt.Fprintf(c, "%s\n", name) // the visitor sees what is missing
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wait.Wait() })
	return l.Addr().String()
}

// A slicer sends what is written to it in other pieces.
type slicer struct {
	net.Conn
	segment int // bytes in a segment; 0: as written
	record  int // bytes of a handshake message in a TLS record of the first write; 0: as written
	written bool
}

func (s *slicer) Write(p []byte) (int, error) {
	whole := len(p)
	if !s.written && s.record > 0 && len(p) > 5 && p[0] == 22 {
		var b bytes.Buffer
		for rest := p[5 : 5+int(binary.BigEndian.Uint16(p[3:]))]; len(rest) > 0; {
			n := min(s.record, len(rest))
			b.Write(p[:3])
			b.Write(binary.BigEndian.AppendUint16(nil, uint16(n)))
			b.Write(rest[:n])
			rest = rest[n:]
		}
		b.Write(p[5+int(binary.BigEndian.Uint16(p[3:])):])
		p = b.Bytes()
	}
	if s.written || s.segment == 0 {
		s.written = true
		_, err := s.Conn.Write(p)
		return whole, err
	}
	s.written = true
	for len(p) > 0 {
		n := min(s.segment, len(p))
		if _, err := s.Conn.Write(p[:n]); err != nil {
			return 0, err
		}
		p = p[n:]
		<-time.After(100 * time.Microsecond) // a segment of its own
	}
	return whole, nil
}

// hello makes a TLS connection for a name, in pieces, and returns what the service says that it is.
func hello(addr, name string, segment, record int) (string, error) {
	raw, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	config := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	if segment == 1 {
		config.CurvePreferences = []tls.CurveID{tls.X25519} // without a kilobyte of post-quantum key: a byte takes a while
	}
	c := tls.Client(&slicer{Conn: raw, segment: segment, record: record}, config)
	var said [256]byte
	n, err := c.Read(said[:])
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(said[:n])), nil
}

func TestLBRoutesByServerName(t *testing.T) {
	t.Parallel()
	api, any2, other := startTLS(t, "api"), startTLS(t, "wildcard"), startTLS(t, "default")
	routed, strict := freeAddr(t), freeAddr(t)
	startLB(t, fmt.Sprintf(`
entrypoints:
  - name: routed
    protocol: tls
    addr: %q
    routes:
      - {match: {host: api.example.com}, upstream: api}
      - {match: {host: ["*.example.com", "*.example.org"]}, upstream: wildcard}
      - {upstream: default}
  - name: strict
    protocol: tls
    addr: %q
    hello_timeout: 1s
    routes:
      - {match: {host: api.example.com, source: 127.0.0.0/8}, upstream: api}
upstreams:
  - {name: api, members: %s}
  - {name: wildcard, members: %s}
  - {name: default, members: %s}
`, routed, strict, memberList(api), memberList(any2), memberList(other)))
	for _, c := range []struct {
		name, addr, host string
		segment, record  int
		want             string
	}{
		{"exact", routed, "api.example.com", 0, 0, "api"},
		{"exact, capitals", routed, "API.Example.COM", 0, 0, "api"},
		{"wildcard", routed, "www.example.com", 0, 0, "wildcard"},
		{"second wildcard", routed, "www.example.org", 0, 0, "wildcard"},
		{"the parent of a wildcard", routed, "example.org", 0, 0, "default"},
		{"another name", routed, "www.example.net", 0, 0, "default"},
		{"no name", routed, "", 0, 0, "default"},
		{"segments of 7 bytes", routed, "api.example.com", 7, 0, "api"},
		{"segments of 1 byte", routed, "api.example.com", 1, 0, "api"},
		{"records of 11 bytes", routed, "api.example.com", 0, 11, "api"},
		{"records of 3 bytes in segments of 2", routed, "www.example.com", 2, 3, "wildcard"},
		{"strict, exact", strict, "api.example.com", 0, 0, "api"},
		{"strict, another name", strict, "www.example.com", 0, 0, ""},
		{"strict, no name", strict, "", 0, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := hello(c.addr, c.host, c.segment, c.record)
			if c.want != "" && (err != nil || got != c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
			if c.want == "" && (err == nil || err.Error() != "remote error: tls: unrecognized name") {
				t.Errorf("got %q, %v, want an unrecognized_name alert", got, err)
			}
		})
	}
	for name, sends := range map[string]string{
		"silent":              "",
		"half a hello":        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"HTTP":                "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
		"a record of no size": "\x16\x03\x01\x00\x00" + strings.Repeat("\x16\x03\x01\x00\x00", 20),
		"an enormous hello":   "\x16\x03\x01\x40\x00\x01\xff\xff\xff" + strings.Repeat("x", 16380),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", strict) // which gives a hello a second
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			began := time.Now()
			_ = c.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
			_, _ = io.WriteString(c, sends)             // it may be refused already
			if _, err := io.Copy(io.Discard, c); isTimeout(err) {
				t.Error("it is not closed")
			}
			if took := time.Since(began); took > 4*time.Second { // without the setting it is 5 s
				t.Errorf("closed after %v, want 1 s at most", took)
			}
		})
	}
}

// A TLS connection by name goes through a tunnel too, and keeps the service's own certificate.
func TestLBServerNameThroughATunnel(t *testing.T) {
	t.Parallel()
	laptop, other := startTLS(t, "laptop"), startTLS(t, "other")
	addr := freeAddr(t)
	file := write(t, t.TempDir(), "culvert.yaml", fmt.Sprintf(`
entrypoints:
  - name: secure
    protocol: tls
    addr: %q
    routes:
      - {match: {host: laptop.example.com}, upstream: name/laptop}
      - {upstream: other}
upstreams:
  - {name: other, members: %s}
`, addr, memberList(other)), 0o600)
	s := startServer(t, "--config", file)
	s.clientProgram(t, "client", "--upstream", "name/laptop="+laptop)
	until(t, "the laptop serves its name", func() bool {
		by, err := hello(addr, "laptop.example.com", 0, 0)
		return err == nil && by == "laptop"
	})
	if by, err := hello(addr, "www.example.com", 0, 0); err != nil || by != "other" {
		t.Errorf("another name: %q %v", by, err)
	}
}
