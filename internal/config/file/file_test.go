package file

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// shop has a key of every kind.
type shop struct {
	Name  string `key:"name" required:"true" help:"h"`
	Kind  string `key:"kind" selects:"true" default:"food" values:"food books" help:"h"`
	Hours        // embedded: keys of the shop
	Items []item `key:"items" help:"h"`
	Sale  *sale  `key:"sale" help:"h"`
	Till  till   `key:"till" words:"closed" help:"h"`
}

type Hours struct {
	Open  time.Duration `key:"open" default:"8h" min:"1h" max:"23h" help:"h"`
	Pages int           `key:"pages" only:"books" default:"3" min:"0" help:"h"`
}

type item struct {
	Code   code           `key:"code" required:"true" unit:"CODE" help:"h"`
	From   []netip.Prefix `key:"from" help:"h"`
	Tags   []string       `key:"tags" values:"new used rare odd" help:"h"`
	Port   uint16         `key:"port" help:"h"`
	Price  float64        `key:"price" above:"0" max:"100" help:"h"`
	Fresh  bool           `key:"fresh" help:"h"`
	Secret string         `key:"secret" raw:"true" help:"h"`
}

type sale struct {
	Percent int `key:"percent" default:"10" help:"h"`
}

// till is Shorthand.
type till struct {
	Shut  bool `key:"shut" help:"h"`
	Coins int  `key:"coins" default:"7" help:"h"`
}

func (t *till) SetWord(string) { t.Shut = true }

func (t *till) Word() string {
	if t.Shut && t.Coins == 7 {
		return "closed"
	}
	return ""
}

// code is a Scalar.
type code struct{ n int }

func (c code) String() string { return "#" + strconv.Itoa(c.n) }

func parseCode(s string) (code, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(s, "#"))
	if err != nil || !strings.HasPrefix(s, "#") || n < 0 {
		return code{}, fmt.Errorf("%.40q is not a code; write as in #12", s)
	}
	return code{n}, nil
}

var options = Options{Scalars: []Scalar{ScalarOf(parseCode)}} // never written to

func decode(text string) (shop, *Doc, error) {
	doc, err := Parse("f", []byte(text))
	if err != nil {
		return shop{}, nil, err
	}
	var s shop
	err = doc.Decode(&s, options)
	return s, doc, err
}

var plain = cmp.Options{cmp.AllowUnexported(code{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

func TestDecode(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       shop
	}{
		{"defaults", "name: x", shop{Name: "x", Kind: "food", Hours: Hours{Open: 8 * time.Hour}, Till: till{Coins: 7}}},
		{"a default of another kind", "{name: x, kind: books}", shop{Name: "x", Kind: "books", Hours: Hours{8 * time.Hour, 3}, Till: till{Coins: 7}}},
		{
			"everything", `
name: "two words"
kind: books
open: 90m
pages: 0
till: closed
sale:
items:
  - {code: "#1", from: 10.1.2.3, tags: new, port: 80, price: 1e1, fresh: true, secret: "a\r\n\0"}
  - code: "#2"
    from: [10.0.0.0/8, "::ffff:1.2.3.0/120", "2001:db8::1/32"]
    tags: [new, used]
    secret: !!binary AP8=
`, shop{
				Name: "two words", Kind: "books", Hours: Hours{Open: 90 * time.Minute}, Till: till{true, 7}, Sale: &sale{10},
				Items: []item{
					{code{1}, []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32")}, []string{"new"}, 80, 10, true, "a\r\n\x00"},
					{
						Code: code{2}, Tags: []string{"new", "used"}, Secret: "\x00\xff",
						From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("1.2.3.0/24"), netip.MustParsePrefix("2001:db8::/32")},
					},
				},
			},
		},
		{
			"anchors, aliases and merges", `
x-anchors:
  dear: &dear {price: 99, tags: [rare]}
  odd: &odd {tags: [odd], port: 1}
name: &n x
items:
  - &one {code: "#1", <<: *dear}
  - {<<: [*odd, *dear], code: "#2", port: 2}
  - *one
till: {shut: false}
`, shop{
				Name: "x", Kind: "food", Hours: Hours{Open: 8 * time.Hour}, Till: till{Coins: 7},
				Items: []item{
					{Code: code{1}, Price: 99, Tags: []string{"rare"}},
					{Code: code{2}, Price: 99, Tags: []string{"odd"}, Port: 2},
					{Code: code{1}, Price: 99, Tags: []string{"rare"}},
				},
			},
		},
		{"JSON", `{"name": "x", "items": [{"code": "#3"}]}`, shop{Name: "x", Kind: "food", Hours: Hours{Open: 8 * time.Hour}, Till: till{Coins: 7}, Items: []item{{Code: code{3}}}}},
		{"a byte order mark and Windows' line ends", "\xef\xbb\xbfname: x\r\nkind: food\r\n", shop{Name: "x", Kind: "food", Hours: Hours{Open: 8 * time.Hour}, Till: till{Coins: 7}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, _, err := decode(test.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, plain); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			again(t, got)
		})
	}
}

// again writes a shop and reads it.
func again(t *testing.T, s shop) {
	t.Helper()
	text, err := yaml.Marshal(Encode(s, options))
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := decode(string(text))
	if err != nil {
		t.Fatalf("what was written cannot be read: %v\n%s", err, text)
	}
	if diff := cmp.Diff(s, got, plain); diff != "" {
		t.Errorf("what was written is another: want -, got +\n%s\n%s", diff, text)
	}
}

func TestFaults(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"below the least", "{name: x, open: 1m}", "f:1:17: open: 1m is out of range; give 1h to 23h"},
		{"above the most", "{name: x, open: 1d}", "f:1:17: open: 24h is out of range; give 1h to 23h"},
		{"a negative time", "{name: x, open: -1h}", `f:1:17: open: "-1h" is not a duration; write it as in 500ms, 30s, 5m, 12h or 90d`},
		{"what is for others", "{name: x, pages: 1}", "f:1:11: pages: is for books only, and this is food; leave it out"},
		{"what is for whom nobody knows", "{name: x, kind: tools, pages: 1}", `f:1:17: kind: "tools" is unknown; use food or books`},
		{"many values", "{name: x, items: [{code: '#1', tags: rar}]}", `f:1:38: items[0].tags: "rar" is unknown; did you mean rare?`},
		{"many values and none near", "{name: x, items: [{code: '#1', tags: [plain]}]}", `f:1:39: items[0].tags[0]: "plain" is unknown; use new, used, rare or odd`},
		{"a type of its own", "{name: x, items: [{code: 1}]}", `f:1:26: items[0].code: "1" is not a code; write as in #12`},
		{"a missing value of many", "{name: x, items: [{}]}", "f:1:19: items[0]: code is missing; add code: CODE"},
		{"a port", "{name: x, items: [{code: '#1', port: 0}]}", `f:1:38: items[0].port: "0" is not a port; give a number from 1 to 65535`},
		{"a number that is none", "{name: x, items: [{code: '#1', price: .nan}]}", `f:1:39: items[0].price: ".nan" is not a number; write digits alone`},
		{"a huge number", "{name: x, sale: {percent: 99999999999999}}", `f:1:27: sale.percent: "99999999999999" is not a whole number; write digits alone`},
		{"controls", `name: "a\nb"`, "f:1:7: name: holds a line break or another control character"},
		{"another word", "{name: x, till: clsed}", `f:1:17: till: "clsed" is unknown; use closed, or the keys shut, coins below it`},
		{"a list for keys", "{name: x, till: [closed]}", "f:1:17: till: is a list where keys and values belong; write KEY: VALUE lines below it, of the keys shut, coins"},
		{"keys for a list of values", "{name: x, items: [{code: '#1', tags: {a: b}}]}", "f:1:38: items[0].tags: is keys and values where a list belongs; begin each of its items with '- '"},
		{"a list in a list", "{name: x, items: [{code: '#1', tags: [[new]]}]}", "f:1:39: items[0].tags[0]: is a list where one value belongs; write one value"},
		{"a key that is a list", "{name: x, ? [a] : b}", "f:1:13: a key is a list; write KEY: VALUE"},
		{"a merge of a list of values", "{name: x, <<: [a]}", "f:1:16: what is merged is no mapping; write <<: *NAME of a mapping that has &NAME"},
		{"an alias of itself", "name: x\nitems: &a\n  - *a\n", "f:2:8: items[0]: is a list where keys and values belong; write KEY: VALUE lines below it, of the keys code, from, tags, port, price, fresh, secret"},
		{"an unknown alias", "name: *canary", "f:1:7: an alias (*) names no anchor (&); quote a value that begins with '*', as in \"*.example.com\""},
		{"an unknown alias further down", "name: x\nitems:\n  - *canary\n", "f:3:5: an alias (*) names no anchor (&); quote a value that begins with '*', as in \"*.example.com\""},
		{"a port alone in braces", "{name: x, sale: {percent: :80}}", "f:1:27: a value is missing here; quote a value that begins with ':' or '[', as in \":80\" and \"[::1]:80\", or with one of ,]}%@`"},
		{"an address of IPv6 in braces", "name: x\nsale:\n  percent: 1\nx: {percent: [::1]:80}", "f:4:14: a value is missing here; quote a value that begins with ':' or '[', as in \":80\" and \"[::1]:80\", or with one of ,]}%@`"},
		{"an empty key", "{name: x, '': 1}", `f:1:11: "" is no key here; there are name, kind, open, pages, items, sale, till`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := decode(test.text)
			if err == nil || err.Error() != test.want {
				t.Errorf("\n got %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestManyFaultsAreCut(t *testing.T) {
	_, _, err := decode("name: x\nitems:\n" + strings.Repeat("  - {}\n", 100))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != maxFaults+1 {
		t.Fatalf("%d faults: %v", len(faults), err)
	}
	if got, want := faults[maxFaults].Error(), "f:53:5: 50 more faults from here on; mend those above first"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAt(t *testing.T) {
	_, doc, err := decode("name: x\nitems:\n  - code: '#1'\n    tags: [new,\n      used]\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path  string
		want  Position
		there bool
	}{
		{"name", Position{1, 7}, true},
		{"items[0].code", Position{3, 11}, true},
		{"items[0].tags[1]", Position{5, 7}, true},
		{"items[0].price", Position{3, 5}, false},
		{"items[3].price", Position{3, 3}, false},
		{"till.coins", Position{1, 1}, false},
	} {
		if at, there := doc.At(test.path); at != test.want || there != test.there {
			t.Errorf("At(%s) = %v, %v, want %v, %v", test.path, at, there, test.want, test.there)
		}
	}
}

func TestHabitsAreUnderstood(t *testing.T) {
	doc, err := Parse("f", []byte("{name: x, goods: [], Gadgets: 1}"))
	if err != nil {
		t.Fatal(err)
	}
	var s shop
	err = doc.Decode(&s, Options{Scalars: options.Scalars, Habits: map[string][]string{"goods": {"shelves", "items"}, "gadgets": {"shelves"}}})
	want := "f:1:11: \"goods\" is no key here; did you mean items?\n" +
		"f:1:22: \"Gadgets\" is no key here; there are name, kind, open, pages, items, sale, till"
	if err == nil || err.Error() != want {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
}

func TestOthersGetTheirKeys(t *testing.T) {
	doc, err := Parse("f", []byte("name: x\nport: &p 80\nhosts: [a, *p]\nlabels: {a: 1, b: c}\nnone: []\nempty:\nporf: 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Value{}
	var s shop
	err = doc.Decode(&s, Options{Scalars: options.Scalars, Others: []string{"port", "hosts", "labels", "none", "empty"}, Take: func(key string, v Value) {
		got[key] = v
	}})
	want := map[string]Value{
		"port":   {[]string{"80"}, One, Fault{File: "f", Position: Position{2, 7}, Path: "port"}},
		"hosts":  {[]string{"a", "80"}, Several, Fault{File: "f", Position: Position{3, 8}, Path: "hosts"}},
		"labels": {[]string{"a=1", "b=c"}, Pairs, Fault{File: "f", Position: Position{4, 9}, Path: "labels"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	wantFaults := "f:5:7: none: is an empty list; put something in, or leave the key out\n" +
		"f:6:7: empty: has no value; write one, or leave the key out\n" +
		"f:7:1: \"porf\" is no key here; did you mean port?"
	if err == nil || err.Error() != wantFaults {
		t.Errorf("\n got %v\nwant %s", err, wantFaults)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(path, []byte("name: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, err := Read(path)
	if err != nil || doc.Name != path {
		t.Fatal(err)
	}
	var faults Faults
	if _, err := Read(path + ".none"); !errors.As(err, &faults) || !strings.Contains(err.Error(), "there is no such file") {
		t.Errorf("a missing file: %v", err)
	}
}

// The aliases of a small file may come to any number of values. What it costs to find that out is bounded.
func TestABombIsRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString("name: x\nx-a: &a {code: '#1', tags: [new, used]}\nx-b: &b [")
	b.WriteString(strings.Repeat("*a, ", 1000) + "]\nitems: [" + strings.Repeat("*a, ", 200_000) + "]\n")
	s, _, err := decode(b.String())
	if err == nil || !strings.Contains(err.Error(), "comes to more than") || len(s.Items) > 0 {
		t.Errorf("error %v, %d items", err, len(s.Items))
	}
}

func TestSchemaKnowsWhatTheReaderKnows(t *testing.T) {
	resolved, err := Schema(reflect.TypeFor[shop](), options).Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	for text, right := range map[string]bool{
		"name: x": true, "{name: x, open: 0}": true, "{name: x, open: 1h30m}": true, "{name: x, till: closed}": true,
		"{name: x, till: {shut: true}}": true, "{name: x, items: [{code: '#1', tags: new}]}": true,
		"{name: x, items: [{code: '#1', tags: [new, used]}]}": true, "{name: x, sale: }": true, "{name: x, x-y: {z: 1}}": true,
		"{}": false, "{name: x, y: 1}": false, "{name: x, open: 1}": false, "{name: x, open: soon}": false, "{name: x, till: open}": false,
		"{name: x, items: [{code: '#1', tags: other}]}": false, "{name: x, items: []}": false, "{name: x, items: [{code: '#1', price: 0}]}": false,
		"{name: x, items: [{code: '#1', price: 100.5}]}": false, "{name: x, items: [{code: '#1', port: 65536}]}": false, "{name: [x]}": false,
		"{name: x, kind: tools}": false, "{name: x, items: [{code: '#1', fresh: 1}]}": false,
	} {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := resolved.Validate(v); (err == nil) != right {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"name: x", "{name: x, kind: books, pages: 1}", "name: x\nitems: &a\n  - *a\n", "x-a: &a {<<: *a}\nname: x\nsale: *a\n",
		"{name: x, open: 90m, till: closed, items: [{code: '#1', from: 10.1.2.3, tags: new, port: 80, price: 1e1, fresh: true, secret: \"a\\n\\0\"}]}",
		"name: x\nitems:\n  - {code: '#2', from: [10.0.0.0/8], tags: [new, used], secret: !!binary AP8=}\nsale:\n", "frontend x\n", "stream {\n}\n",
		"name: x\n---\n", "- a\n", "\tname: x", "name: 'x", "name: !x y\n", "{? [a] : b}", "name: |\n  x\n", "name: 0x1F\nsale: {percent: 0o7}",
		"\xef\xbb\xbfname: x", "name: \"\\u2028\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, _, err := decode(string(text))
		if err == nil {
			again(t, s)
			return
		}
		var faults Faults
		if !errors.As(err, &faults) {
			t.Fatalf("not Faults: %v", err)
		}
		lines := 2 + strings.Count(string(text), "\n") + strings.Count(string(text), "\r") + strings.Count(string(text), "\u2028") +
			strings.Count(string(text), "\u2029") + strings.Count(string(text), "\u0085")
		for _, fault := range faults {
			if fault.Line < 1 || fault.Column < 1 || fault.Line > lines || fault.Fault == "" {
				t.Errorf("a fault without a place: %s", fault.Error())
			}
			if strings.ContainsAny(fault.Error(), "\n\x1b") {
				t.Errorf("a fault with control characters: %q", fault.Error())
			}
		}
	})
}
