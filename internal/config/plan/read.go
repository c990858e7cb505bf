package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"culvert/internal/config/file"
	"culvert/internal/hostname"
	"culvert/internal/tunnel"
)

// Options are what package file needs to know of a plan's types.
func Options() file.Options {
	return file.Options{Scalars: []file.Scalar{
		file.ScalarOf(parseHost),
		file.ScalarOf(parseTunnel),
		file.ScalarOf(parseStatus),
	}}
}

// Read reads the data plane of a file, complete and right. The warnings are of what is in it and has no effect; the error is
// file.Faults. Keys of the top that are not of the plan are others' business: o says whose.
func Read(doc *file.Doc, o file.Options) (p Plan, warnings file.Faults, err error) {
	o.Scalars, o.Habits = Options().Scalars, habits
	c := checker{doc: doc, plan: &p}
	if err := doc.Decode(&p, o); err != nil {
		var faults file.Faults
		if !errors.As(err, &faults) {
			return Plan{}, nil, err
		}
		c.broken(faults)
	}
	c.check()
	if err := append(c.decoding, c.faults...).Err(); err != nil {
		return Plan{}, nil, err
	}
	c.warnings.Sort()
	return p, c.warnings, nil
}

// parseHost reads a pattern of hosts.
func parseHost(text string) (hostname.Pattern, error) {
	p, err := hostname.ParsePattern(text)
	if err != nil {
		return p, fmt.Errorf("%w; write a name without scheme and port, as in app.example.com or *.example.com", err)
	}
	return p, nil
}

// parseTunnel reads the name of a tunnel that can be a member or the target of a route: one that carries bytes.
func parseTunnel(text string) (tunnel.Name, error) {
	const remedy = "write name/NAME, tcp/PORT, udp/PORT or tls/HOST"
	n, err := tunnel.ParseName(text)
	switch {
	case err != nil:
		return n, fmt.Errorf("%.80q is not the name of a tunnel; %s", text, remedy)
	case n.Kind() == tunnel.HTTP || n.Kind() == tunnel.Divert:
		return n, fmt.Errorf("the tunnel %.80q carries no plain connections; %s", text, remedy)
	}
	return n, nil
}

// String is the range as parseStatus reads it.
func (r StatusRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

func parseStatus(text string) (StatusRange, error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	low, err := strconv.ParseUint(from, 10, 16)
	high, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil || low < 100 || high > 599 || low > high {
		return StatusRange{}, fmt.Errorf("%.40q is neither a status code nor a range of them; write as in 200 or 200-399", text)
	}
	return StatusRange{int(low), int(high)}, nil
}

// SetWord takes "off", for an entrypoint that expects no header.
func (a *ProxyAccept) SetWord(string) { a.Accept = AcceptOff }

// Word is "off" where no header is expected.
func (a *ProxyAccept) Word() string {
	if a.Accept == AcceptOff {
		return string(AcceptOff)
	}
	return ""
}

// SetWord takes a version, without anything more.
func (s *ProxySend) SetWord(word string) { s.Version = ProxyVersion(word) }

// Word is the version, if there is nothing more.
func (s *ProxySend) Word() string {
	if len(s.TLVs) > 0 || s.UDPHeader != EveryDatagram {
		return ""
	}
	return string(s.Version)
}

// SetWord takes "off".
func (e *Eject) SetWord(string) { *e = Eject{After: -1} }

// Word is "off" for what never ejects.
func (e *Eject) Word() string {
	if e.Off() {
		return "off"
	}
	return ""
}
