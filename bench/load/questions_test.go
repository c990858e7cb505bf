package load

import (
	"net"
	"strings"
	"testing"
	"time"
)

// TestEachQuestionHasItsPort asks a server that leaves out every fifth answer, and answers every seventh question without a
// record, which is none either.
func TestEachQuestionHasItsPort(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for n := 0; ; n++ {
			size, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if want := "\x05bench\x00\x00\x01\x00\x01"; !strings.HasSuffix(string(buf[:size]), want) {
				t.Errorf("question %q, want one that ends with %q", buf[:size], want)
			}
			ports[from.String()] = true
			switch {
			case n%5 == 0:
			case n%7 == 0:
				_, _ = c.WriteTo(buf[:size], from)
			default:
				_, _ = c.WriteTo(buf[:size+16], from)
			}
		}
	}()
	q, err := AskNames(t.Context(), c.LocalAddr().String(), "bench", 700, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-done
	if want := 70 - 70/5 - 70/7 + 70/35; q.Asked != 70 || q.Answered != want {
		t.Errorf("%d asked and %d answered, want 70 and %d", q.Asked, q.Answered, want)
	}
	if len(ports) < 60 { // the system may give one twice
		t.Errorf("70 questions came from %d ports", len(ports))
	}
	if q.P50 <= 0 || q.P99 < q.P50 {
		t.Errorf("half took %s, nearly all %s", q.P50, q.P99)
	}
}
