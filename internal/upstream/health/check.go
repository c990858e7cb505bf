// Package health finds out by active checks whether services take traffic.
//
// A Checker asks one service again and again and tells only of changes, after as many answers in a row as its Check wants.
// The checks of many services do not run in step. A plain TCP check cannot tell a process that hangs, whose connections
// the kernel accepts; Expect and HTTP can.
package health

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"culvert/internal/proxyproto"
)

// Kind is what a check does.
type Kind string

// The kinds of checks.
const (
	TCP    Kind = "tcp"    // connects
	HTTP   Kind = "http"   // asks for a path and looks at the status, and at the body if something is expected there
	Expect Kind = "expect" // connects, sends, and reads until the answer holds what is expected
	UDP    Kind = "udp"    // sends a datagram and waits for one that holds what is expected
)

// Check is what is asked of a service, and how often.
type Check struct {
	Kind Kind

	// Of HTTP: the method, GET if empty; the path, "/" if empty; the Host header, the service's address if empty; and the
	// codes that are right, 200 to 399 if empty.
	Method, Path, Host string
	Status             []StatusRange

	// Of Expect and UDP: what is sent, which may be empty where the service speaks first, and what the answer must hold;
	// empty means that any answer will do. A UDP check that expects nothing is content if nobody refuses the datagram.
	// HTTP sends nothing of its own, and expects it in the body.
	Send, Expect string

	Interval time.Duration // from the start of one check to that of the next; DefaultInterval if zero
	Timeout  time.Duration // of one check, and never more than the interval; DefaultTimeout if zero
	Rise     int           // good answers in a row that make a service usable; DefaultRise if zero
	Fall     int           // failures in a row that make it unusable; DefaultFall if zero
	Port     uint16        // in place of the service's own; 0: its own
	// Proxy is the PROXY header that the service expects at the beginning. Version 2 says LOCAL, version 1 has the addresses
	// of the check's own connection.
	Proxy proxyproto.Version
}

// StatusRange is a range of HTTP status codes, ends included.
type StatusRange struct{ From, To int }

// The defaults of a check's times and counts.
const (
	DefaultInterval = 2 * time.Second
	DefaultTimeout  = time.Second
	DefaultRise     = 2
	DefaultFall     = 3
)

// Limits of a check.
const (
	maxText     = 4096 // of what is sent or expected
	leastTime   = 10 * time.Millisecond
	mostInARow  = 1000
	lowestCode  = 100
	highestCode = 599
)

// withDefaults fills in what is left out.
func (c Check) withDefaults() Check {
	c.Interval = cmp.Or(c.Interval, DefaultInterval)
	c.Timeout = min(cmp.Or(c.Timeout, DefaultTimeout), c.Interval)
	c.Rise, c.Fall = cmp.Or(c.Rise, DefaultRise), cmp.Or(c.Fall, DefaultFall)
	if c.Kind == HTTP {
		c.Method, c.Path = cmp.Or(c.Method, http.MethodGet), cmp.Or(c.Path, "/")
		if len(c.Status) == 0 {
			c.Status = []StatusRange{{200, 399}}
		}
	}
	return c
}

// Validate says what is wrong with a check.
func (c Check) Validate() error {
	switch c.Kind {
	case TCP, HTTP, Expect, UDP:
	default:
		return fmt.Errorf("the kind of check %q is unknown; use tcp, http, expect or udp", c.Kind)
	}
	if err := c.validateHTTP(); err != nil {
		return err
	}
	switch {
	case c.Kind == TCP && c.Send+c.Expect != "", c.Kind == HTTP && c.Send != "":
		return fmt.Errorf("a %s check sends and expects nothing of one's choice; use expect or udp", c.Kind)
	case len(c.Send) > maxText || len(c.Expect) > maxText:
		return fmt.Errorf("more than %d bytes to send or to expect", maxText)
	case c.Interval != 0 && c.Interval < leastTime:
		return fmt.Errorf("interval: %s is less than %s", c.Interval, leastTime)
	case c.Timeout != 0 && c.Timeout < leastTime:
		return fmt.Errorf("timeout: %s is less than %s", c.Timeout, leastTime)
	case c.Rise < 0 || c.Rise > mostInARow:
		return fmt.Errorf("rise: give 1 to %d", mostInARow)
	case c.Fall < 0 || c.Fall > mostInARow:
		return fmt.Errorf("fall: give 1 to %d", mostInARow)
	case c.Proxy > proxyproto.V2:
		return fmt.Errorf("the PROXY protocol has no version %d", c.Proxy)
	case c.Proxy == proxyproto.V1 && c.Kind == UDP:
		return errors.New("version 1 of the PROXY protocol is not for UDP; use v2")
	}
	return nil
}

func (c Check) validateHTTP() error {
	if c.Kind != HTTP {
		if c.Method+c.Path+c.Host != "" || len(c.Status) > 0 {
			return fmt.Errorf("a %s check has no method, path, host and status", c.Kind)
		}
		return nil
	}
	switch c.Method {
	case "", http.MethodGet, http.MethodOptions:
	case http.MethodHead:
		if c.Expect != "" {
			return errors.New("the answer to HEAD has no body, which could hold what is expected; use GET")
		}
	default:
		return fmt.Errorf("method: %.20q changes something; use GET, HEAD or OPTIONS", c.Method)
	}
	odd := func(r rune) bool { return r <= ' ' || r == 0x7f }
	if c.Path != "" && (c.Path[0] != '/' || strings.ContainsFunc(c.Path, odd)) {
		return fmt.Errorf("path: %.100q does not begin with a slash, or has a space in it", c.Path)
	}
	if strings.ContainsFunc(c.Host, odd) {
		return fmt.Errorf("host: %.100q is not a host", c.Host)
	}
	for _, r := range c.Status {
		if r.From < lowestCode || r.To > highestCode || r.From > r.To {
			return fmt.Errorf("status: %d-%d is not a range of codes from %d to %d", r.From, r.To, lowestCode, highestCode)
		}
	}
	return nil
}
