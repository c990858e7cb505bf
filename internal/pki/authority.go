package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The files of an authority's folder.
const (
	caCertFile     = "ca.crt"
	caKeyFile      = "ca.key"
	serverCertFile = "server.crt"
	serverKeyFile  = "server.key"
)

// Config says where an authority lives and whom it certifies.
type Config struct {
	Dir  string           // its state folder, made with mode 0700 if missing; one server's alone
	SANs []string         // host names and IP addresses of the server certificate; none means DefaultSANs()
	Now  func() time.Time // nil means time.Now
	Log  *slog.Logger     // nil means no log
}

// Authority is a CA of one's own with the server certificate that it keeps valid. It is safe for concurrent use.
//
// The CA stays the same as long as its folder does; its key is never renewed, its certificate years before it ends.
// The server certificate is made anew when the SANs change, when it does not belong to the CA, and when it has less
// than 30 days left, also while the server runs.
type Authority struct {
	dir  string
	sans []string
	now  func() time.Time
	log  *slog.Logger
	ca   signer

	leaf     atomic.Pointer[tls.Certificate]
	renewing sync.Mutex // held by the one handshake that renews leaf
}

// OpenAuthority loads the authority of a folder, or makes one there. Files that were lost in a crash between two
// writes are made again; a CA certificate without its key, or with another's, is an error, because a new CA must be
// the operator's wish: everyone who trusts the old one is shut out.
func OpenAuthority(cfg Config) (*Authority, error) {
	names := cfg.SANs
	if len(names) == 0 {
		names = DefaultSANs()
	}
	sans, err := canonicalSANs(names)
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: cfg.Dir, sans: sans, now: cfg.Now, log: cfg.Log}
	if a.now == nil {
		a.now = time.Now
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(a.dir, dirMode); err != nil {
		return nil, fmt.Errorf("auto-tls state: %w", err)
	}
	if err := a.openCA(); err != nil {
		return nil, fmt.Errorf("auto-tls state %s: %w", a.dir, err)
	}
	if err := a.openLeaf(); err != nil {
		return nil, fmt.Errorf("auto-tls state %s: %w", a.dir, err)
	}
	return a, nil
}

// CA is the certificate that clients are to trust. It does not change while the authority is open.
func (a *Authority) CA() *x509.Certificate { return a.ca.cert }

// GetCertificate is for tls.Config: the server certificate, whatever name is asked for. One handshake in a year makes
// a new certificate, in less than a millisecond; the others meanwhile use the old one.
func (a *Authority) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	leaf := a.leaf.Load()
	if !a.stale(leaf.Leaf) || !a.renewing.TryLock() {
		return leaf, nil
	}
	defer a.renewing.Unlock()
	if leaf := a.leaf.Load(); !a.stale(leaf.Leaf) {
		return leaf, nil // another handshake was faster
	}
	fresh, err := issueLeaf(a.ca, a.sans, a.now())
	if err != nil {
		a.log.Error("server certificate not renewed", "error", err)
		return leaf, nil
	}
	a.leaf.Store(fresh)
	if err := a.saveLeaf(fresh); err != nil {
		// It serves from memory all the same; the next start makes another.
		a.log.Warn("renewed server certificate not saved", "error", err)
	}
	a.log.Info("server certificate renewed", "until", fresh.Leaf.NotAfter)
	return fresh, nil
}

func (a *Authority) openCA() error {
	certData, err := readIfAny(a.path(caCertFile))
	if err != nil {
		return err
	}
	keyData, err := readIfAny(a.path(caKeyFile))
	if err != nil {
		return err
	}
	switch {
	case keyData == nil && certData != nil:
		return fmt.Errorf("%s is there without its %s: restore the key, "+
			"or delete the certificate to have a new CA made", caCertFile, caKeyFile)
	case keyData == nil:
		return a.newCA()
	}
	if exposed(a.path(caKeyFile)) {
		a.log.Warn("the key of the CA is readable by others than its owner: chmod 600 it", "file", a.path(caKeyFile))
	}
	if certData == nil { // a crash came between the two writes
		key, err := parseKey(keyData)
		if err != nil {
			return fmt.Errorf("%s: %w", caKeyFile, err)
		}
		return a.signCA(key, nil)
	}
	return a.loadCA(certData, keyData)
}

func (a *Authority) loadCA(certData, keyData []byte) error {
	pair, err := tls.X509KeyPair(certData, keyData)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", caCertFile, caKeyFile, err)
	}
	if !pair.Leaf.IsCA || !pair.Leaf.BasicConstraintsValid {
		return fmt.Errorf("%s is not the certificate of a CA", caCertFile)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%s: a %T cannot sign", caKeyFile, pair.PrivateKey)
	}
	a.ca = signer{pair.Leaf, key}
	// The clock may have been wrong when the certificate was made, in either direction.
	if now := a.now(); now.Add(caRenew).After(a.ca.cert.NotAfter) || now.Before(a.ca.cert.NotBefore) {
		a.log.Warn("renewing the certificate of the CA, its key stays: "+
			"clients with a copy need the new one before the old one ends",
			"until", a.ca.cert.NotAfter, "file", a.path(caCertFile))
		return a.signCA(key, a.ca.cert)
	}
	return nil
}

// newCA writes the key first: a key without a certificate can be mended, the reverse cannot.
func (a *Authority) newCA() error {
	key, err := newKey()
	if err != nil {
		return err
	}
	data, err := keyPEM(key)
	if err != nil {
		return err
	}
	if err := writeFile(a.path(caKeyFile), data, keyMode); err != nil {
		return err
	}
	return a.signCA(key, nil)
}

func (a *Authority) signCA(key crypto.Signer, old *x509.Certificate) error {
	cert, err := issueCA(key, old, a.now())
	if err != nil {
		return err
	}
	a.ca = signer{cert, key}
	return writeFile(a.path(caCertFile), certPEM(cert.Raw), certMode)
}

func (a *Authority) openLeaf() error {
	pair, err := tls.LoadX509KeyPair(a.path(serverCertFile), a.path(serverKeyFile))
	reason := a.unfit(pair.Leaf, err)
	if reason == "" {
		a.leaf.Store(&pair)
		return nil
	}
	leaf, err := issueLeaf(a.ca, a.sans, a.now())
	if err != nil {
		return err
	}
	if err := a.saveLeaf(leaf); err != nil {
		return err
	}
	a.leaf.Store(leaf)
	a.log.LogAttrs(context.Background(), slog.LevelInfo, "server certificate issued",
		slog.String("reason", reason), slog.Any("sans", a.sans), slog.Time("until", leaf.Leaf.NotAfter))
	return nil
}

// unfit says why a server certificate from the folder is not to be used, "" if it is. Whatever is wrong with one, a
// new one costs nothing and nobody has to be told.
func (a *Authority) unfit(cert *x509.Certificate, loadErr error) string {
	switch {
	case errors.Is(loadErr, os.ErrNotExist):
		return "none yet"
	case loadErr != nil:
		return loadErr.Error()
	case !bytes.Equal(cert.RawIssuer, a.ca.cert.RawSubject) || cert.CheckSignatureFrom(a.ca.cert) != nil:
		return "signed by another CA"
	case !slices.Equal(sansOf(cert), a.sans):
		return "subject alternative names changed"
	case a.stale(cert):
		return "expires soon"
	case a.now().Before(cert.NotBefore):
		return "made when the clock was wrong"
	default:
		return ""
	}
}

// stale says whether the certificate has so little time left that a new one is due. One that ends with its CA cannot
// be bettered.
func (a *Authority) stale(cert *x509.Certificate) bool {
	return a.now().Add(leafRenew).After(cert.NotAfter) && cert.NotAfter.Before(a.ca.cert.NotAfter)
}

// saveLeaf writes key and certificate. After a crash in between they do not match, and the next start makes new ones.
func (a *Authority) saveLeaf(leaf *tls.Certificate) error {
	key, err := keyPEM(leaf.PrivateKey)
	if err != nil {
		return err
	}
	if err := writeFile(a.path(serverKeyFile), key, keyMode); err != nil {
		return err
	}
	return writeFile(a.path(serverCertFile), certPEM(leaf.Leaf.Raw), certMode)
}

func (a *Authority) path(name string) string { return filepath.Join(a.dir, name) }
