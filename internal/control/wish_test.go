package control

import (
	"testing"

	"culvert/internal/proxyproto"
	"culvert/internal/tunnel"
	"culvert/internal/upstream"
)

// TestOpenTellsOfTheBalancerInFront is about the fields of a header that a visitor came with: those that the service is to
// get go to the client, and no others.
func TestOpenTellsOfTheBalancerInFront(t *testing.T) {
	before := &proxyproto.Header{TLVs: []proxyproto.TLV{
		{Type: proxyproto.TypeAuthority, Value: []byte("first.example")},
		{Type: proxyproto.TypeUniqueID, Value: []byte("theirs")},
	}}
	all := proxyproto.Emission{Version: proxyproto.V2, Authority: true, UniqueID: true, CRC32C: true}
	tests := []struct {
		name   string
		emit   proxyproto.Emission
		proxy  *proxyproto.Header
		host   string
		unique string
	}{
		{"no wish", proxyproto.Emission{}, before, "own.example", ""},
		{"version 1", proxyproto.Emission{Version: proxyproto.V1}, before, "own.example", ""},
		{"version 2 without fields", proxyproto.Emission{Version: proxyproto.V2}, before, "own.example", ""},
		{"all fields", all, before, "first.example", "theirs"},
		{"all fields, no balancer", all, nil, "own.example", ""},
		{"all fields, none came", all, &proxyproto.Header{}, "own.example", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &member{tunnel: tunnel.TCPName(2222)}
			o := m.open(&upstream.Visit{ID: "c1", Host: "own.example", Proxy: tt.proxy, Emit: tt.emit})
			if o.ProxyProtocol != tt.emit || o.Host != tt.host || o.UniqueID != tt.unique || o.ID != "c1" {
				t.Errorf("got %+v", o)
			}
		})
	}
}
