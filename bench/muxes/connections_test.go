package muxes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"culvert/internal/cork"
	carrier "culvert/internal/tunnel/tls"
)

// connections are the two ends of a TLS connection over loopback, whose handshake is done: what the tls:// carrier makes.
// A write is one system call and a read brings all that has come, for all multiplexers alike.
func connections(tb testing.TB) (client, server net.Conn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	dialled := make(chan net.Conn, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			tb.Error(err)
		}
		dialled <- c
	}()
	accepted, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	cert, pool := certificate(tb)
	far := tls.Server(corked(accepted), &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
	})
	near := tls.Client(corked(<-dialled), &tls.Config{
		RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
	})
	done := make(chan error, 1)
	go func() { done <- near.Handshake() }()
	if err := far.Handshake(); err != nil {
		tb.Fatal(err)
	}
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
	return carrier.Accept(near), carrier.Accept(far)
}

func corked(c net.Conn) net.Conn {
	cork.Tune(c)
	return cork.New(c)
}

func certificate(tb testing.TB) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
