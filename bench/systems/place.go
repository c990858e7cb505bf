// Package systems knows how to run what is compared: culvert, the reference tunnel, ssh -R, HAProxy and nginx.
//
// All of them lead visitors of one address to the same service, with comparable security: TLS 1.3 or SSH with AES-GCM
// in the tunnels, nothing in the plain proxies, which are one hop and stand for the least that a relay costs.
package systems

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Place is where a system runs.
type Place struct {
	Binary  string // culvert
	Self    string // this program
	Keys    Keys
	Dir     string // of this run alone
	Service string // host:port of the service
	Names   string // host:port of a server of names, to which balancers lead what comes to the tunnel's port
	Host    string // address of the server
	Public  string // port for visitors
	Tunnel  string // port for clients
	Dial    string // host:port where clients dial: the tunnel's own, or a long way to it

	// In front of the command of a server and of a client: the network namespace it runs in.
	ServerIn, ClientIn []string
}

// PublicAt is where visitors connect.
func (p Place) PublicAt() string { return net.JoinHostPort(p.Host, p.Public) }

// TunnelAt is where clients connect when nothing lies between.
func (p Place) TunnelAt() string { return net.JoinHostPort(p.Host, p.Tunnel) }

// Path is a file of this run.
func (p Place) Path(name string) string { return filepath.Join(p.Dir, name) }

func (p Place) write(name, text string) (path string, err error) {
	path = p.Path(name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// FreePort is a port of loopback that nobody listens on now. It lies below those that the system gives to visitors:
// after a few thousand connections the system has none left to listen on for a minute.
func FreePort() (string, error) {
	var err error
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(10000))
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			return port, l.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
