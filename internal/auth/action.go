package auth

import (
	"fmt"
	"strconv"
	"strings"

	"culvert/internal/hostname"
)

// Action is something that a bearer may be permitted to do. The zero Action is never permitted.
type Action struct {
	kind actionKind
	host hostname.Pattern
	port uint16
	text string // the name of a tunnel or an entrypoint, or host:port
}

type actionKind uint8

const (
	offerHost actionKind = iota + 1
	offerPort
	offerName
	visit
	forwardTo
	divert
	read
	administer
)

// OfferHost is to take HTTP traffic for all hosts of a pattern.
func OfferHost(host hostname.Pattern) Action { return Action{kind: offerHost, host: host} }

// OfferPort is to take the traffic of a public port.
func OfferPort(port uint16) Action { return Action{kind: offerPort, port: port} }

// OfferName is to offer a private tunnel under a name.
func OfferName(name string) Action { return Action{kind: offerName, text: name} }

// Visit is to open connections through the private tunnel of a name.
func Visit(name string) Action { return Action{kind: visit, text: name} }

// ForwardTo is to open connections to an address of the server's network, "host:port".
func ForwardTo(hostport string) Action { return Action{kind: forwardTo, text: hostport} }

// Divert is to have live traffic of an entrypoint for a time.
func Divert(entrypoint string) Action { return Action{kind: divert, text: entrypoint} }

// Read is to read status and metrics.
func Read() Action { return Action{kind: read} }

// Administer is to change what the server does.
func Administer() Action { return Action{kind: administer} }

// String says what is done, for messages: "offer host app.example.com". Strangers' bytes in it are quoted.
func (a Action) String() string {
	switch a.kind {
	case offerHost:
		return "offer host " + a.host.String()
	case offerPort:
		return "offer port " + strconv.Itoa(int(a.port))
	case offerName:
		return "offer name " + printable(a.text)
	case visit:
		return "visit " + printable(a.text)
	case forwardTo:
		return "forward to " + printable(a.text)
	case divert:
		return "divert traffic of entrypoint " + printable(a.text)
	case read:
		return "read status and metrics"
	case administer:
		return "administer the server"
	default:
		return "do nothing in particular"
	}
}

// printable is s as it is if it is a plain word, else quoted and cut.
func printable(s string) string {
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }
	if s == "" || len(s) > 255 || strings.IndexFunc(s, odd) >= 0 {
		return fmt.Sprintf("%.80q", s)
	}
	return s
}
