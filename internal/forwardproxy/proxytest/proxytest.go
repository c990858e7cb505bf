// Package proxytest has small forward proxies, for tests.
package proxytest

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
)

// Proxy is a running proxy. It lets in those who know its name and password.
type Proxy struct {
	URL     *url.URL // with the name and the password
	Tunnels atomic.Int64

	ln   net.Listener
	wait sync.WaitGroup
	mu   sync.Mutex
	open map[net.Conn]struct{} // nil once closed
}

// HTTP starts an HTTP proxy that does CONNECT, over TLS if a configuration is given.
func HTTP(name, password string, config *tls.Config) (*Proxy, error) {
	scheme := "http"
	if config != nil {
		scheme = "https"
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
	return start(scheme, name, password, config, func(c net.Conn) (net.Conn, error) { return serveConnect(c, want) })
}

// SOCKS5 starts a SOCKS 5 proxy.
func SOCKS5(name, password string) (*Proxy, error) {
	return start("socks5", name, password, nil, func(c net.Conn) (net.Conn, error) { return serveSocks(c, name, password) })
}

func start(scheme, name, password string, config *tls.Config, serve func(net.Conn) (net.Conn, error)) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		URL: &url.URL{Scheme: scheme, User: url.UserPassword(name, password), Host: ln.Addr().String()},
		ln:  ln, open: map[net.Conn]struct{}{},
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	p.wait.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.wait.Go(func() { p.relay(c, serve) })
		}
	})
	return p, nil
}

func (p *Proxy) relay(down net.Conn, serve func(net.Conn) (net.Conn, error)) {
	defer down.Close()
	if !p.own(down) {
		return
	}
	up, err := serve(down)
	if err != nil {
		return
	}
	defer up.Close()
	p.Tunnels.Add(1)
	if !p.own(up) {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(up, down)
		_ = up.Close()
	}()
	_, _ = io.Copy(down, up)
	_ = down.Close()
	<-done
}

// own remembers a connection for Close.
func (p *Proxy) own(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open != nil {
		p.open[c] = struct{}{}
	}
	return p.open != nil
}

// Close ends the proxy and all that goes through it.
func (p *Proxy) Close() {
	_ = p.ln.Close()
	p.mu.Lock()
	for c := range p.open {
		_ = c.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.wait.Wait()
}

func serveConnect(c net.Conn, want string) (net.Conn, error) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return nil, err
	}
	answer := "405 Method Not Allowed"
	if req.Method == http.MethodConnect {
		answer = "407 Proxy Authentication Required"
		if req.Header.Get("Proxy-Authorization") == want {
			up, err := net.Dial("tcp", req.Host)
			if err == nil {
				_, err = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
				return up, err
			}
			answer = "502 Bad Gateway"
		}
	}
	_, _ = io.WriteString(c, "HTTP/1.1 "+answer+"\r\nContent-Length: 0\r\n\r\n")
	return nil, net.ErrClosed
}
