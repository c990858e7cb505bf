package pki

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
)

// Trust says by whose word a server's certificate is believed: that of the server's own CA, of the authorities in a
// file, or, for the zero Trust, of the system's.
type Trust struct {
	Auto   bool   // the server's own CA, once the server has proved that it knows the token
	CAFile string // authorities in PEM, and no others
}

// Roots gives the authorities; nil, as in a tls.Config, means the system's. The Fetch is used if Auto is set.
func (t Trust) Roots(ctx context.Context, f Fetch) (*x509.CertPool, error) {
	switch {
	case t.CAFile != "":
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities: %s holds no PEM certificate", t.CAFile)
		}
		return pool, nil
	case t.Auto:
		return FetchCA(ctx, f)
	default:
		return nil, nil
	}
}
