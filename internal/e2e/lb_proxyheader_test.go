//go:build linux

package e2e

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// PROXY headers as balancers send them, written here from the specification alone: what the product's own codec
// thinks of them is what is tested.

const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// proxyV2 is a header of version 2: command 0 is LOCAL, 1 is PROXY.
func proxyV2(command, family byte, body string) string {
	h := []byte(proxySignature)
	h = append(h, 0x20|command, family)
	h = binary.BigEndian.AppendUint16(h, uint16(len(body)))
	return string(h) + body
}

// proxyAddresses is the block of addresses of version 2.
func proxyAddresses(source, destination string) string {
	s, d := netip.MustParseAddrPort(source), netip.MustParseAddrPort(destination)
	b := append(s.Addr().AsSlice(), d.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, s.Port())
	return string(binary.BigEndian.AppendUint16(b, d.Port()))
}

func proxyV2TCP4(source, destination string, tlvs ...string) string {
	body := proxyAddresses(source, destination)
	for _, tlv := range tlvs {
		body += tlv
	}
	return proxyV2(1, 0x11, body)
}

func proxyV2TCP6(source, destination string) string {
	return proxyV2(1, 0x21, proxyAddresses(source, destination))
}

func proxyTLV(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

// Kinds of TLV.
const (
	tlvCRC32C = 0x03
	tlvNoop   = 0x04
	tlvAWS    = 0xea
)

// checksummed fills in the CRC32C of a header whose first TLV of that kind has four zeros.
func checksummed(header string) string {
	b := []byte(header)
	empty := proxyTLV(tlvCRC32C, "\x00\x00\x00\x00")
	for at := 16; at+len(empty) <= len(b); at++ {
		if string(b[at:at+len(empty)]) == empty {
			binary.BigEndian.PutUint32(b[at+3:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
			return string(b)
		}
	}
	panic("the header has no empty CRC32C")
}

// nlbHealth is the header of 100 bytes with which AWS's network balancer checks health: LOCAL with family 0x11 and no
// addresses, but a CRC32C and padding.
func nlbHealth() string {
	crc := proxyTLV(tlvCRC32C, "\x00\x00\x00\x00")
	return checksummed(proxyV2(0, 0x11, crc+proxyTLV(tlvNoop, string(make([]byte, 84-len(crc)-3)))))
}

// nlbData is the header of a visitor who came through an endpoint of a VPC.
func nlbData(source, destination string) string {
	return checksummed(proxyV2TCP4(source, destination,
		proxyTLV(tlvCRC32C, "\x00\x00\x00\x00"), proxyTLV(tlvAWS, "\x01vpce-08d2bf15fac5001c9"), proxyTLV(tlvNoop, string(make([]byte, 20)))))
}
