package load

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"culvert/bench/service"
)

func TestQuantile(t *testing.T) {
	tests := map[string]struct {
		times Times
		q     float64
		want  time.Duration
	}{
		"of none":              {nil, .5, 0},
		"of one":               {Times{7}, .99, 7},
		"the middle":           {Times{5, 1, 4, 2, 3}, .5, 3},
		"nearly all":           {Times{5, 1, 4, 2, 3}, .99, 5},
		"all":                  {Times{1, 2}, 1, 2},
		"the least":            {Times{9, 8}, 0, 8},
		"a hundredth is worse": {append(make(Times, 99), 50), .99, 50},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.times.Quantile(tt.q); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

const wrkSays = `Running 2s test @ http://127.0.0.1:1/
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   251.03us  117.76us   3.60ms   92.75%
    Req/Sec    31.53k     1.44k   33.28k    75.00%
  Latency Distribution
     50%  234.00us
     75%  270.00us
     90%  322.00us
     99%    1.25ms
  65876 requests in 2.10s, 14.14MB read
Requests/sec:  31370.21
Transfer/sec:      6.73MB
`

func TestParseWrk(t *testing.T) {
	got, err := parseWrk(wrkSays)
	want := Keepalive{Requests: 65876, PerSecond: 31370.21, P50: 234 * time.Microsecond, P99: 1250 * time.Microsecond}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("error %v, difference (-want +got):\n%s", err, diff)
	}
	for name, out := range map[string]string{
		"nothing":      "",
		"errors":       wrkSays + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
		"other status": wrkSays + "  Non-2xx or 3xx responses: 9\n",
	} {
		if _, err := parseWrk(out); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestVisitorsOfAService(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go service.New().Serve(l)
	addr := l.Addr().String()

	if times, failed := Ping(addr, 30*time.Millisecond, time.Millisecond); len(times) < 2 || failed > 0 {
		t.Errorf("ping: %d answers, %d failed", len(times), failed)
	}
	for _, path := range []string{"/once/1", "/once/2", "/once/2", "/once/2"} {
		if err := Fresh(addr, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n, err := Number(addr, "/twice"); n != 1 || err != nil {
		t.Errorf("asked twice: got %d, %v; want 1", n, err)
	}
	idle, err := OpenIdle(addr, 40)
	if err != nil {
		t.Fatal(err)
	}
	if n := idle.Alive(); n != 40 {
		t.Errorf("%d idle connections are alive, want 40", n)
	}
	idle.Close()

	down, err := StartTransfers(addr, 2, Down)
	if err != nil {
		t.Fatal(err)
	}
	up, err := StartTransfers(addr, 1, Up)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(10 * time.Second)
	for n := int64(0); down.Got() < 1<<20 || n < 1<<20; {
		if n, err = Number(addr, "/counted"); err != nil || time.Now().After(end) {
			t.Fatalf("down %d, up %d, %v", down.Got(), n, err)
		}
	}
	if down.Ended()+up.Ended() > 0 {
		t.Error("a transfer ended")
	}
	down.Close()
	up.Close()
}

func TestSteady(t *testing.T) {
	seen := make(chan int, 1000)
	s := StartSteady(500, func(n int) error {
		seen <- n
		return errors.New("no")
	})
	for i := range 20 {
		if n := <-seen; n < 0 || n > i+20 {
			t.Errorf("visit %d has number %d", i, n)
		}
	}
	for _, o := range s.Stop() {
		if o.Err == nil || o.Ended < o.Began {
			t.Errorf("outcome %+v", o)
		}
	}
}
