package pki

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// KeyPair is a certificate that the operator brings, from two PEM files that may be replaced at any time.
// It is safe for concurrent use.
type KeyPair struct {
	certFile, keyFile string
	log               *slog.Logger

	current atomic.Pointer[tls.Certificate]

	checking sync.Mutex // held by the one handshake that looks at the files
	seen     [2]os.FileInfo
}

// OpenKeyPair reads a certificate (leaf first, then its intermediates) and its key. A pair that cannot be read or
// does not belong together is an error that names the file. A nil log means no log.
func OpenKeyPair(certFile, keyFile string, log *slog.Logger) (*KeyPair, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &KeyPair{certFile: certFile, keyFile: keyFile, log: log}
	var err error
	if p.seen, err = p.stat(); err != nil {
		return nil, err
	}
	cert, err := p.load()
	if err != nil {
		return nil, err
	}
	p.current.Store(cert)
	if exposed(keyFile) {
		log.Warn("the key of the certificate is readable by others than its owner: chmod 600 it", "file", keyFile)
	}
	p.warnIfExpired(cert)
	return p, nil
}

// GetCertificate is for tls.Config: the pair as the files hold it now. A pair that has become unreadable or does not
// match, as in the moment between the writes of its two files, is logged once and the last good one stays.
func (p *KeyPair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	// Two stats cost a thousandth of a handshake. While one handshake looks, the others do not wait for the disk.
	if p.checking.TryLock() {
		p.refresh()
		p.checking.Unlock()
	}
	return p.current.Load(), nil
}

// refresh reads the files if they are others than those last seen, whether those were good or not.
func (p *KeyPair) refresh() {
	now, err := p.stat()
	if err != nil || (same(now[0], p.seen[0]) && same(now[1], p.seen[1])) {
		return // a file that is away for a moment is being replaced
	}
	p.seen = now // before the reading: what is written meanwhile is seen the next time
	cert, err := p.load()
	if err != nil {
		p.log.Error("changed certificate not taken, the last good one stays", "error", err)
		return
	}
	p.current.Store(cert)
	p.log.Info("certificate re-read", "file", p.certFile, "until", cert.Leaf.NotAfter)
	p.warnIfExpired(cert)
}

func (p *KeyPair) load() (*tls.Certificate, error) {
	certData, err := os.ReadFile(p.certFile)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	keyData, err := os.ReadFile(p.keyFile)
	if err != nil {
		return nil, fmt.Errorf("key of the certificate: %w", err)
	}
	cert, err := tls.X509KeyPair(certData, keyData)
	if err != nil && bytes.Contains(keyData, []byte("ENCRYPTED")) {
		err = errors.New("the key is encrypted and nobody can be asked for its passphrase")
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", p.certFile, p.keyFile, err)
	}
	return &cert, nil
}

func (p *KeyPair) stat() (infos [2]os.FileInfo, err error) {
	if infos[0], err = os.Stat(p.certFile); err != nil {
		return infos, fmt.Errorf("certificate: %w", err)
	}
	if infos[1], err = os.Stat(p.keyFile); err != nil {
		return infos, fmt.Errorf("key of the certificate: %w", err)
	}
	return infos, nil
}

func (p *KeyPair) warnIfExpired(cert *tls.Certificate) {
	if time.Now().After(cert.Leaf.NotAfter) {
		p.log.Warn("the certificate has expired", "file", p.certFile, "until", cert.Leaf.NotAfter)
	}
}

// same says whether two looks at a path saw the same content, as far as the outside tells.
func same(a, b os.FileInfo) bool {
	return a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}
