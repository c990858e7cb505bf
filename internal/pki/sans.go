package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// maxDefaultSANs keeps the certificate of a machine with thousands of addresses small enough for a handshake.
const maxDefaultSANs = 128

// DefaultSANs are the names and addresses under which this machine knows itself: its host name, in full and short,
// localhost, and the addresses of its interfaces except link-local ones, which no certificate can name.
// It asks no name server. The result is never empty.
func DefaultSANs() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(host, ".")
		names = append(names, host, short)
	}
	addrs, _ := net.InterfaceAddrs() // without interfaces there is still localhost
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		names = append(names, prefix.Addr().String())
	}

	sans := make([]string, 0, len(names))
	for _, name := range names {
		san, err := canonicalSAN(name)
		if err != nil || slices.Contains(sans, san) { // a host name may be one that no certificate can carry
			continue
		}
		if len(sans) == maxDefaultSANs {
			break
		}
		sans = append(sans, san)
	}
	return sans
}

// canonicalSANs checks the names and addresses of a certificate and puts them into one order, each once.
func canonicalSANs(names []string) ([]string, error) {
	sans := make([]string, 0, len(names))
	for _, name := range names {
		san, err := canonicalSAN(name)
		if err != nil {
			return nil, err
		}
		sans = append(sans, san)
	}
	slices.Sort(sans)
	return slices.Compact(sans), nil
}

// sansOf are the canonical names and addresses of a certificate.
func sansOf(cert *x509.Certificate) []string {
	sans := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			sans = append(sans, addr.Unmap().String())
		}
	}
	slices.Sort(sans)
	return slices.Compact(sans)
}

// setSANs writes canonical names and addresses into a template.
func setSANs(template *x509.Certificate, sans []string) {
	for _, san := range sans {
		if addr, err := netip.ParseAddr(san); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, san)
		}
	}
}

// canonicalSAN is the one form of a name or address: lower case, no trailing dot, IPv6 without brackets.
func canonicalSAN(s string) (string, error) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		if addr.Zone() != "" {
			return "", fmt.Errorf("subject alternative name %q: a certificate cannot carry a zone", s)
		}
		return addr.Unmap().String(), nil
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if err := checkDNSName(name); err != nil {
		return "", fmt.Errorf("subject alternative name %.80q: %w", s, err)
	}
	return name, nil
}

func checkDNSName(name string) error {
	if name == "" {
		return errors.New("empty")
	}
	if len(name) > 253 {
		return errors.New("longer than 253 characters")
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(name, "*."), ".") {
		if label == "" || len(label) > 63 {
			return errors.New("want labels of 1 to 63 characters")
		}
		if strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return errors.New("a label begins or ends with '-'")
		}
		if i := strings.IndexFunc(label, notInLabel); i >= 0 {
			return errors.New("want a host name or an IP address, without scheme and port; " +
				"names in other scripts in their xn-- form")
		}
	}
	return nil
}

func notInLabel(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}
