package proxyproto

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const unknown1 = "UNKNOWN"

// parse1 reads "PROXY TCP4 SOURCE DESTINATION PORT PORT\r\n". p begins with the signature.
func parse1(p []byte) (Header, int, bool, error) {
	end := bytes.IndexByte(p[:min(len(p), MaxV1)], '\n')
	if end < 0 {
		switch {
		case len(p) >= MaxV1:
			return Header{}, 0, false, fmt.Errorf("%w: version 1 has at most %d bytes", ErrTooLong, MaxV1)
		case !family1(string(p[len(signature1):])):
			return Header{}, 0, false, fmt.Errorf("version 1: unknown family in %.20q", p)
		}
		return Header{}, 0, true, nil
	}
	line, ok := bytes.CutSuffix(p[:end], []byte{'\r'})
	if !ok {
		return Header{}, 0, false, fmt.Errorf("version 1: the line does not end in CR LF")
	}
	h, err := line1(string(line[len(signature1):]))
	if err != nil {
		return Header{}, 0, false, fmt.Errorf("version 1: %w", err)
	}
	return h, end + 1, false, nil
}

// family1 says whether what follows the signature begins, or may begin, with a family.
func family1(s string) bool {
	for _, f := range []string{"TCP4 ", "TCP6 ", unknown1} {
		if n := min(len(s), len(f)); s[:n] == f[:n] {
			return true
		}
	}
	return false
}

// line1 reads the line behind the signature.
func line1(s string) (Header, error) {
	if s == unknown1 || strings.HasPrefix(s, unknown1+" ") { // what follows is to be ignored
		return Header{Version: V1}, nil
	}
	f := strings.Split(s, " ")
	if len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6" {
		return Header{}, fmt.Errorf("%.120q is not a family, two addresses and two ports", s)
	}
	source, err := address1(f[0], f[1], f[3])
	if err != nil {
		return Header{}, err
	}
	destination, err := address1(f[0], f[2], f[4])
	if err != nil {
		return Header{}, err
	}
	return Header{Version: V1, Transport: TCP, Source: source, Destination: destination}, nil
}

func address1(family, host, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil || a.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("%.50q is not an address", host)
	case family == "TCP4" && !a.Is4(), family == "TCP6" && !a.Is6():
		return netip.AddrPort{}, fmt.Errorf("%s with the address %s", family, host)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, fmt.Errorf("%.20q is not a port", port)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// append1 writes the line. Addresses of two families are written as IPv6, IPv4 in its mapped form, which every reader of
// IPv6 takes.
func (h *Header) append1(p []byte) []byte {
	if h.Local || h.Transport != TCP || !h.Source.IsValid() {
		return append(p, signature1+unknown1+"\r\n"...)
	}
	source, destination, six := h.addresses()
	family := "TCP4 "
	if six {
		family = "TCP6 "
	}
	p = append(append(p, signature1...), family...)
	p = append(source.Addr().AppendTo(p), ' ')
	p = append(destination.Addr().AppendTo(p), ' ')
	p = append(strconv.AppendUint(p, uint64(source.Port()), 10), ' ')
	return append(strconv.AppendUint(p, uint64(destination.Port()), 10), '\r', '\n')
}
