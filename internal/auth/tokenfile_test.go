package auth

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/internal/hostname"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const someHash = "sha256:0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"

const wholeFile = `# who may do what
tokens:
  - id: 1a2b3c4d # the laptop's
    name: laptop
    hash: ` + someHash + `
    created: 2026-11-20T08:00:00Z
    expires: 2027-11-20T09:00:00+01:00
    offer:
      hosts: [app.example.com, "*.Dev.example.com"]
      ports: [2222, 8000-8100, "80,81"]
      names: [db, "team-*"]
    visit: [cache]
    forward: ['db.internal:5432', "10.0.0.0/8:22"]
    divert: [devices, dev-*]
    read: true
  - id: 12345678
    hash: ` + someHash + `
    admin: true
`

var cmpEntries = cmp.Options{
	cmpopts.EquateComparable(hostname.Pattern{}), cmpopts.EquateEmpty(), cmp.AllowUnexported(TokenEntry{}),
}

func TestParseTokens(t *testing.T) {
	got, err := parseTokens("tokens.yaml", []byte(wholeFile))
	if err != nil {
		t.Fatal(err)
	}
	want := []TokenEntry{
		{
			ID: "1a2b3c4d", Name: "laptop", hash: NewSecret(someHash),
			Created: time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC), Expires: time.Date(2027, 11, 20, 8, 0, 0, 0, time.UTC),
			Grant: Grant{
				Hosts: patterns(t, "app.example.com", "*.dev.example.com"), Ports: mustPorts(t, "80,81,2222,8000-8100"),
				Names: []string{"db", "team-*"}, Visit: []string{"cache"},
				Forward: []string{"db.internal:5432", "10.0.0.0/8:22"}, Divert: []string{"devices", "dev-*"}, Read: true,
			},
		},
		{ID: "12345678", hash: NewSecret(someHash), Grant: Grant{Administer: true}},
	}
	if diff := cmp.Diff(want, got, cmpEntries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestParseTokensOfNone(t *testing.T) {
	for _, content := range []string{"", "\n", "# nothing\n", "---\n", "tokens:\n", "tokens: []\n", "tokens: null\n", "{}\n"} {
		if got, err := parseTokens("f", []byte(content)); err != nil || len(got) != 0 {
			t.Errorf("%q: got %v, %v; want no token and no error", content, got, err)
		}
	}
}

func TestParseTokensNamesFileAndLine(t *testing.T) {
	entry := "tokens:\n- id: 1a2b3c4d\n  hash: " + someHash + "\n"
	tests := []struct {
		name, content, want string
	}{
		{"unknown key", "tokens: []\nuser: x\n", "f.yaml:2: field user not found"},
		{"unknown key in an entry", entry + "  host: [a]\n", "f.yaml:4: field host not found"},
		{"unknown key in an offer", entry + "  offer:\n    port: [1]\n", "f.yaml:5: field port not found"},
		{"the same key twice", entry + "  read: true\n  read: true\n", `f.yaml:5: mapping key "read" already defined at line 4`},
		{"no YAML", "tokens: [\n", "f.yaml:1: did not find expected node content"},
		{"a tab", "tokens:\n\t- id: 1\n", "f.yaml:2: found character that cannot start any token"},
		{"two documents", "tokens: []\n---\ntokens: []\n", "f.yaml: more than one YAML document"},
		{"a list at the top", "- id: 1a2b3c4d\n", "f.yaml:1: a value of type !!seq does not belong here"},
		{"a token at the top", canary + "\n", "f.yaml:1: a value of type !!str does not belong here"},
		{"a list for a text", "tokens:\n- id: [1a2b3c4d]\n", "f.yaml:2: want a single value"},
		{"a text for a list", entry + "  visit: " + canary + "\n", "f.yaml:4: a value of type !!str does not belong here"},
		{"a text for a bool", entry + "  read: " + canary + "\n", "f.yaml:4: a value of type !!str does not belong here"},
		{"no id", "tokens:\n\n- hash: " + someHash + "\n", "f.yaml:3: id is missing"},
		{"no hash", "tokens:\n- id: 1a2b3c4d\n", "f.yaml:2: hash is missing"},
		{"an empty entry", "tokens:\n- {}\n", "f.yaml:2: id is missing\nf.yaml:2: hash is missing"},
		{"a token as id", "tokens:\n- id: " + canary + "\n  hash: " + someHash + "\n", "f.yaml:2: id: want 8 lower-case hexadecimal digits"},
		{"a token as hash", "tokens:\n- id: 1a2b3c4d\n  hash: " + canary + "\n", "f.yaml:3: hash: want sha256: and 64 hexadecimal digits"},
		{"a short hash", "tokens:\n- id: 1a2b3c4d\n  hash: sha256:00\n", "f.yaml:3: hash: want sha256: and 64 hexadecimal digits"},
		{"the same id twice", entry + strings.TrimPrefix(entry, "tokens:\n"), "f.yaml:4: id 1a2b3c4d is on line 2 already"},
		{"a name with controls", entry + `  name: "a\e[1m"` + "\n", `f.yaml:4: name "a\x1b[1m": longer than 255 bytes, or not printable`},
		{"no time", entry + "  expires: tomorrow\n", `f.yaml:4: expires "tomorrow": want a time such as 2027-01-31T12:00:00Z`},
		{"a day is no time", entry + "  created: 2027-01-31\n", `f.yaml:4: created "2027-01-31": want a time such as 2027-01-31T12:00:00Z`},
		{"the first of all times", entry + "  expires: 0001-01-01T00:00:00Z\n", `f.yaml:4: expires "0001-01-01T00:00:00Z": want a time such as 2027-01-31T12:00:00Z`},
		{"a bad host", entry + "  offer:\n    hosts:\n    - a\n    - 'a:1'\n", `f.yaml:7: host "a:1": a pattern takes no port`},
		{"an empty host", entry + "  offer: {hosts: ['']}\n", `f.yaml:4: host is empty`},
		{"a bad port", entry + "  offer: {ports: [0]}\n", `f.yaml:4: ports "0": "0" is not a port from 1 to 65535`},
		{"an empty port", entry + "  offer: {ports: ['']}\n", `f.yaml:4: port is empty`},
		{"a bad name", entry + "  offer: {names: ['[']}\n", `f.yaml:4: name "[": not a name, nor a pattern with '*', '?' and '[a-z]'`},
		{"a bad visit", entry + "  visit: ['']\n", `f.yaml:4: name "": not a name, nor a pattern with '*', '?' and '[a-z]'`},
		{"a bad divert", entry + "  divert: ['[']\n", `f.yaml:4: name "[": not a name, nor a pattern with '*', '?' and '[a-z]'`},
		{"a bad forward", entry + "  forward: [a]\n", `f.yaml:4: forward "a": want HOST:PORT, CIDR:PORT or HOST:*`},
		{
			"all faults at once",
			entry + "  expires: x\n  offer: {ports: [0]}\n",
			"f.yaml:4: expires \"x\": want a time such as 2027-01-31T12:00:00Z\nf.yaml:5: ports \"0\": \"0\" is not a port from 1 to 65535",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTokens("f.yaml", []byte(tt.content))
			if got != nil || err == nil {
				t.Fatalf("got %v, %v; want only an error", got, err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), canary[:8]) {
				t.Errorf("the error shows a token that went astray: %v", err)
			}
		})
	}
}

func TestReadTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	if _, err := ReadTokens(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: got error %v, want one that names it", err)
	}
	write(t, path, wholeFile)
	if got, err := ReadTokens(path); err != nil || len(got) != 2 {
		t.Errorf("got %d tokens, %v; want 2", len(got), err)
	}
	// Security C7: an entry holds a hash, which is a secret; no way of printing the entry shows it.
	entries, _ := ReadTokens(path)
	if s := fmt.Sprintf("%v %+v %#v", entries, entries, entries); strings.Contains(s, "0123456789") {
		t.Errorf("the hash shows: %s", s)
	}
}

func TestAppendTokenMakesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	var want []TokenEntry
	for i, grant := range []Grant{
		Everything(),
		{},
		{
			Hosts: patterns(t, "app.example.com", "*.xn--mnchen-3ya.de", "::1"), Ports: mustPorts(t, "80,8000-8100"), Names: []string{"[a-z]*", "no"},
			Visit: []string{"1e3", "true"}, Forward: []string{"[2001:db8::/32]:*", "~:1"}, Divert: []string{"*"}, Read: true,
		},
	} {
		_, entry, err := NewToken(TokenEntry{Name: fmt.Sprint("token ", i), Grant: grant})
		if err != nil {
			// "~" is no host
			grant.Forward = grant.Forward[:1]
			_, entry, err = NewToken(TokenEntry{Name: fmt.Sprint("token ", i), Grant: grant})
		}
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			entry.Expires = time.Date(2030, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
		}
		if err := AppendToken(path, entry); err != nil {
			t.Fatal(err)
		}
		want = append(want, entry)
	}
	got, err := ReadTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpEntries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if b, _ := os.ReadFile(path); !strings.HasPrefix(string(b), "# Tokens of a Culvert server.") {
		t.Errorf("the file does not say what it is:\n%s", b)
	}
}

func TestEditsKeepTheRestOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := os.WriteFile(path, []byte(wholeFile), 0o644); err != nil {
		t.Fatal(err)
	}
	_, entry, err := NewToken(TokenEntry{Name: "new", Created: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), Grant: Grant{Ports: mustPorts(t, "22")}})
	if err != nil {
		t.Fatal(err)
	}
	entry.ID = "0badcafe" // no number, which YAML would quote
	if err := AppendToken(path, entry); err != nil {
		t.Fatal(err)
	}
	want := wholeFile + "  - id: " + entry.ID + "\n    name: new\n    hash: " + entry.hash.Reveal() +
		"\n    created: 2026-12-01T00:00:00Z\n    offer:\n      ports: [\"22\"]\n"
	b, _ := os.ReadFile(path)
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("file after AppendToken (-want +got):\n%s", diff)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	for _, which := range []string{"new", "12345678"} {
		if err := RevokeToken(path, which); err != nil {
			t.Fatal(err)
		}
	}
	want = wholeFile[:strings.Index(wholeFile, "  - id: 12345678")]
	b, _ = os.ReadFile(path)
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("file after RevokeToken (-want +got):\n%s", diff)
	}
	if err := RevokeToken(path, "laptop"); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadTokens(path); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v; want an empty file", got, err)
	}
	if err := AppendToken(path, entry); err != nil {
		t.Errorf("append to the emptied file: %v", err)
	}
}

func TestEditsThatAreRefused(t *testing.T) {
	_, good, err := NewToken(TokenEntry{Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	sameName := strings.ReplaceAll(wholeFile, "id: 12345678", "id: 12345678\n    name: laptop")
	tests := []struct {
		name, content string
		edit          func(path string) error
		want          string
	}{
		{"a name that is taken", wholeFile, func(p string) error { return AppendToken(p, good) }, `add a token: the name "laptop" is that of token 1a2b3c4d`},
		{"an entry not made by NewToken", "", func(p string) error { return AppendToken(p, TokenEntry{ID: "00000000"}) }, "hash is missing"},
		{"an entry that is null", "tokens: [null]\n", func(p string) error { return AppendToken(p, good) }, "an entry of tokens is empty"},
		{"an id that is taken", wholeFile, func(p string) error {
			return AppendToken(p, TokenEntry{ID: "1a2b3c4d", hash: NewSecret(someHash)})
		}, "id 1a2b3c4d is on line 3 already"},
		{"an unknown id", wholeFile, func(p string) error { return RevokeToken(p, "ffffffff") }, `revoke a token: no token has the id or name "ffffffff"`},
		{"no id", wholeFile, func(p string) error { return RevokeToken(p, "") }, `no token has the id or name ""`},
		{"a name of several", sameName, func(p string) error { return RevokeToken(p, "laptop") }, "say which id of 1a2b3c4d, 12345678"},
		{"a file that is not in order", "tokens: [{}]\n", func(p string) error { return AppendToken(p, good) }, ":1: id is missing"},
		{"an alias for all tokens", "x: &x []\ntokens: *x\n", func(p string) error { return AppendToken(p, good) }, "field x not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tokens.yaml")
			write(t, path, tt.content)
			if err := tt.edit(path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %s", err, tt.want)
			}
			if b, _ := os.ReadFile(path); string(b) != tt.content {
				t.Errorf("the file has changed:\n%s", b)
			}
			if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestRevokeTokenOfNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	if err := RevokeToken(path, "laptop"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got error %v, want no such file", err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAnEditWhileAnotherRunsIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	write(t, path, wholeFile)
	err := replace(path, func() ([]byte, error) {
		if err := RevokeToken(path, "laptop"); err == nil || !strings.Contains(err.Error(), "another command is changing") {
			t.Errorf("got error %v, want that another command is changing the file", err)
		}
		return []byte(wholeFile), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEditsFollowALink(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "real.yaml"), filepath.Join(dir, "link.yaml")
	write(t, path, wholeFile)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := RevokeToken(link, "laptop"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v; want it to be a link still", info.Mode(), err)
	}
	if got, err := ReadTokens(path); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v; want one token left", got, err)
	}
}

// A file that is read can be edited, and then says the same and one token more.
func FuzzTokenFile(f *testing.F) {
	for _, s := range []string{
		wholeFile, "", "tokens:\n", "tokens: []", "{tokens: [{id: 00000000, hash: '" + someHash + "'}]}", "tokens: [{}]", "a: &a [*a]", "- x", "\xff", "---\n---\n",
		"tokens: &t\n- &e {id: 00000000, hash: '" + someHash + "', offer: {ports: [1]}}\n",
	} {
		f.Add([]byte(s))
	}
	entry := TokenEntry{ID: "fedcba98", hash: NewSecret(someHash), Grant: Everything()}
	f.Fuzz(func(t *testing.T, content []byte) {
		entries, err := parseTokens("f", content)
		if err != nil {
			return
		}
		longer, err := appending(entry).apply("f", content)
		if err != nil {
			return // an id that is taken, an alias, a null
		}
		got, err := parseTokens("f", longer)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append(entries, entry), got, cmpEntries); diff != "" {
			t.Fatalf("entries after an append (-want +got):\n%s", diff)
		}
		shorter, err := revoking(entry.ID).apply("f", longer)
		if err != nil {
			t.Fatal(err)
		}
		if got, err = parseTokens("f", shorter); err != nil || !cmp.Equal(entries, got, cmpEntries) {
			t.Fatalf("entries after a revocation: %v, %v; want %v", got, err, entries)
		}
	})
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
