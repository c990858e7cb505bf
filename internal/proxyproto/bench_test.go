package proxyproto

import "testing"

// benchHeaders are headers as balancers send them.
func benchHeaders() map[string][]byte {
	return map[string][]byte{
		"v1":        tcp4(V1).AppendTo(nil, V1),
		"v2":        tcp4(V2).AppendTo(nil, V2),
		"v2 fields": tcp4(V2, TLV{TypeAuthority, []byte("api.example.com")}, TLV{Type: TypeCRC32C}).AppendTo(nil, V2),
	}
}

func BenchmarkParse(b *testing.B) {
	for name, p := range benchHeaders() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, n, _, err := Parse(p); err != nil || n != len(p) {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	room := make([]byte, 0, 256)
	for name, p := range benchHeaders() {
		h, _, _, err := Parse(p)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.AppendTo(room, h.Version)
			}
		})
	}
}

// A header stands in front of every connection: its addresses take no memory, a line of text little.
func TestAHeaderTakesLittleMemory(t *testing.T) {
	most := map[string]float64{"v1": 2, "v2": 0, "v2 fields": 3}
	room := make([]byte, 0, 256)
	for name, p := range benchHeaders() {
		h, _, _, err := Parse(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := testing.AllocsPerRun(100, func() { _, _, _, _ = Parse(p) }); got > most[name] {
			t.Errorf("%s: reading it allocates %v times, want at most %v", name, got, most[name])
		}
		if got := testing.AllocsPerRun(100, func() { h.AppendTo(room, h.Version) }); got > 0 {
			t.Errorf("%s: writing it allocates %v times", name, got)
		}
	}
}
