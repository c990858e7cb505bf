package auth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.yaml")
	write(t, broken, "tokens:\n- id: x\n")
	tests := []struct {
		name, want string
		cfg        Config
	}{
		{"no credential at all", ErrNoCredential.Error(), Config{}},
		{"an empty token and no file", ErrNoCredential.Error(), Config{Shared: NewSecret("")}},
		{"a missing file", "token file: open " + dir + "/none: no such file", Config{File: dir + "/none"}},
		{"a missing file beside a token", "token file: open " + dir + "/none: no such file", Config{Shared: NewSecret("t"), File: dir + "/none"}},
		{"a folder", "is a directory", Config{File: dir}},
		{"a file that is not in order", "token file: " + broken + ":2: id: want 8 lower-case hexadecimal digits", Config{File: broken}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := New(tt.cfg)
			if v != nil || err == nil {
				t.Fatalf("got %v, %v; want only an error", v, err)
			}
			// os.Stat says "stat", os.Open "open": which comes first is no one's business.
			if got := strings.Replace(err.Error(), "stat ", "open ", 1); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}

func TestVerifySharedToken(t *testing.T) {
	v := mustVerifier(t, Config{Shared: NewSecret(canary)})
	b, err := v.Verify(canary)
	if err != nil || b.ID() != "" || b.Valid() != nil {
		t.Fatalf("got %v, %v; want the shared token's bearer", b, err)
	}
	for _, a := range everyAction(t) {
		if err := b.Permit(a); err != nil {
			t.Errorf("the shared token: %v", err)
		}
	}
	for _, wrong := range []string{
		"", " ", canary + " ", " " + canary, canary + "\n", canary[1:], canary[:len(canary)-1], strings.ToUpper(canary), canary + "\x00", "***",
		"Bearer " + canary,
	} {
		if b, err := v.Verify(wrong); b != nil || !errors.Is(err, ErrUnknownToken) {
			t.Errorf("Verify(%q) = %v, %v; want %v", wrong, b, err, ErrUnknownToken)
		}
	}
}

// A comparison of a part of the digest only would let some of these in.
func TestNoneOfManyTokensIsTheSharedOne(t *testing.T) {
	v := mustVerifier(t, Config{Shared: NewSecret(canary)})
	for i := range 10_000 {
		if _, err := v.Verify(fmt.Sprintf("%s%d", canary, i)); err == nil {
			t.Fatalf("the token and %d is taken for the token", i)
		}
	}
}

func TestVerifyEmptyTokenOfAnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	write(t, path, "tokens: []\n")
	v := mustVerifier(t, Config{File: path})
	for _, token := range []string{"", "x", "cvt_00000000_" + strings.Repeat("A", 43)} {
		if b, err := v.Verify(token); b != nil || !errors.Is(err, ErrUnknownToken) {
			t.Errorf("Verify(%q) = %v, %v; want %v", token, b, err, ErrUnknownToken)
		}
	}
	if _, ok := v.Digest(""); ok {
		t.Error("there is a digest of a shared token that there is not")
	}
}

func TestVerifyTokensOfAFile(t *testing.T) {
	f := newTokenFileFor(t)
	laptop := f.add("laptop", TokenEntry{Grant: Grant{Ports: mustPorts(t, "2222")}})
	phone := f.add("phone", TokenEntry{Grant: Grant{Read: true}})
	v := mustVerifier(t, Config{Shared: NewSecret(canary), File: f.path})

	l, err := v.Verify(laptop)
	if err != nil || l.ID() != TokenID(laptop) {
		t.Fatalf("got %v, %v; want the bearer of %s", l, err, TokenID(laptop))
	}
	p, err := v.Verify(phone)
	if err != nil {
		t.Fatal(err)
	}
	var denied *Denied
	if err := l.Permit(OfferPort(2222)); err != nil {
		t.Error(err)
	}
	if err := l.Permit(Read()); !errors.As(err, &denied) {
		t.Errorf("laptop may read: %v", err)
	}
	if err := p.Permit(OfferPort(2222)); !errors.As(err, &denied) {
		t.Errorf("phone may offer: %v", err)
	}
	if err := p.Permit(Read()); err != nil {
		t.Error(err)
	}
	if b, err := v.Verify(canary); err != nil || b.ID() != "" {
		t.Errorf("the shared token beside the file: %v, %v", b, err)
	}

	id := TokenID(laptop)
	for name, wrong := range map[string]string{
		"another's secret":       tokenPrefix + id + phone[len(tokenPrefix)+idLength:],
		"another's id":           tokenPrefix + TokenID(phone) + laptop[len(tokenPrefix)+idLength:],
		"an unknown id":          tokenPrefix + "00000000" + laptop[len(tokenPrefix)+idLength:],
		"only the id":            id,
		"the name":               "laptop",
		"the hash":               v.tokenHash(id),
		"the hash without sha":   strings.TrimPrefix(v.tokenHash(id), hashPrefix),
		"the token with a space": laptop + " ",
	} {
		if b, err := v.Verify(wrong); b != nil || !errors.Is(err, ErrUnknownToken) {
			t.Errorf("%s: got %v, %v; want %v", name, b, err, ErrUnknownToken)
		}
	}
}

func (v *Verifier) tokenHash(id string) string {
	sum, _ := v.Digest(id)
	return hashPrefix + fmt.Sprintf("%x", sum)
}

func TestExpiry(t *testing.T) {
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	now := start
	f := newTokenFileFor(t)
	token := f.add("a", TokenEntry{Expires: start.Add(time.Hour), Grant: Everything()})
	v := mustVerifier(t, Config{File: f.path, Now: func() time.Time { return now }})
	b, err := v.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		after time.Duration
		want  error
	}{
		{0, nil},
		{time.Hour, nil},
		{time.Hour + leeway, nil}, // a clock may be off by that much
		{time.Hour + leeway + time.Second, ErrExpired},
		{1000 * time.Hour, ErrExpired},
		{0, nil},
	} {
		now = start.Add(tt.after)
		if err := b.Permit(Read()); !errors.Is(err, tt.want) {
			t.Errorf("Permit after %v: got %v, want %v", tt.after, err, tt.want)
		}
		if err := b.Valid(); !errors.Is(err, tt.want) {
			t.Errorf("Valid after %v: got %v, want %v", tt.after, err, tt.want)
		}
		if _, err := v.Verify(token); !errors.Is(err, tt.want) {
			t.Errorf("Verify after %v: got %v, want %v", tt.after, err, tt.want)
		}
		if _, err := v.Verify(token[:len(token)-4] + "AAAA"); !errors.Is(err, ErrUnknownToken) {
			t.Errorf("Verify of a wrong secret after %v: got %v, want %v", tt.after, err, ErrUnknownToken)
		}
		if _, ok := v.Digest(TokenID(token)); !ok {
			t.Errorf("no digest after %v, want one, so that the bearer can be told", tt.after)
		}
	}
}

func TestDigest(t *testing.T) {
	f := newTokenFileFor(t)
	token := f.add("a", TokenEntry{})
	ofTheForm, entry, err := NewToken(TokenEntry{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, shared, id, want string // want: the token whose digest it is, "" for none
	}{
		{"the shared token", canary, "", canary},
		{"a token of the file", canary, TokenID(token), token},
		{"an unknown id", canary, "00000000", ""},
		{"no id that could be", canary, "x", ""},
		{"no shared token", "", "", ""},
		{"a shared token with an id, by it", ofTheForm.Reveal(), entry.ID, ofTheForm.Reveal()},
		{"a shared token with an id, without it", ofTheForm.Reveal(), "", ofTheForm.Reveal()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := mustVerifier(t, Config{Shared: NewSecret(tt.shared), File: f.path})
			got, ok := v.Digest(tt.id)
			want := sha256.Sum256([]byte(tt.want))
			if tt.want == "" {
				want = [sha256.Size]byte{}
			}
			if got != want || ok != (tt.want != "") {
				t.Errorf("Digest(%q) = %x, %v; want %x", tt.id, got, ok, want)
			}
		})
	}
}

func TestASharedTokenWithAnIDIsTheSharedToken(t *testing.T) {
	token, _, err := NewToken(TokenEntry{})
	if err != nil {
		t.Fatal(err)
	}
	v := mustVerifier(t, Config{Shared: token})
	if b, err := v.Verify(token.Reveal()); err != nil || b.ID() != "" || b.Permit(Administer()) != nil {
		t.Errorf("got %v, %v; want the shared token's bearer", b, err)
	}
}

func TestAnyoneMayDoEverythingAndAZeroBearerNothing(t *testing.T) {
	for _, a := range everyAction(t) {
		if err := Anyone().Permit(a); err != nil {
			t.Errorf("anyone: %v", err)
		}
		if err := new(Bearer).Permit(a); !errors.Is(err, ErrUnknownToken) {
			t.Errorf("a zero Bearer may %s: %v", a, err)
		}
	}
	if Anyone().Valid() != nil || Anyone().ID() != "" || !errors.Is(new(Bearer).Valid(), ErrUnknownToken) {
		t.Error("Anyone is not valid, or a zero Bearer is")
	}
}

// Security C7: nothing that package auth hands out shows a token or its hash, whatever it is printed with.
func TestVerifierAndBearerDoNotShowTokens(t *testing.T) {
	v := mustVerifier(t, Config{Shared: NewSecret(canary)})
	b, err := v.Verify(canary)
	if err != nil {
		t.Fatal(err)
	}
	_, wrong := v.Verify("wrong-" + canary)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb+verb+verb+verb, v, b, wrong, Config{Shared: NewSecret(canary)}); strings.Contains(s, "canary") {
			t.Errorf("%s shows the token: %s", verb, s)
		}
	}
}

// Security C5: how long a wrong token takes does not tell how much of it is right. Each pair is measured in turns; noise fails
// a round now and then, a leak fails them all.
func TestVerifyTakesTheSameTimeForAllWrongTokens(t *testing.T) {
	f := newTokenFileFor(t)
	token := f.add("a", TokenEntry{})
	v := mustVerifier(t, Config{Shared: NewSecret(canary), File: f.path})
	secret := len(tokenPrefix) + idLength + 1
	// The new byte is of the old one's kind: how long it takes to look at the form of a token may depend on the token that is
	// given, not on the one that is wanted.
	flip := func(s string, i int) string {
		for _, kind := range []string{"abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "-_"} {
			if at := strings.IndexByte(kind, s[i]); at >= 0 {
				return s[:i] + string(kind[(at+1)%len(kind)]) + s[i+1:]
			}
		}
		panic("not a token: " + s)
	}
	pairs := []struct{ name, a, b string }{
		{"first or last byte wrong", flip(token, secret), flip(token, len(token)-1)},
		{"first or last byte of the shared token wrong", flip(canary, 0), flip(canary, len(canary)-1)},
	}
	for _, p := range pairs {
		const rounds, limit = 5, 5.0
		var ts []float64
		for range rounds {
			ts = append(ts, welch(v, p.a, p.b))
			if math.Abs(ts[len(ts)-1]) < limit {
				break
			}
		}
		t.Logf("%s: Welch's t %.1f", p.name, ts)
		if math.Abs(ts[len(ts)-1]) >= limit {
			t.Errorf("%s: Welch's t %.1f in every round, want one below %v", p.name, ts, limit)
		}
	}
}

// welch is Welch's t of the times that two tokens take, the slowest tenth left out: those are the machine's.
func welch(v *Verifier, a, b string) float64 {
	const n = 20_000
	times := [2][]float64{}
	for range n {
		first := rand.IntN(2) // in turns, but in no rhythm
		for _, i := range []int{first, 1 - first} {
			token := [2]string{a, b}[i]
			start := time.Now()
			_, _ = v.Verify(token)
			times[i] = append(times[i], float64(time.Since(start)))
		}
	}
	var mean, variance [2]float64
	for i := range times {
		slices.Sort(times[i])
		kept := times[i][:n*9/10]
		for _, x := range kept {
			mean[i] += x / float64(len(kept))
		}
		for _, x := range kept {
			variance[i] += (x - mean[i]) * (x - mean[i]) / float64(len(kept)-1)
		}
		variance[i] /= float64(len(kept))
	}
	return (mean[0] - mean[1]) / math.Sqrt(variance[0]+variance[1])
}

func TestBearerPermitAllocatesNothing(t *testing.T) {
	f := newTokenFileFor(t)
	token := f.add("a", TokenEntry{Grant: Everything()})
	b, err := mustVerifier(t, Config{File: f.path}).Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	a := OfferHost(pattern(t, "app.example.com"))
	if n := testing.AllocsPerRun(100, func() { _ = b.Permit(a) }); n != 0 {
		t.Errorf("Permit makes %v allocations, want 0", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	v := mustVerifier(b, Config{Shared: NewSecret(canary)})
	b.ReportAllocs()
	for b.Loop() {
		_, _ = v.Verify(canary)
	}
}

func BenchmarkPermit(b *testing.B) {
	v := mustVerifier(b, Config{Shared: NewSecret(canary)})
	bearer, err := v.Verify(canary)
	if err != nil {
		b.Fatal(err)
	}
	a := OfferHost(pattern(b, "app.example.com"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_ = bearer.Permit(a)
		}
	})
}

func FuzzVerify(f *testing.F) {
	file := newTokenFileFor(f)
	token := file.add("a", TokenEntry{})
	v := mustVerifier(f, Config{Shared: NewSecret(canary), File: file.path})
	f.Add(token)
	f.Add(canary)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := v.Verify(s); (err == nil) != (s == token || s == canary) || (b == nil) != (err != nil) {
			t.Fatalf("Verify(%q) = %v, %v", s, b, err)
		}
	})
}

func mustVerifier(t testing.TB, cfg Config) *Verifier {
	t.Helper()
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// tokenFileFor is a token file for a test.
type tokenFileFor struct {
	testing.TB
	path string
}

func newTokenFileFor(t testing.TB) tokenFileFor {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	write(t, path, "tokens: []\n")
	return tokenFileFor{t, path}
}

// add makes a token of the entry's grant and expiry.
func (f tokenFileFor) add(name string, entry TokenEntry) string {
	f.Helper()
	entry.Name = name
	secret, entry, err := NewToken(entry)
	if err != nil {
		f.Fatal(err)
	}
	if err := AppendToken(f.path, entry); err != nil {
		f.Fatal(err)
	}
	return secret.Reveal()
}

func (f tokenFileFor) revoke(idOrName string) {
	f.Helper()
	if err := RevokeToken(f.path, idOrName); err != nil {
		f.Fatal(err)
	}
}

func (f tokenFileFor) content() string {
	f.Helper()
	b, err := os.ReadFile(f.path)
	if err != nil {
		f.Fatal(err)
	}
	return string(b)
}
