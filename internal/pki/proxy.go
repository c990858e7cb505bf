package pki

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// connect makes the connection, through the proxy that Proxy chooses if it chooses one.
func (f Fetch) connect(ctx context.Context) (net.Conn, error) {
	dial := f.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	var via *url.URL
	if f.Proxy != nil {
		var err error
		if via, err = f.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: f.Host}}); err != nil {
			return nil, errors.New("HTTPS_PROXY does not hold the URL of a proxy") // what it holds may be a password
		}
	}
	if via == nil {
		return dial(ctx, "tcp", f.Host)
	}
	conn, err := dial(ctx, "tcp", proxyAddr(via))
	if err == nil {
		conn, err = tunnelTo(ctx, conn, via, f.Host)
	}
	if err != nil {
		return nil, &net.OpError{Op: "proxyconnect", Net: "tcp", Err: err} // as net/http has it
	}
	return conn, nil
}

func proxyAddr(via *url.URL) string {
	port := via.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[via.Scheme]
	}
	return net.JoinHostPort(via.Hostname(), port)
}

// tunnelTo asks a proxy for a tunnel to addr, on a connection that it takes over.
func tunnelTo(ctx context.Context, conn net.Conn, via *url.URL, addr string) (_ net.Conn, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if !stop() || err != nil {
			_ = conn.Close()
		}
	}()
	switch via.Scheme {
	case "http":
	case "https":
		conn = tls.Client(conn, &tls.Config{ServerName: via.Hostname(), NextProtos: []string{"http/1.1"}})
	default:
		return nil, fmt.Errorf("a proxy of the scheme %q cannot be used here", via.Scheme)
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{"User-Agent": {"culvert"}}}
	if via.User != nil {
		password, _ := via.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	// What the reader holds back is nothing: a TLS server waits to be spoken to.
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	return conn, nil
}
