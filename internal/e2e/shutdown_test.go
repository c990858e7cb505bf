//go:build linux

package e2e

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSIGTERMLetsOpenRequestsFinish(t *testing.T) {
	for _, who := range []string{"server", "client"} {
		t.Run(who, func(t *testing.T) {
			o := newOrigin(t, "a")
			s, c, v := offerHTTP(t, o.addr())
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.data+"/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := v.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			lines.Scan()

			ending := map[string]*process{"server": s.process, "client": c}[who]
			ending.signal(t, syscall.SIGTERM)
			for i := range 10 { // it goes on
				select {
				case o.next <- struct{}{}:
				case <-ctx.Done():
					t.Fatal("the origin's handler is gone")
				}
				for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
				}
				if lines.Err() != nil {
					t.Fatalf("event %d: %v", i, lines.Err())
				}
			}
			select {
			case <-ending.done:
				t.Fatalf("the %s ended with a request open", who)
			default:
			}
			resp.Body.Close() // the last one ends: the process may go, long before the 30 s of --drain-timeout
			begin := time.Now()
			if code := ending.wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("ended %v after the last request", took)
			}
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	for who, ending := range map[string]struct {
		taken  string // what the server logs of the first signal
		signal syscall.Signal
		code   int
	}{
		"client": {`client is going away`, syscall.SIGTERM, 143},
		"server": {`going down`, syscall.SIGINT, 130},
	} {
		t.Run(who, func(t *testing.T) {
			o := newOrigin(t, "a")
			s, c, v := offerHTTP(t, o.addr())
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.data+"/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := v.client.Do(r) // keeps both from ending at the first signal
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			p := map[string]*process{"client": c, "server": s.process}[who]
			p.signal(t, ending.signal)
			s.line(t, ending.taken)
			begin := time.Now()
			p.signal(t, ending.signal)
			if code := p.wait(t); code != ending.code {
				t.Errorf("%v twice: exit code %d, want %d", ending.signal, code, ending.code)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("%v twice: ended after %v", ending.signal, took)
			}
			c.kill(t) // it would wait for the server to come back, and the connection with it
		})
	}
}
