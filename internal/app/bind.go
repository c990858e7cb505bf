package app

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"culvert/internal/config"
	"culvert/internal/config/plan"
	"culvert/internal/dataplane"
)

// binding is an address that was to be listened on, and who asked for it.
type binding struct {
	network, addr    string
	purpose          string // "" where who asked says it
	askedPort, asked string // for the port, for the host
}

// bindFailure says in the words of the configuration why an address cannot be listened on, and what to do.
type bindFailure struct {
	text string
	err  error
}

func (f *bindFailure) Error() string { return f.text }
func (f *bindFailure) Unwrap() error { return f.err }

// explain makes a bindFailure of the failures that an operator can mend. Others stay as they are, with who asked.
func (b binding) explain(err error) error {
	what := "listen " + b.addr
	if b.purpose != "" {
		what += " for " + b.purpose
	}
	tell := func(asked, format string, args ...any) error {
		return &bindFailure{asked + ": " + what + ": " + fmt.Sprintf(format, args...), err}
	}
	host, port, _ := net.SplitHostPort(b.addr)
	number, _ := strconv.Atoi(port)
	switch least := unprivileged(); {
	case errors.Is(err, syscall.EADDRINUSE):
		holder, at := holder(b.network, b.addr)
		mend := "end that program, or give another port"
		if every := host == "" || net.ParseIP(host).IsUnspecified(); every && at.IsValid() && !at.Addr().IsUnspecified() {
			holder += " on " + at.String()
			mend += ", or one address of this machine instead of all"
		}
		return tell(b.askedPort, "address already in use by %s; %s", cmp.Or(holder, "another program"), mend)
	case errors.Is(err, syscall.EACCES) && number < least:
		program, _ := os.Executable()
		return tell(b.askedPort, "permission denied, as a port below %d needs a privilege; write AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, "+
			"or run setcap cap_net_bind_service=+ep %s as root, or give a higher port", least, cmp.Or(program, "culvert"))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		every, version := "0.0.0.0", "4"
		if strings.Contains(host, ":") {
			every, version = "::", "6"
		}
		return tell(b.asked, "cannot assign requested address, as no interface of this machine has %s; give one that it has, or %s for all of them; "+
			"for an address that comes later, as with keepalived, set the sysctl net.ipv%s.ip_nonlocal_bind=1", host, every, version)
	}
	return fmt.Errorf("%s: %w", b.askedPort, err)
}

// unprivileged is the lowest port that needs no privilege.
func unprivileged() int {
	const usual = 1024
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return usual
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return usual
	}
	return n
}

// cannotOpen explains the failure of a data plane to open the entrypoints of a configuration.
func cannotOpen(cfg *config.Server, err error) error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range several.Unwrap() {
			all = append(all, cannotOpen(cfg, one))
		}
		return errors.Join(all...)
	}
	var failed *dataplane.ListenError
	if !errors.As(err, &failed) {
		return err
	}
	b := binding{network: failed.Network, addr: failed.Addr}
	if failed.Entrypoint == plan.TLSEntrypoint && cfg.TLSPort != 0 {
		b.askedPort, b.asked = cfg.Asked("tls-port"), cfg.Asked("data-addr")
	} else {
		b.purpose = "entrypoint " + failed.Entrypoint
		b.askedPort = cfg.AskedAddr(failed.Entrypoint)
		b.asked = b.askedPort
	}
	return b.explain(failed.Err)
}

// holder is the program that listens on an address, "nginx (process 12)", and where; "" if that cannot be known.
func holder(network, addr string) (program string, at netip.AddrPort) {
	inodes := listening(network, addr)
	if len(inodes) == 0 {
		return "", at
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*") // those of others' processes are for root alone
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		at, ok := inodes[strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")]
		if !ok {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		if pid == strconv.Itoa(os.Getpid()) {
			return "this program itself", at
		}
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("%s (process %s)", cmp.Or(string(bytes.TrimSpace(name)), "a program"), pid), at
	}
	return "", at
}

// listening are the inodes of the sockets that stand in the way of one at an address, and where each listens.
func listening(network, addr string) map[string]netip.AddrPort {
	inodes := make(map[string]netip.AddrPort)
	want, err := netip.ParseAddrPort(addr)
	if host, port, splitErr := net.SplitHostPort(addr); err != nil && splitErr == nil && host == "" {
		want, err = netip.ParseAddrPort("0.0.0.0:" + port)
	}
	if err != nil {
		return nil
	}
	state := map[string]string{"tcp": "0A", "udp": "07"}[network]
	for _, table := range []string{network, network + "6"} {
		b, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			return nil
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			const local, st, inode = 1, 3, 9
			if len(f) <= inode || f[st] != state {
				continue
			}
			at, ok := kernelAddr(f[local])
			if ok && at.Port() == want.Port() && (at.Addr() == want.Addr().Unmap() || at.Addr().IsUnspecified() || want.Addr().IsUnspecified()) {
				inodes[f[inode]] = at
			}
		}
	}
	return inodes
}

// kernelAddr reads an address as the kernel's tables have it: words in the machine's order, and a port.
func kernelAddr(text string) (netip.AddrPort, bool) {
	const digits = 8 // of a word
	host, port, _ := strings.Cut(text, ":")
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	var b []byte
	for ; len(host) >= digits; host = host[digits:] {
		word, err := strconv.ParseUint(host[:digits], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), ok
}
