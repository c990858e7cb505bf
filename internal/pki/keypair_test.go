package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// pairFiles is a certificate of an operator's own, for a name, in two files.
type pairFiles struct{ cert, key string }

// replace writes another certificate into the files, in the way that certbot does: one after the other.
func (p pairFiles) replace(t *testing.T, san string) *x509.Certificate {
	t.Helper()
	dir := t.TempDir()
	a := openAuthority(t, Config{Dir: dir, SANs: []string{san}})
	copyFile(t, filepath.Join(dir, serverCertFile), p.cert)
	copyFile(t, filepath.Join(dir, serverKeyFile), p.key)
	return a.leaf.Load().Leaf
}

func newPairFiles(t *testing.T) pairFiles {
	t.Helper()
	dir := t.TempDir()
	return pairFiles{filepath.Join(dir, "own.crt"), filepath.Join(dir, "own.key")}
}

func served(t *testing.T, p *KeyPair) *x509.Certificate {
	t.Helper()
	cert, err := p.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf
}

func TestKeyPairIsReadAgainWhenItsFilesChange(t *testing.T) {
	files := newPairFiles(t)
	first := files.replace(t, "one.example")
	p, err := OpenKeyPair(files.cert, files.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !served(t, p).Equal(first) {
		t.Fatal("another certificate than the file's")
	}
	second := files.replace(t, "two.example")
	if !served(t, p).Equal(second) {
		t.Error("the old certificate after a change")
	}
}

func TestKeyPairIsReadAgainThroughALinkThatMoves(t *testing.T) { // as Kubernetes replaces a mounted secret
	dir := t.TempDir()
	var leaves []*x509.Certificate
	for _, name := range []string{"v1", "v2"} {
		a := openAuthority(t, Config{Dir: filepath.Join(dir, name), SANs: []string{"localhost"}})
		leaves = append(leaves, a.leaf.Load().Leaf)
	}
	link := filepath.Join(dir, "data")
	if err := os.Symlink("v1", link); err != nil {
		t.Fatal(err)
	}
	p, err := OpenKeyPair(filepath.Join(link, serverCertFile), filepath.Join(link, serverKeyFile), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("v2", link+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		t.Fatal(err)
	}
	if !served(t, p).Equal(leaves[1]) {
		t.Error("the old certificate after the link moved")
	}
}

func TestKeyPairKeepsTheLastGoodOne(t *testing.T) {
	other := newPairFiles(t)
	other.replace(t, "other.example")
	for name, tt := range map[string]struct {
		change func(t *testing.T, files pairFiles)
		logs   int
	}{
		"certificate of another key": {func(t *testing.T, f pairFiles) { copyFile(t, other.cert, f.cert) }, 1},
		"half a certificate": {func(t *testing.T, f pairFiles) {
			data, err := os.ReadFile(f.cert)
			if err != nil {
				t.Fatal(err)
			}
			write(t, f.cert, string(data[:len(data)/2]))
		}, 1},
		"empty key":           {func(t *testing.T, f pairFiles) { write(t, f.key, "") }, 1},
		"certificate is gone": {func(t *testing.T, f pairFiles) { remove(filepath.Base(f.cert))(t, filepath.Dir(f.cert)) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			files := newPairFiles(t)
			first := files.replace(t, "one.example")
			p, err := OpenKeyPair(files.cert, files.key, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			tt.change(t, files)
			for range 3 {
				if !served(t, p).Equal(first) {
					t.Error("not the last good certificate")
				}
			}
			if got := strings.Count(log.String(), "last good one stays"); got != tt.logs {
				t.Errorf("logged %d times, want %d:\n%s", got, tt.logs, log.String())
			}
			second := files.replace(t, "two.example")
			if !served(t, p).Equal(second) {
				t.Error("not mended by a good pair")
			}
		})
	}
}

func TestKeyPairUnderHandshakesWhileItChanges(t *testing.T) {
	files := newPairFiles(t)
	files.replace(t, "127.0.0.1")
	p, err := OpenKeyPair(files.cert, files.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 4 {
		wg.Go(func() {
			for range 200 {
				cert, err := p.GetCertificate(nil)
				if err != nil || cert == nil || cert.Leaf == nil {
					t.Errorf("got %v, %v", cert, err)
				}
			}
		})
	}
	for range 5 {
		files.replace(t, "127.0.0.1")
	}
}

func TestOpenKeyPairRefuses(t *testing.T) {
	good, other := newPairFiles(t), newPairFiles(t)
	good.replace(t, "localhost")
	other.replace(t, "localhost")
	dir := t.TempDir()
	garbage, encrypted := filepath.Join(dir, "garbage"), filepath.Join(dir, "encrypted")
	write(t, garbage, "garbage")
	write(t, encrypted, string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})))
	for name, tt := range map[string]struct {
		cert, key string
		want      []string
	}{
		"mismatched":         {good.cert, other.key, []string{good.cert, other.key, "private key does not match public key"}},
		"swapped":            {good.key, good.cert, []string{good.key, "certificate"}},
		"no certificate":     {filepath.Join(dir, "none.crt"), good.key, []string{"certificate", "none.crt", "no such file"}},
		"no key":             {good.cert, filepath.Join(dir, "none.key"), []string{"key", "none.key", "no such file"}},
		"garbage as key":     {good.cert, garbage, []string{garbage, "key"}},
		"garbage as cert":    {garbage, good.key, []string{garbage, "certificate"}},
		"encrypted key":      {good.cert, encrypted, []string{encrypted, "encrypted"}},
		"folder as key":      {good.cert, dir, []string{dir, "is a directory"}},
		"no names of either": {"", "", []string{"certificate"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := OpenKeyPair(tt.cert, tt.key, nil)
			wantWords(t, err, tt.want...)
		})
	}
}

func TestOpenKeyPairWarns(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	c := newClock()
	c.Add(-2 * leafLife)
	openAuthority(t, Config{Dir: dir, SANs: []string{"localhost"}, Now: c.Now})
	key := filepath.Join(dir, serverKeyFile)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := OpenKeyPair(filepath.Join(dir, serverCertFile), key, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if served(t, p).NotAfter.After(time.Now()) {
		t.Error("the certificate has not expired")
	}
	for _, want := range []string{"has expired", "readable by others"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log does not say %q:\n%s", want, log.String())
		}
	}
}

func BenchmarkKeyPairGetCertificate(b *testing.B) {
	dir := b.TempDir()
	if _, err := OpenAuthority(Config{Dir: dir, SANs: []string{"localhost"}}); err != nil {
		b.Fatal(err)
	}
	p, err := OpenKeyPair(filepath.Join(dir, serverCertFile), filepath.Join(dir, serverKeyFile), nil)
	if err != nil {
		b.Fatal(err)
	}
	var cert *tls.Certificate
	b.ReportAllocs()
	for b.Loop() {
		cert, _ = p.GetCertificate(nil)
	}
	_ = cert
}
