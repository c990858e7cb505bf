package proxyproto

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"testing"

	oracle "github.com/pires/go-proxyproto"
	"pgregory.net/rapid"
)

// TestTheLibraryReadsWhatWeWrite has go-proxyproto read headers of any addresses and fields.
func TestTheLibraryReadsWhatWeWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := anyHeader(t)
		v := rapid.SampledFrom([]Version{V1, V2}).Draw(t, "version")
		p := h.AppendTo(nil, v)
		got, err := oracle.Read(bufio.NewReader(bytes.NewReader(p)))
		if err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if v == V1 && h.Transport == UDP { // written as unknown
			return
		}
		source, destination := addressOf(got.SourceAddr), addressOf(got.DestinationAddr)
		if source != h.Source || destination != h.Destination {
			t.Fatalf("%q: got %s to %s, want %s to %s", p, source, destination, h.Source, h.Destination)
		}
		if v == V1 {
			return
		}
		tlvs, err := got.TLVs()
		if err != nil || len(tlvs) != len(h.TLVs) {
			t.Fatalf("%d fields, %v; want %d", len(tlvs), err, len(h.TLVs))
		}
		for i, tlv := range tlvs {
			if byte(tlv.Type) != h.TLVs[i].Type || !bytes.Equal(tlv.Value, h.TLVs[i].Value) && h.TLVs[i].Type != TypeCRC32C {
				t.Errorf("field %d: got %x, want %x", i, tlv, h.TLVs[i])
			}
		}
	})
}

// TestWeReadWhatTheLibraryWrites has go-proxyproto write them.
func TestWeReadWhatTheLibraryWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := anyHeader(t)
		v := rapid.SampledFrom([]byte{1, 2}).Draw(t, "version")
		if h.Source.Addr().Is4() != h.Destination.Addr().Is4() || v == 1 && h.Transport == UDP {
			t.Skip("the library writes addresses of one family, and version 1 is TCP's")
		}
		theirs := &oracle.Header{
			Version: v, Command: oracle.PROXY, TransportProtocol: oracle.TCPv4,
			SourceAddr: net.TCPAddrFromAddrPort(h.Source), DestinationAddr: net.TCPAddrFromAddrPort(h.Destination),
		}
		switch six := h.Source.Addr().Is6(); {
		case h.Transport == UDP:
			theirs.TransportProtocol = oracle.UDPv4
			if six {
				theirs.TransportProtocol = oracle.UDPv6
			}
			theirs.SourceAddr, theirs.DestinationAddr = net.UDPAddrFromAddrPort(h.Source), net.UDPAddrFromAddrPort(h.Destination)
		case six:
			theirs.TransportProtocol = oracle.TCPv6
		}
		p, err := theirs.Format()
		if err != nil {
			t.Fatal(err)
		}
		got, n, _, err := Parse(p)
		if err != nil || n != len(p) || got.Source != h.Source || got.Destination != h.Destination || got.Transport != h.Transport {
			t.Fatalf("%q: got %+v, %d, %v; want %s to %s", p, got, n, err, h.Source, h.Destination)
		}
	})
}

func anyHeader(t *rapid.T) Header {
	h := Header{
		Transport: rapid.SampledFrom([]Transport{TCP, UDP}).Draw(t, "transport"),
		Source:    anyAddress(t, "source"), Destination: anyAddress(t, "destination"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		h.TLVs = append(h.TLVs, TLV{rapid.ByteRange(0xe0, 0xef).Draw(t, "type"), rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")})
	}
	if rapid.Bool().Draw(t, "checksum") {
		h.TLVs = append(h.TLVs, TLV{Type: TypeCRC32C})
	}
	return h
}

func anyAddress(t *rapid.T, name string) netip.AddrPort {
	size := rapid.SampledFrom([]int{4, 16}).Draw(t, name+" size")
	a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, name))
	return netip.AddrPortFrom(a.Unmap(), rapid.Uint16().Draw(t, name+" port"))
}

func addressOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
