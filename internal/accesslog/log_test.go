package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var equal = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func whole() Record {
	return Record{
		ID: "4fd2a6e1b0c39875", Begun: time.Date(2026, 11, 20, 15, 4, 5, 123456000, time.UTC), Entrypoint: "devices", Protocol: "tcp",
		Route: "debug-box", Upstream: "debug", Member: "laptop/1",
		Source: netip.MustParseAddrPort("203.0.113.7:4123"), Destination: netip.MustParseAddrPort("[2001:db8::1]:23"), Via: netip.MustParseAddrPort("10.0.0.5:4000"),
		Host: "api.example.com", Hops: []string{"edge-1"},
		Candidates: []Candidate{{"app1", "ejected for 8s more: refused"}, {"laptop/1", "up"}},
		Tries:      []Try{{"app1", "refused", 1500 * time.Microsecond, ""}, {"app2", "timeout", time.Second, "canary"}, {"canary", "ejected", 0, "canary"}},
		Queued:     20 * time.Millisecond, Connect: 1200 * time.Microsecond, Duration: 12300 * time.Millisecond, In: 123, Out: 456,
		ClosedBy: Visitor, Why: "closed",
	}
}

func TestLines(t *testing.T) {
	bare := Record{ID: "1", Begun: time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)), Entrypoint: "2222", Protocol: "tcp", ClosedBy: Server, Why: "no member"}
	for _, tt := range []struct {
		name       string
		record     Record
		text, json string
	}{
		{
			"all there is", whole(),
			`2026-11-20T15:04:05.123456Z conn=4fd2a6e1b0c39875 entrypoint=devices protocol=tcp source=203.0.113.7:4123 destination=[2001:db8::1]:23 ` +
				`via=10.0.0.5:4000 host=api.example.com route=debug-box upstream=debug member=laptop/1 hop=edge-1 tried="app1: refused after 1.5ms" tried="app2: timeout after 1s, by route canary" tried="canary: ejected" ` +
				`candidate="app1: ejected for 8s more: refused" candidate="laptop/1: up" queued=0.020000 connect=0.001200 duration=12.300000 in=123 out=456 ` +
				`closed_by=visitor why=closed`,
			`{"id":"4fd2a6e1b0c39875","begun":"2026-11-20T15:04:05.123456Z","entrypoint":"devices","protocol":"tcp","source":"203.0.113.7:4123",` +
				`"destination":"[2001:db8::1]:23","via":"10.0.0.5:4000","host":"api.example.com","route":"debug-box","upstream":"debug","member":"laptop/1",` +
				`"hops":["edge-1"],"candidates":[{"member":"app1","state":"ejected for 8s more: refused"},{"member":"laptop/1","state":"up"}],` +
				`"tries":[{"member":"app1","reason":"refused","millis":1.5},{"member":"app2","reason":"timeout","route":"canary","millis":1000},{"member":"canary","reason":"ejected","route":"canary","millis":0}],"queuedMillis":20,"connectMillis":1.2,"open":false,"durationMillis":12300,` +
				`"bytesIn":123,"bytesOut":456,"closedBy":"visitor","why":"closed"}`,
		},
		{
			"next to nothing", bare,
			`2026-01-02T02:04:05.000000Z conn=1 entrypoint=2222 protocol=tcp queued=0.000000 connect=0.000000 duration=0.000000 in=0 out=0 closed_by=server why="no member"`,
			`{"id":"1","begun":"2026-01-02T03:04:05+01:00","entrypoint":"2222","protocol":"tcp","queuedMillis":0,"connectMillis":0,"open":false,` +
				`"durationMillis":0,"bytesIn":0,"bytesOut":0,"closedBy":"server","why":"no member"}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.text+"\n", string(appendText(nil, &tt.record))); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			line := appendJSON(nil, &tt.record)
			if diff := cmp.Diff(tt.json+"\n", string(line)); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			var back Record
			if err := json.Unmarshal(line, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.record, back, equal); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

// T32: whatever a visitor calls itself, its line is one line, and no value passes for another key.
func TestNothingBreaksALine(t *testing.T) {
	for _, evil := range []string{
		"a\nconn=forged", "a\r\nb", "x member=forged", `x" member="forged`, `back\`, "\x1b[2J", "\u202egnp", "\u2028", "\xff\xfe", "\x00", "a=b", strings.Repeat("é", 10_000),
	} {
		r := whole()
		r.Host, r.Why = evil, evil
		r.bound()
		text := string(appendText(nil, &r))
		if strings.Count(text, "\n") != 1 || strings.Count(text, " member=") > 1+strings.Count(text, `member="`) && strings.Contains(text, " member=forged ") {
			t.Errorf("%q makes the line %q", evil, text)
		}
		for _, c := range text[:len(text)-1] {
			if c < ' ' || c == 0x7f || c == '\u202e' || c == '\u2028' || c == '\ufffd' {
				t.Errorf("%q: %q is in the line %q", evil, c, text)
			}
		}
		if fields := splitLine(t, text); fields["member"] != "laptop/1" || fields["conn"] != r.ID {
			t.Errorf("%q makes other fields: %v", evil, fields)
		}
		if len(text) > 8*maxText {
			t.Errorf("%.20q… makes a line of %d bytes", evil, len(text))
		}
		line := string(appendJSON(nil, &r))
		if !json.Valid([]byte(line)) || strings.Count(line, "\n") != 1 {
			t.Errorf("%q makes the JSON %q", evil, line)
		}
	}
}

// splitLine reads a line as a log shipper does: keys, then a word or a quoted string.
func splitLine(t *testing.T, line string) map[string]string {
	t.Helper()
	fields := make(map[string]string)
	_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || strings.ContainsAny(key, " \"") {
			t.Fatalf("no key in %q", rest)
		}
		end := strings.IndexByte(after, ' ')
		if strings.HasPrefix(after, `"`) {
			end = 1
			for end < len(after) && after[end] != '"' {
				if after[end] == '\\' {
					end++
				}
				end++
			}
			end++
		}
		if end < 0 || end > len(after) {
			end = len(after)
		}
		if _, there := fields[key]; !there {
			fields[key] = after[:end]
		}
		rest = strings.TrimPrefix(after[end:], " ")
	}
	return fields
}

func FuzzText(f *testing.F) {
	f.Add("a\nb", "x\" member=\"y")
	f.Fuzz(func(t *testing.T, host, why string) {
		r := whole()
		r.Host, r.Why = host, why
		r.bound()
		line := string(appendText(nil, &r))
		if strings.Count(line, "\n") != 1 || splitLine(t, line)["member"] != "laptop/1" {
			t.Errorf("%q, %q make %q", host, why, line)
		}
	})
}

func ids(records []Record) string {
	var list []string
	for _, r := range records {
		list = append(list, r.ID)
	}
	return strings.Join(list, " ")
}

func open(t testing.TB, cfg Config) *Log {
	t.Helper()
	l := New(cfg)
	if err := l.Open(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFind(t *testing.T) {
	l := open(t, Config{Records: 4})
	for i, source := range []string{"192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.2]:1", "[fe80::1%eth0]:9", "192.0.2.1:2"} {
		l.Opened(Record{ID: fmt.Sprintf("%02d", i), Source: netip.MustParseAddrPort(source), Entrypoint: []string{"a", "b"}[i%2]})
	}
	for _, tt := range []struct {
		name  string
		query Query
		want  string
	}{
		{"all, the oldest forgotten", Query{}, "04 03 02 01"},
		{"the newest", Query{Limit: 2}, "04 03"},
		{"by the beginning of the id", Query{ID: "0"}, "04 03 02 01"},
		{"by id", Query{ID: "03"}, "03"},
		{"an id that is not there", Query{ID: "00"}, ""},
		{"by address", Query{Source: netip.MustParsePrefix("192.0.2.1/32")}, "04"},
		{"by network, mapped addresses too", Query{Source: netip.MustParsePrefix("192.0.2.0/24")}, "04 02"},
		{"by IPv6 network", Query{Source: netip.MustParsePrefix("2001:db8::/32")}, "01"},
		{"an address with a zone", Query{Source: netip.MustParsePrefix("fe80::/10")}, "03"},
		{"by entrypoint", Query{Entrypoint: "b"}, "03 01"},
		{"by two", Query{Entrypoint: "b", Source: netip.MustParsePrefix("192.0.2.0/24")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ids(l.Find(tt.query)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestClosedReplaces(t *testing.T) {
	l := open(t, Config{Records: 2})
	a := l.Opened(Record{ID: "a", Begun: time.Now()})
	before := l.Find(Query{ID: "a"})
	a.Closed(func(r *Record) { r.In, r.ClosedBy, r.Why = 7, Member, "reset" })
	after := l.Find(Query{})
	if len(before) != 1 || !before[0].Open() || before[0].In != 0 {
		t.Errorf("before: %+v", before)
	}
	if len(after) != 1 || after[0].Open() || after[0].In != 7 || after[0].Why != "reset" || after[0].Duration <= 0 {
		t.Errorf("after: %+v", after)
	}
}

// A connection that outlives its place in the ring is found again when it has closed.
func TestClosedComesBackIntoTheRing(t *testing.T) {
	l := open(t, Config{Records: 2})
	a := l.Opened(Record{ID: "a", Begun: time.Now()})
	l.Opened(Record{ID: "b"})
	l.Opened(Record{ID: "c"})
	if got := ids(l.Find(Query{})); got != "c b" {
		t.Fatalf("got %s, want c b", got)
	}
	a.Closed(func(*Record) {})
	if got := ids(l.Find(Query{})); got != "a c" {
		t.Errorf("got %s, want a c", got)
	}
	if r := l.Find(Query{ID: "a"}); len(r) != 1 || r[0].ClosedBy != Server {
		t.Errorf("got %+v", r)
	}
}

func TestNilLog(t *testing.T) {
	var l *Log
	l.Opened(Record{ID: "a"}).Closed(func(*Record) { t.Error("asked for a record that nobody keeps") })
	l.Reopen()
	if err := l.Run(t.Context()); err != nil || l.Find(Query{}) != nil {
		t.Error("a nil log does something")
	}
	if e := open(t, Config{}).Opened(Record{}); e != nil {
		t.Error("a log of nothing keeps entries")
	}
}

func TestManyAtOnce(t *testing.T) {
	l := open(t, Config{Records: 64, Path: "-", Out: io.Discard})
	ctx, cancel := context.WithCancel(t.Context())
	var run, wait sync.WaitGroup
	run.Go(func() { _ = l.Run(ctx) })
	for g := range 8 {
		wait.Go(func() {
			for i := range 500 {
				id := fmt.Sprintf("%d-%d", g, i)
				e := l.Opened(Record{ID: id, In: int64(g)})
				e.Closed(func(r *Record) { r.Out = int64(g) })
				for _, r := range l.Find(Query{ID: fmt.Sprintf("%d-", g), Limit: 4}) {
					if r.In != int64(g) || !r.Open() && r.Out != int64(g) {
						t.Errorf("a record of %d is mixed up: %+v", g, r)
					}
				}
			}
		})
	}
	wait.Wait()
	cancel()
	run.Wait()
	if got := len(l.Find(Query{})); got != 64 {
		t.Errorf("%d records are kept, want 64", got)
	}
}

// written runs a log until every entry that do makes is written.
func written(t *testing.T, cfg Config, do func(*Log)) *Log {
	t.Helper()
	l := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = l.Run(ctx) })
	do(l)
	cancel()
	run.Wait()
	return l
}

func TestFileIsAppendedAndPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	for range 2 {
		written(t, Config{Path: path}, func(l *Log) { l.Opened(whole()).Closed(func(*Record) {}) })
	}
	p, err := os.ReadFile(path)
	if err != nil || strings.Count(string(p), "conn=4fd2a6e1b0c39875") != 2 {
		t.Errorf("got %q, %v", p, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
}

func TestPathThatIsWrongIsTold(t *testing.T) {
	err := New(Config{Path: filepath.Join(t.TempDir(), "no", "such", "access.log")}).Open()
	if err == nil || !strings.Contains(err.Error(), "access log: open ") {
		t.Errorf("got %v", err)
	}
}

// As logrotate does it, with and without the signal after it.
func TestRotation(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*testing.T, *Log, string)
	}{
		{"a signal", func(t *testing.T, l *Log, path string) {
			rename(t, path, path+".1")
			l.writer.openAnew()
		}},
		{"renamed, noticed by itself", func(t *testing.T, l *Log, path string) {
			rename(t, path, path+".1")
			l.writer.looked = time.Time{} // a second has passed
		}},
		{"another file is put in its place", func(t *testing.T, l *Log, path string) {
			rename(t, path, path+".1")
			if err := os.WriteFile(path, nil, 0o640); err != nil {
				t.Fatal(err)
			}
			l.writer.looked = time.Time{}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "access.log")
			l := open(t, Config{Path: path})
			w := l.writer
			line := func(id string) {
				w.add(&Entry{record: Record{ID: id}})
				w.flush()
			}
			line("before")
			tt.do(t, l, path)
			line("after")
			l.Close()
			for file, id := range map[string]string{path + ".1": "before", path: "after"} {
				if p, err := os.ReadFile(file); err != nil || strings.Count(string(p), "\n") != 1 || !strings.Contains(string(p), "conn="+id+" ") {
					t.Errorf("%s has %q, %v; want %s", file, p, err, id)
				}
			}
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// The file is let go of at once, also while no connection ends.
func TestReopenWithoutALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	written(t, Config{Path: path}, func(l *Log) {
		rename(t, path, path+".1")
		l.Reopen()
		l.Reopen()
		deadline := time.After(10 * time.Second)
		for tick := time.NewTicker(time.Millisecond); ; {
			if _, err := os.Stat(path); err == nil {
				tick.Stop()
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatal("the file is not opened anew")
			}
		}
	})
}

// A folder that has gone away costs nothing: the old file takes the lines, and the log says so once.
func TestReopenThatFailsGoesOnWithTheOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	reg := prometheus.NewRegistry()
	l := open(t, Config{Path: filepath.Join(dir, "access.log"), Log: slog.New(slog.NewTextHandler(&complaints, nil)), Metrics: reg})
	rename(t, dir, dir+".old")
	w := l.writer
	for range 3 {
		w.openAnew()
		w.add(&Entry{record: Record{ID: "a"}})
		w.flush()
	}
	l.Close()
	if p, err := os.ReadFile(filepath.Join(dir+".old", "access.log")); err != nil || strings.Count(string(p), "\n") != 3 {
		t.Errorf("the old file has %q, %v", p, err)
	}
	if n := strings.Count(complaints.String(), "cannot be opened anew"); n != 1 {
		t.Errorf("%d complaints: %s", n, complaints.String())
	}
}

// broken takes a part of the first write, refuses the second and takes the rest.
type broken struct {
	writes int
	bytes.Buffer
}

func (b *broken) Write(p []byte) (int, error) {
	b.writes++
	switch b.writes {
	case 1:
		n, _ := b.Buffer.Write(p[:len(p)/2])
		return n, errors.New("no space left on device")
	case 2:
		return 0, errors.New("no space left on device")
	default:
		return b.Buffer.Write(p)
	}
}

func TestFullDiskLosesLinesAndBreaksNone(t *testing.T) {
	out, reg := new(broken), prometheus.NewRegistry()
	w := open(t, Config{Path: "-", Out: out, Metrics: reg}).writer
	for _, id := range []string{"torn", "lost", "kept", "too"} {
		w.add(&Entry{record: Record{ID: id}})
		w.flush()
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || !strings.Contains(lines[1], "conn=kept ") || !strings.Contains(lines[2], "conn=too ") {
		t.Errorf("written: %q", lines)
	}
	for _, want := range []string{
		`culvert_access_log_lines_total 2`, `culvert_access_log_dropped_total{reason="behind"} 0`, `culvert_access_log_dropped_total{reason="failed"} 2`,
	} {
		if got := scrape(reg); !strings.Contains(got, want+"\n") {
			t.Errorf("the metrics have no %s:\n%s", want, got)
		}
	}
}

func scrape(reg *prometheus.Registry) string {
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	return rec.Body.String()
}

// stalled takes nothing until it is freed.
type stalled struct {
	begun, free chan struct{}
	once        sync.Once
}

func (s *stalled) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.begun) })
	<-s.free
	return len(p), nil
}

func TestStalledDiskHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stalled{begun: make(chan struct{}), free: make(chan struct{})}
		reg := prometheus.NewRegistry()
		l := open(t, Config{Path: "-", Out: out, Metrics: reg})
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = l.Run(ctx) })
		end := func() { l.Opened(Record{ID: "a"}).Closed(func(*Record) {}) }
		end()
		<-out.begun
		begun := time.Now()
		for range maxWaiting + 100 {
			end() // would be a deadlock here if it waited
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("connections waited %s for the disk", took)
		}
		if got, want := scrape(reg), `culvert_access_log_dropped_total{reason="behind"} 100`; !strings.Contains(got, want+"\n") {
			t.Errorf("the metrics have no %s:\n%s", want, got)
		}
		cancel()
		run.Wait()
		if took := time.Since(begun); took != lastWords {
			t.Errorf("the end waited %s for the disk, want %s", took, lastWords)
		}
		close(out.free)
	})
}

// What a record costs while it is kept, with an id and a host of its own.
func TestRecordsAreSmall(t *testing.T) {
	const n, most = 20_000, 500
	l := open(t, Config{Records: n})
	entrypoint, member := strings.Clone("devices"), strings.Clone("app1")
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range n {
		e := l.Opened(Record{
			ID: fmt.Sprintf("%016x", i), Begun: time.Now(), Entrypoint: entrypoint, Protocol: "tls", Route: entrypoint, Upstream: entrypoint, Member: member,
			Source: netip.MustParseAddrPort("203.0.113.7:4123"), Destination: netip.MustParseAddrPort("192.0.2.1:23"), Host: fmt.Sprintf("h%08d.example.com", i),
		})
		e.Closed(func(r *Record) { r.ClosedBy, r.Why, r.In = Visitor, "closed", 1 })
	}
	each := (heap() - before) / n
	t.Logf("%d bytes a record", each)
	if each > most {
		t.Errorf("%d bytes a record, want at most %d", each, most)
	}
	runtime.KeepAlive(l)
}

func BenchmarkConnection(b *testing.B) {
	l := open(b, Config{Records: 8192})
	r := whole()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Opened(r).Closed(func(r *Record) { r.ClosedBy, r.Why = Visitor, "closed" })
		}
	})
}

func TestConnectionAllocatesTwoRecords(t *testing.T) {
	l := open(t, Config{Records: 8192})
	r := whole()
	if n := testing.AllocsPerRun(100, func() {
		l.Opened(r).Closed(func(r *Record) { r.ClosedBy, r.Why = Visitor, "closed" })
	}); n > 2 {
		t.Errorf("%v allocations a connection, want at most 2", n)
	}
}

func BenchmarkText(b *testing.B) {
	r := whole()
	p := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		p = appendText(p[:0], &r)
	}
}
