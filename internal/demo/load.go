package demo

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// visitor visits the demo's services as anyone would: through the server.
type visitor struct {
	site, lines string
	client      *http.Client
}

func newVisitor(d *demo) *visitor {
	return &visitor{
		site:   "http://" + d.server.HTTPAddr().String() + "/",
		lines:  net.JoinHostPort("127.0.0.1", strconv.Itoa(int(d.tcpPort))),
		client: &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second},
	}
}

func (v *visitor) close() { v.client.CloseIdleConnections() }

// page gets the page and says which copy answered, with how many bytes.
func (v *visitor) page(ctx context.Context) (by string, bytes int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.site, nil)
	if err != nil {
		return "", 0, err
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return "", 0, err
	}
	return resp.Header.Get(servedBy), int(n), nil
}

// line makes a TCP connection, says a line, and reads the answer and the end.
func (v *visitor) line(ctx context.Context) (by string, bytes int, err error) {
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", v.lines)
	if err != nil {
		return "", 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", 0, err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", 0, err
	}
	by, _, _ = strings.Cut(answer, " ")
	return by, len(answer), nil
}

// load is the demo's traffic and what became of it.
type load struct {
	demo *demo

	mu       sync.Mutex
	killed   time.Time // when the client was killed; zero before
	web, tcp tally
	begun    time.Time
}

// tally counts the visits of one kind.
type tally struct {
	Visits int            `json:"visits"`
	Failed int            `json:"failed"`
	Cut    int            `json:"cut_by_the_kill"` // their bytes were with the client when it was killed
	Bytes  int            `json:"bytes"`
	By     map[string]int `json:"by_client"`
	Faults []string       `json:"faults,omitempty"`

	latencies []time.Duration // since the last reading
}

// cutWindow is how long after the kill a visit that fails may have begun in the killed client. It may fail much later:
// the server holds its connection for a client that comes back.
const cutWindow = time.Second

// pace is the pause of each visitor between two visits: the demo shows a tunnel, it does not warm the room.
const pace = 4 * time.Millisecond

func newLoad(d *demo) *load {
	return &load{demo: d, begun: time.Now(), web: tally{By: map[string]int{}}, tcp: tally{By: map[string]int{}}}
}

// run visits until the context ends and every visit is over.
func (l *load) run(ctx context.Context) {
	v := newVisitor(l.demo)
	defer v.close()
	var visitors sync.WaitGroup
	for range 4 {
		visitors.Go(func() { l.repeat(ctx, &l.web, v.page, false) })
	}
	for range 2 {
		visitors.Go(func() { l.repeat(ctx, &l.tcp, v.line, true) })
	}
	visitors.Wait()
}

func (l *load) repeat(ctx context.Context, t *tally, visit func(context.Context) (string, int, error), mayBeCut bool) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		begun := time.Now()
		// A visit that is under way when the demo ends is let to its end.
		by, n, err := visit(context.WithoutCancel(ctx))
		if err != nil && errors.Is(ctx.Err(), context.Canceled) {
			return // Ctrl-C on a terminal reaches the clients too, so there may be nobody left to answer
		}
		l.note(t, by, n, time.Since(begun), err, mayBeCut)
	}
}

func (l *load) note(t *tally, by string, n int, took time.Duration, err error, mayBeCut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Visits++
	switch {
	case err == nil:
		t.By[by]++
		t.Bytes += n
		t.latencies = append(t.latencies, took)
	case mayBeCut && !l.killed.IsZero() && time.Since(l.killed)-took < cutWindow:
		t.Cut++
	default:
		t.Failed++
		if len(t.Faults) < 5 {
			t.Faults = append(t.Faults, err.Error())
		}
	}
}

// cut notes that a client has just been killed.
func (l *load) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed = time.Now()
}

// reading is a tally's figures since the reading before.
type reading struct {
	visits, failed, cut, bytes int
	by                         map[string]int
	p50, p99                   time.Duration
}

func (t *tally) read() reading {
	slices.Sort(t.latencies)
	r := reading{visits: t.Visits, failed: t.Failed, cut: t.Cut, bytes: t.Bytes, by: map[string]int{}}
	for name, n := range t.By {
		r.by[name] = n
	}
	if n := len(t.latencies); n > 0 {
		r.p50, r.p99 = t.latencies[n/2], t.latencies[n*99/100]
	}
	t.latencies = t.latencies[:0]
	return r
}

func (l *load) read() (web, tcp reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.web.read(), l.tcp.read()
}
