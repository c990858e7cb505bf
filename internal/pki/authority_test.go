package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAuthorityWritesItsFilesWithTightModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	dir := filepath.Join(t.TempDir(), "state", "culvert")
	openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}})
	want := map[string]fs.FileMode{
		".": 0o700, caCertFile: 0o644, caKeyFile: 0o600, serverCertFile: 0o644, serverKeyFile: 0o600,
	}
	got := map[string]fs.FileMode{}
	for name := range want {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got[name] = info.Mode().Perm()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 {
		t.Errorf("got %v, want the four files and no remains of writing them", entries)
	}
}

func TestAuthorityMakesECDSACertificates(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"localhost"}})
	for _, cert := range []*x509.Certificate{a.CA(), a.leaf.Load().Leaf} {
		key, ok := cert.PublicKey.(*ecdsa.PublicKey)
		if !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s has a %T, want ECDSA on P-256", cert.Subject, cert.PublicKey)
		}
	}
	if leaf := a.leaf.Load().Leaf; leaf.IsCA || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("server certificate: CA %v, usage %v: want one for servers only", leaf.IsCA, leaf.ExtKeyUsage)
	}
}

func TestAuthorityServesTLSForEachName(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"Tunnel.Example.com.", "*.dev.example.com", "127.0.0.1", "[::1]", "::ffff:10.0.0.1"}})
	addr := serveAuthority(t, a)
	pool := x509.NewCertPool()
	pool.AddCert(a.CA())
	for name, ok := range map[string]bool{
		"tunnel.example.com": true, "x.dev.example.com": true, "127.0.0.1": true, "::1": true, "10.0.0.1": true,
		"example.com": false, "10.0.0.2": false, "localhost": false,
	} {
		t.Run(name, func(t *testing.T) {
			err := connect(t.Context(), addr, name, testToken, pool)
			if ok && err != nil {
				t.Error(err)
			}
			if host := (x509.HostnameError{}); !ok && !errors.As(err, &host) {
				t.Errorf("got %v, want a refusal of the name", err)
			}
		})
	}
}

// reopened tells what a second opening kept.
type reopened struct{ CA, Leaf bool }

func TestAuthorityReopened(t *testing.T) {
	first := []string{"b.example.com", "10.0.0.1"}
	tests := []struct {
		name   string
		sans   []string
		after  time.Duration
		change func(t *testing.T, dir string)
		want   reopened
	}{
		{name: "unchanged", sans: first, want: reopened{CA: true, Leaf: true}},
		{name: "same names in another spelling and order", sans: []string{"10.0.0.1", "B.example.com.", "10.0.0.1"}, want: reopened{CA: true, Leaf: true}},
		{name: "a name more", sans: append(first, "c.example.com"), want: reopened{CA: true}},
		{name: "a name less", sans: first[:1], want: reopened{CA: true}},
		{name: "31 days left", sans: first, after: leafLife - 31*day, want: reopened{CA: true, Leaf: true}},
		{name: "29 days left", sans: first, after: leafLife - 29*day, want: reopened{CA: true}},
		{name: "clock set back", sans: first, after: -2 * day, want: reopened{}},
		{name: "certificate removed", sans: first, change: remove(serverCertFile), want: reopened{CA: true}},
		{name: "key removed", sans: first, change: remove(serverKeyFile), want: reopened{CA: true}},
		{name: "crash between the writes of a renewal", sans: first, change: func(t *testing.T, dir string) {
			other := t.TempDir()
			openAuthority(t, Config{Dir: other, SANs: first})
			copyFile(t, filepath.Join(other, serverKeyFile), filepath.Join(dir, serverKeyFile))
		}, want: reopened{CA: true}},
		{name: "certificate of another CA", sans: first, change: func(t *testing.T, dir string) {
			other := t.TempDir()
			openAuthority(t, Config{Dir: other, SANs: first})
			copyFile(t, filepath.Join(other, serverKeyFile), filepath.Join(dir, serverKeyFile))
			copyFile(t, filepath.Join(other, serverCertFile), filepath.Join(dir, serverCertFile))
		}, want: reopened{CA: true}},
		{name: "certificate is garbage", sans: first, change: func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, serverCertFile), "garbage")
		}, want: reopened{CA: true}},
		{name: "both made anew on purpose", sans: first, change: func(t *testing.T, dir string) {
			remove(caCertFile)(t, dir)
			remove(caKeyFile)(t, dir)
		}, want: reopened{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, c := t.TempDir(), newClock()
			before := openAuthority(t, Config{Dir: dir, SANs: first, Now: c.Now})
			if tt.change != nil {
				tt.change(t, dir)
			}
			c.Add(tt.after)
			after := openAuthority(t, Config{Dir: dir, SANs: tt.sans, Now: c.Now})
			got := reopened{
				CA:   after.CA().Equal(before.CA()),
				Leaf: after.leaf.Load().Leaf.Equal(before.leaf.Load().Leaf),
			}
			if got != tt.want {
				t.Errorf("kept %+v, want %+v", got, tt.want)
			}
			checkAuthority(t, after, tt.sans, c.Now())
			onDisk, err := tls.LoadX509KeyPair(filepath.Join(dir, serverCertFile), filepath.Join(dir, serverKeyFile))
			if err != nil || !onDisk.Leaf.Equal(after.leaf.Load().Leaf) {
				t.Errorf("the files hold another certificate than is served: %v", err)
			}
		})
	}
}

// checkAuthority fails unless the server certificate is what clients accept now and next month.
func checkAuthority(t *testing.T, a *Authority, sans []string, now time.Time) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.CA())
	cert, err := a.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{now, now.Add(leafRenew - day)} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at}); err != nil {
			t.Errorf("at %s: %v", at, err)
		}
	}
	want, err := canonicalSANs(sans)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, sansOf(cert.Leaf)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestAuthorityKeepsItsCAKeyWhenItsCertificateIsRenewed(t *testing.T) {
	for name, tt := range map[string]struct {
		after  time.Duration
		change func(t *testing.T, dir string)
	}{
		"nearly expired":                      {after: caLife - caRenew + day},
		"expired, the clock was wrong before": {after: 2 * caLife},
		"crash between key and certificate":   {change: remove(caCertFile)},
	} {
		t.Run(name, func(t *testing.T) {
			dir, c := t.TempDir(), newClock()
			before := openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}, Now: c.Now})
			if tt.change != nil {
				tt.change(t, dir)
			}
			c.Add(tt.after)
			after := openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}, Now: c.Now})
			if !before.CA().PublicKey.(*ecdsa.PublicKey).Equal(after.CA().PublicKey) {
				t.Error("the CA has another key")
			}
			if after.CA().Equal(before.CA()) {
				t.Error("the CA's certificate is the old one")
			}
			checkAuthority(t, after, []string{"localhost"}, c.Now())
		})
	}
}

func TestRenewedCAIsTrustedByHoldersOfTheOldOne(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	before := openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}, Now: c.Now})
	c.Add(caLife - caRenew + day)
	after := openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}, Now: c.Now})
	pool := x509.NewCertPool()
	pool.AddCert(before.CA())
	if _, err := after.leaf.Load().Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: c.Now()}); err != nil {
		t.Error(err)
	}
}

func TestAuthorityRenewsWhileItRuns(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	a := openAuthority(t, Config{Dir: dir, SANs: []string{"127.0.0.1"}, Now: c.Now})
	old, err := a.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Add(leafLife - leafRenew - time.Hour)
	if same, _ := a.GetCertificate(nil); same != old {
		t.Fatal("renewed with more than 30 days left")
	}
	c.Add(2 * time.Hour)

	// Many handshakes at once make one certificate, and each gets a good one.
	var wg sync.WaitGroup
	got := make([]*tls.Certificate, 50)
	for i := range got {
		wg.Go(func() { got[i], _ = a.GetCertificate(nil) })
	}
	wg.Wait()
	fresh, err := a.GetCertificate(nil)
	if err != nil || fresh == old {
		t.Fatalf("not renewed: %v", err)
	}
	for _, cert := range got {
		if cert != old && cert != fresh {
			t.Error("more than one certificate was made")
		}
	}
	checkAuthority(t, a, []string{"127.0.0.1"}, c.Now())
	onDisk, err := tls.LoadX509KeyPair(filepath.Join(dir, serverCertFile), filepath.Join(dir, serverKeyFile))
	if err != nil || !onDisk.Leaf.Equal(fresh.Leaf) {
		t.Errorf("the renewed certificate is not in the folder: %v", err)
	}
}

func TestAuthorityServesARenewedCertificateThatItCannotSave(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	var log bytes.Buffer
	a := openAuthority(t, Config{
		Dir: dir, SANs: []string{"127.0.0.1"}, Now: c.Now,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	c.Add(leafLife - day)
	checkAuthority(t, a, []string{"127.0.0.1"}, c.Now())
	if !strings.Contains(log.String(), "not saved") {
		t.Errorf("log does not say so:\n%s", log.String())
	}
}

func TestAuthorityDoesNotRenewWhatCannotOutliveItsCA(t *testing.T) {
	c := newClock()
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}, Now: c.Now})
	c.Add(caLife - day)
	first, _ := a.GetCertificate(nil) // the last renewal, until the CA's end
	if second, _ := a.GetCertificate(nil); second != first {
		t.Error("every handshake makes a certificate")
	}
}

func TestAuthorityRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		sans   []string
		change func(t *testing.T, dir string)
		want   []string
	}{
		"a CA without its key":        {change: remove(caKeyFile), want: []string{"ca.key", "restore"}},
		"a CA with another's key":     {change: foreign(caKeyFile), want: []string{"ca.crt and ca.key", "does not match"}},
		"an empty CA key":             {change: truncate(caKeyFile), want: []string{"ca.key is empty"}},
		"an empty CA certificate":     {change: truncate(caCertFile), want: []string{"ca.crt is empty"}},
		"a lone CA key of garbage":    {change: loneGarbage, want: []string{"ca.key"}},
		"a server's pair as CA":       {change: leafAsCA, want: []string{"not the certificate of a CA"}},
		"a CA certificate of garbage": {change: garbage(caCertFile), want: []string{"ca.crt and ca.key"}},
		"a port among the names":      {sans: []string{"example.com:8123"}, want: []string{`"example.com:8123"`, "without scheme and port"}},
		"a URL among the names":       {sans: []string{"https://example.com"}, want: []string{"without scheme and port"}},
		"an empty name":               {sans: []string{""}, want: []string{"empty"}},
		"a zone":                      {sans: []string{"fe80::1%eth0"}, want: []string{"zone"}},
		"a name with a space":         {sans: []string{"a b"}, want: []string{"host name"}},
		"a name in another script":    {sans: []string{"bücher.example"}, want: []string{"xn--"}},
		"an endless name":             {sans: []string{strings.Repeat("a.", 200) + "b"}, want: []string{"longer than 253"}},
		"an endless label":            {sans: []string{strings.Repeat("a", 64)}, want: []string{"1 to 63"}},
		"two dots":                    {sans: []string{"a..b"}, want: []string{"1 to 63"}},
		"a hyphen in front":           {sans: []string{"-a.example"}, want: []string{"'-'"}},
		"a wildcard in the middle":    {sans: []string{"a.*.example"}, want: []string{"host name"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}})
			if tt.change != nil {
				tt.change(t, dir)
			}
			_, err := OpenAuthority(Config{Dir: dir, SANs: tt.sans})
			wantWords(t, err, tt.want...)
		})
	}
}

func TestAuthorityRefusesAFolderThatIsAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	write(t, name, "")
	_, err := OpenAuthority(Config{Dir: name})
	wantWords(t, err, "auto-tls state", name)
}

func TestAuthorityWarnsOfAnExposedKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	dir := t.TempDir()
	openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}})
	if err := os.Chmod(filepath.Join(dir, caKeyFile), 0o640); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if !strings.Contains(log.String(), "readable by others") {
		t.Errorf("no warning in the log:\n%s", log.String())
	}
}

func TestDefaultSANs(t *testing.T) {
	sans := DefaultSANs()
	for _, want := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(sans, want) {
			t.Errorf("%q lacks %s", sans, want)
		}
	}
	if host, err := os.Hostname(); err == nil {
		if san, err := canonicalSAN(host); err == nil && !slices.Contains(sans, san) {
			t.Errorf("%q lacks this machine's name %s", sans, san)
		}
	}
	canonical, err := canonicalSANs(sans)
	if err != nil || len(canonical) != len(sans) {
		t.Errorf("%q is not canonical: %v", sans, err)
	}
	for _, s := range sans {
		if addr, err := netip.ParseAddr(s); err == nil && addr.IsLinkLocalUnicast() {
			t.Errorf("%s is link-local", s)
		}
	}
	// They are what an authority without names takes.
	a := openAuthority(t, Config{})
	if diff := cmp.Diff(canonical, sansOf(a.leaf.Load().Leaf)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func BenchmarkGetCertificate(b *testing.B) {
	a, err := OpenAuthority(Config{Dir: b.TempDir(), SANs: []string{"localhost"}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = a.GetCertificate(nil)
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func truncate(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { write(t, filepath.Join(dir, name), "") }
}

func garbage(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { write(t, filepath.Join(dir, name), "garbage") }
}

func foreign(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		other := t.TempDir()
		openAuthority(t, Config{Dir: other, SANs: []string{"localhost"}})
		copyFile(t, filepath.Join(other, name), filepath.Join(dir, name))
	}
}

func loneGarbage(t *testing.T, dir string) {
	remove(caCertFile)(t, dir)
	garbage(caKeyFile)(t, dir)
}

func leafAsCA(t *testing.T, dir string) {
	copyFile(t, filepath.Join(dir, serverCertFile), filepath.Join(dir, caCertFile))
	copyFile(t, filepath.Join(dir, serverKeyFile), filepath.Join(dir, caKeyFile))
}

func write(t *testing.T, name, data string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(data))
}
