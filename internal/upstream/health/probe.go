package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"culvert/internal/proxyproto"
)

// prober asks one service, once each time.
type prober struct {
	check            Check
	network, address string
	tls              *tls.Config
}

// maxAnswer is what is read of an answer, at most.
const maxAnswer = 64 << 10

// probe is one check. The context has a deadline. leave ends the connection, and is never nil.
func (p *prober) probe(ctx context.Context) (leave func(), err error) {
	leave, err = p.ask(ctx)
	var timeout net.Error
	switch {
	case err == nil, errors.Is(err, errNotIt):
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		err = fmt.Errorf("no answer within %s", p.check.Timeout)
	}
	return leave, err
}

func (p *prober) ask(ctx context.Context) (leave func(), err error) {
	// Keep-alive is not for a connection that lives this long.
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, p.network, p.address)
	if err != nil {
		return func() {}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // at its deadline, too
	if p.check.Kind == UDP {
		return func() { stop(); _ = conn.Close() }, p.askUDP(conn)
	}
	return func() { part(conn); stop() }, p.askStream(ctx, conn)
}

func (p *prober) askStream(ctx context.Context, conn net.Conn) error {
	first := p.header(conn)
	if p.check.Kind == TCP || p.tls != nil {
		if _, err := conn.Write(first); err != nil { // nothing without a PROXY header
			return err
		}
		first = nil
	}
	if p.tls != nil {
		t := tls.Client(conn, p.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return handshakeFailed(err)
		}
		conn = t
	}
	switch p.check.Kind {
	case TCP:
		return nil
	case HTTP:
		return p.askHTTP(conn, first)
	default:
		return p.askExpect(conn, first)
	}
}

// handshakeFailed says of a certificate that is not trusted what the check can do about it.
func handshakeFailed(err error) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("tls handshake: %w; insecure: true lets the check take any", err)
	}
	return fmt.Errorf("tls handshake: %w", err)
}

// partTime is how long a service gets to end a connection whose other end has ended, within the time of the check.
const partTime = 500 * time.Millisecond

// part ends a connection as a visitor does who has nothing more to say. A reset, with which other balancers end checks, is
// cheaper by two packets, but services log it and some count it against the address (MySQL's max_connect_errors). So our
// end goes first, and what the service has sent is read, since to close over it would reset the connection too.
func part(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		late := time.AfterFunc(partTime, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
		_, _ = io.CopyN(io.Discard, conn, 1<<20)
		late.Stop()
	}
	_ = conn.Close()
}

// header is the PROXY header of a check's connection. Version 2 has a command for checks, LOCAL. Version 1 has not, and
// services refuse UNKNOWN, so that it says the truth: who connects.
func (p *prober) header(conn net.Conn) []byte {
	h := proxyproto.Header{Local: true}
	if p.check.Proxy == proxyproto.V1 {
		h = proxyproto.Header{Transport: proxyproto.TCP, Source: addrPort(conn.LocalAddr()), Destination: addrPort(conn.RemoteAddr())}
	}
	return h.AppendTo(nil, p.check.Proxy)
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// errNotIt is a complete answer that is not the right one.
var errNotIt = errors.New("the answer is not the right one")

func (p *prober) askHTTP(conn net.Conn, first []byte) error {
	host, what := p.check.Host, p.check.Method+" "+p.check.Path
	switch {
	case host == "" && p.network == "unix":
		host = "localhost"
	case host == "":
		host = p.address
	}
	out := fmt.Appendf(first, "%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: culvert-health\r\nAccept: */*\r\nConnection: close\r\n\r\n", what, host)
	if _, err := conn.Write(out); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: p.check.Method})
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return fmt.Errorf("%s: %w: it ended before a whole head", what, errNotIt)
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		}
		switch code := resp.StatusCode; {
		case p.right(code) && p.check.Expect == "":
			return nil
		case p.right(code):
			if err := p.find(resp.Body); err != nil {
				return fmt.Errorf("%s: %s, body: %w", what, resp.Status, err)
			}
			return nil
		case code < 200 && code != http.StatusSwitchingProtocols: // the answer is still to come
			_ = resp.Body.Close() // there is none
		default:
			return fmt.Errorf("%s: %s", what, resp.Status)
		}
	}
}

func (p *prober) right(code int) bool {
	for _, r := range p.check.Status {
		if r.From <= code && code <= r.To {
			return true
		}
	}
	return false
}

func (p *prober) askExpect(conn net.Conn, first []byte) error {
	if out := append(first, p.check.Send...); len(out) > 0 {
		if _, err := conn.Write(out); err != nil {
			return err
		}
	}
	return p.find(conn)
}

// find reads until there is what is expected.
func (p *prober) find(in io.Reader) error {
	var got []byte
	for len(got) < maxAnswer {
		free := make([]byte, 4096)
		n, err := in.Read(free)
		got = append(got, free[:n]...)
		switch {
		case n > 0 && bytes.Contains(got, []byte(p.check.Expect)):
			return nil
		case err == nil:
		case len(got) == 0 && errors.Is(err, io.EOF):
			return errors.New("closed without an answer")
		case len(got) == 0:
			return err
		default:
			return p.notIt(got)
		}
	}
	return p.notIt(got)
}

func (p *prober) notIt(got []byte) error {
	return fmt.Errorf("%w: want %.60q in %.60q", errNotIt, p.check.Expect, got)
}

// askUDP sends a datagram and waits for the right one.
func (p *prober) askUDP(conn net.Conn) error {
	if _, err := conn.Write(append(p.header(conn), p.check.Send...)); err != nil {
		return refusedUDP(err)
	}
	wrong, in := []byte(nil), make([]byte, maxAnswer)
	for {
		n, err := conn.Read(in)
		switch {
		case err == nil && bytes.Contains(in[:n], []byte(p.check.Expect)):
			return nil
		case err == nil:
			wrong = bytes.Clone(in[:n])
		case wrong != nil:
			return p.notIt(wrong)
		case p.check.Expect == "" && errors.Is(err, os.ErrDeadlineExceeded):
			return nil // nobody has refused it
		default:
			return refusedUDP(err)
		}
	}
}

// refusedUDP makes the machine's own word that nobody has the port a certain failure.
func refusedUDP(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return &certain{err}
	}
	return err
}
