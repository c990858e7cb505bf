package tunnel

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Version is the protocol version that this code speaks.
const Version = 1

// Hello is the first message of a client: who it is and what it offers.
type Hello struct {
	Version  int    `json:"version"`
	ID       string `json:"id"`       // the operator's name for the client
	Instance string `json:"instance"` // one installation of it; several instances of an id are several members
	Epoch    uint64 `json:"epoch"`    // grows with each process of an instance
	Counter  uint64 `json:"counter"`  // grows with each session of a process
	// Reconnects is how many sessions to this server the process has had before.
	Reconnects uint64            `json:"reconnects,omitempty"`
	Software   string            `json:"software,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Offers     []Offer           `json:"offers"`
}

// Offer is one tunnel that a client offers.
type Offer struct {
	Tunnel   string `json:"tunnel"`             // a Name
	Upstream string `json:"upstream"`           // what stands behind it, as the status command shows it
	Protocol string `json:"protocol,omitempty"` // "h2c" if HTTP/2 with prior knowledge is spoken, else ""
	// Weight is the client's share of the tunnel's traffic beside other clients'; 0 counts as 1.
	Weight int `json:"weight,omitempty"`
	// Backup has the client take traffic only while no other that is no backup can.
	Backup bool `json:"backup,omitempty"`
	// Down is why the service behind the tunnel is not to be given visitors at the moment: its check fails, or has not ended
	// yet. "" means that it is up, or not checked. Health messages tell of changes.
	Down string `json:"down,omitempty"`
	// Divert says which traffic a tunnel of kind "divert" wants; nil for other kinds.
	Divert *Diversion `json:"divert,omitempty"`
}

// Diversion is a wish for live traffic of one of the server's entrypoints.
type Diversion struct {
	Entrypoint string `json:"entrypoint"`
	// Sources are addresses and CIDRs of visitors; empty means all. Hosts are patterns of the name in the ClientHello; empty
	// means all. Percent is the share of new connections, 0 meaning all of them. All that is given must fit.
	Sources []string `json:"sources,omitempty"`
	Hosts   []string `json:"hosts,omitempty"`
	Percent float64  `json:"percent,omitempty"`
	// For is how long the divert lasts from the server's yes on.
	For time.Duration `json:"for"`
	// Fail has a visitor fail whom the client does not serve; else the visitor falls through to the other routes.
	Fail bool `json:"fail,omitempty"`
	// Existing is what becomes of open connections and flows: "", which moves UDP flows and keeps TCP connections, "keep" or "move".
	Existing string `json:"existing,omitempty"`
}

// MaxWeight is the most that an offer can weigh.
const MaxWeight = 1 << 16

// Check says what is wrong with an offer's own settings. The name is not looked at.
func (o Offer) Check() error {
	if o.Weight < 0 || o.Weight > MaxWeight {
		return fmt.Errorf("weight %d; give 1 to %d", o.Weight, MaxWeight)
	}
	return nil
}

// Health is a client's word on the service behind one of its tunnels, which it checks.
type Health struct {
	Tunnel string `json:"tunnel"` // a Name
	Up     bool   `json:"up"`
	Error  string `json:"error,omitempty"` // why it is down
}

// Ended is the server's word that it has taken down one of a client's tunnels, which is not to be offered again: the time of a
// divert is over, or an operator has ended it.
type Ended struct {
	Tunnel string `json:"tunnel"` // a Name
	Reason string `json:"reason"`
	// Over means that the tunnel has had its time, and so nothing is wrong.
	Over bool `json:"over,omitempty"`
}

// Limits of a hello. A longer one ends the session.
const (
	MaxOffers   = 4096
	maxHello    = 1 << 20
	maxWelcome  = 4 << 20 // it repeats the hello's names, with addresses or reasons
	maxControl  = 64 << 10
	maxIdentity = 128
	maxLabels   = 64
)

// Check says what is wrong with a hello that a stranger sent.
func (h Hello) Check() error {
	switch {
	case h.Version != Version:
		return fmt.Errorf("hello: protocol version %d, this side speaks %d", h.Version, Version)
	case !printable(h.ID) || !printable(h.Instance):
		return fmt.Errorf("hello: id and instance must be 1 to %d printable characters without spaces", maxIdentity)
	case len(h.Offers) > MaxOffers:
		return fmt.Errorf("hello: %d offers, at most %d", len(h.Offers), MaxOffers)
	case len(h.Labels) > maxLabels:
		return fmt.Errorf("hello: %d labels, at most %d", len(h.Labels), maxLabels)
	}
	for k, v := range h.Labels {
		if !printable(k) || v != "" && !printable(v) {
			return fmt.Errorf("hello: label %.40q: want printable characters without spaces, at most %d", k, maxIdentity)
		}
	}
	return nil
}

func printable(s string) bool {
	if s == "" || len(s) > maxIdentity {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// Welcome answers a hello. An offer that is refused does not end the session.
type Welcome struct {
	Version  int      `json:"version"`
	Software string   `json:"software,omitempty"`
	Answers  []Answer `json:"answers"` // one for each offer, in order
}

// Answer is what became of an offer.
type Answer struct {
	Tunnel  string `json:"tunnel"`
	Refused string `json:"refused,omitempty"` // why, in words; "" if the tunnel is up
	Address string `json:"address,omitempty"` // where visitors reach it, as far as the server knows
}

// GoAway says that the sender takes or makes no new streams; those that are open go on.
type GoAway struct {
	Reason GoAwayReason `json:"reason"`
	Detail string       `json:"detail,omitempty"`
	// After is how long the client should wait before it connects again.
	After time.Duration `json:"after,omitempty"`
}

// GoAwayReason is why a side goes away.
type GoAwayReason string

// The reasons to go away.
const (
	Shutdown GoAwayReason = "shutdown" // the sender is going down
	Fenced   GoAwayReason = "fenced"   // another process is this instance: take another instance
	Replaced GoAwayReason = "replaced" // a newer session of the same process took this one's place
	Revoked  GoAwayReason = "revoked"  // the credential is no longer valid
	Rejected GoAwayReason = "rejected" // the hello was not acceptable
	// Moved is of a client whose server goes down and which has a session elsewhere by now, with another server or the
	// process that took this one's place. It serves what still comes until the session ends.
	Moved GoAwayReason = "moved"
)

// Control messages are a type, a length and JSON. A receiver skips types that it does not know.
const (
	msgHello   = 1
	msgWelcome = 2
	msgGoAway  = 3
	msgHealth  = 4
	msgEnded   = 5
)

func writeMessage(w io.Writer, kind byte, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write control message: %w", err)
	}
	frame := append(make([]byte, 0, 5+len(body)), kind)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

var errTooLong = errors.New("control message too long")

func readMessage(r io.Reader, limit uint32) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > limit {
		return 0, nil, fmt.Errorf("%w: %d bytes, at most %d", errTooLong, n, limit)
	}
	// The body grows as it comes: a length costs its sender the bytes before it costs the receiver the memory.
	body, err = io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(body) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	return head[0], body, err
}

// expect reads one message, which must be of the kind.
func expect(r io.Reader, kind byte, limit uint32, into any) error {
	got, body, err := readMessage(r, limit)
	if err != nil {
		return err
	}
	if got == msgGoAway && kind != msgGoAway {
		var g GoAway
		if err := json.Unmarshal(body, &g); err != nil {
			return fmt.Errorf("control message: %w", err)
		}
		return &g
	}
	if got != kind {
		return fmt.Errorf("control message of type %d in place of %d", got, kind)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	return nil
}

// Error makes a GoAway the error of the session that it ends.
func (g *GoAway) Error() string {
	if g.Detail == "" {
		return "peer went away: " + string(g.Reason)
	}
	return g.Detail
}
