package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"culvert/internal/forwardproxy"
)

// Explain puts what connecting to hostport gave — dial, TLS, bootstrap — into the operator's words, with a remedy.
// The error stays within reach of errors.Is and errors.As. An end of the caller's own making is returned as it is.
func Explain(err error, hostport string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	for _, explain := range []func(error, string) string{
		explainProxy, explainBootstrap, explainCertificate, explainHandshake, explainDial,
	} {
		if words := explain(err, hostport); words != "" {
			return fmt.Errorf("%s (%w)", words, err)
		}
	}
	return fmt.Errorf("connect to %s: %w", hostport, err)
}

// explainProxy comes first: what a proxy's certificate or port is blamed for is not the server's fault.
func explainProxy(err error, at string) string {
	var via *forwardproxy.Error
	var op *net.OpError
	switch {
	case !errors.As(err, &via):
		if errors.As(err, &op) && op.Op == "proxyconnect" { // says net/http
			return fmt.Sprintf("there is no way to %s through the HTTP proxy that HTTPS_PROXY or HTTP_PROXY names", at)
		}
		return ""
	case errors.Is(err, forwardproxy.ErrUnreadable):
		return fmt.Sprintf("there is no way to %s: HTTPS_PROXY or HTTP_PROXY does not hold the URL of a proxy", at)
	case (via.Status == http.StatusProxyAuthRequired || via.Status == http.StatusUnauthorized) && via.Named: // 401, says tinyproxy
		return fmt.Sprintf("the HTTP proxy at %s does not take the name and password in its URL", via.Proxy)
	case via.Status == http.StatusProxyAuthRequired:
		return fmt.Sprintf("the HTTP proxy at %s wants a name and a password: give its URL as http://NAME:PASSWORD@%[1]s", via.Proxy)
	case via.Status == http.StatusForbidden, via.Status == http.StatusMethodNotAllowed:
		return fmt.Sprintf("the HTTP proxy at %s does not let connections to %s through: ask who runs it, "+
			"or use a port that it allows, such as 443", via.Proxy, at)
	default:
		return fmt.Sprintf("there is no way to %s through the proxy at %s", at, via.Proxy)
	}
}

func explainBootstrap(err error, at string) string {
	var answer *AnswerError
	switch {
	case errors.Is(err, ErrProof):
		return fmt.Sprintf("the server at %s could not prove that it knows this token: "+
			"the token is wrong, or someone is in between", at)
	case errors.Is(err, ErrShortToken):
		return fmt.Sprintf("a token for auto-TLS needs at least %d characters: "+
			"make one with culvert token new, for both ends", MinToken)
	case !errors.As(err, &answer):
		return ""
	case answer.Status == http.StatusNotFound:
		return fmt.Sprintf("%s speaks TLS but has no CA to give: if it is another service, mind the port, "+
			"the control port is 8123 by default; if the server has a certificate of its own, use --auto-tls=false", at)
	default:
		return fmt.Sprintf("%s speaks TLS but does not answer as culvert does: mind the port, "+
			"the control port is 8123 by default", at)
	}
}

func explainCertificate(err error, at string) string {
	var (
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
	)
	switch {
	case errors.As(err, &hostname):
		return fmt.Sprintf("the certificate of %s is not valid for %s%s: add --auto-tls-san %[2]s on the server",
			at, hostname.Host, butFor(hostname.Certificate))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return explainTime(invalid.Cert, at)
	case errors.As(err, &unknown):
		return fmt.Sprintf("the certificate of %s does not come from a CA that is trusted here: if the server made it, as "+
			"by default, leave out --auto-tls=false; a CA of your own wants --tls-ca FILE; else that file is another server's, the server's CA was made anew, or someone is in between", at)
	case errors.As(err, &invalid):
		return fmt.Sprintf("the certificate of %s is not valid", at)
	default:
		return ""
	}
}

func explainTime(cert *x509.Certificate, at string) string {
	const date = "2006-01-02 15:04 MST"
	if cert == nil {
		return fmt.Sprintf("the certificate of %s has expired: renew it on the server", at)
	}
	now := time.Now()
	if now.Before(cert.NotBefore) {
		return fmt.Sprintf("the certificate of %s is valid only from %s on: is the clock here right? it says %s",
			at, cert.NotBefore.UTC().Format(date), now.UTC().Format(date))
	}
	return fmt.Sprintf("the certificate of %s expired on %s: renew it on the server, if the clock here is right, "+
		"it says %s", at, cert.NotAfter.UTC().Format(date), now.UTC().Format(date))
}

// butFor names what the certificate is valid for, a few of it.
func butFor(cert *x509.Certificate) string {
	const few = 5
	if cert == nil {
		return ""
	}
	sans := sansOf(cert)
	if len(sans) == 0 {
		return ""
	}
	for i := range sans {
		sans[i] = strings.ToValidUTF8(sans[i], "?") // a stranger may have written them
	}
	if len(sans) > few {
		sans = append(slices.Clone(sans[:few]), "…")
	}
	return fmt.Sprintf(" but for %.300q", strings.Join(sans, ", "))
}

func explainHandshake(err error, at string) string {
	var (
		record tls.RecordHeaderError
		alert  tls.AlertError
		op     *net.OpError
	)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch),
		errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return fmt.Sprintf("%s speaks plain HTTP: is it the data port? the control port is 8123 by default; "+
			"one without TLS wants ws://", at)
	case errors.As(err, &record):
		return fmt.Sprintf("%s does not speak TLS: mind the port, the control port is 8123 by default", at)
	case errors.As(err, &alert), errors.As(err, &op) && op.Op == "remote error":
		return fmt.Sprintf("%s speaks TLS but refused the handshake: mind the port, "+
			"the control port is 8123 by default", at)
	default:
		return ""
	}
}

// wsaConnRefused is what Windows says for ECONNREFUSED, wsaConnReset for ECONNRESET.
const (
	wsaConnReset   = syscall.Errno(10054)
	wsaConnRefused = syscall.Errno(10061)
)

func explainDial(err error, at string) string {
	var (
		dns     *net.DNSError
		timeout net.Error
	)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, wsaConnRefused):
		return fmt.Sprintf("%s refused the connection: is the server running, and is the port right? "+
			"the control port is 8123 by default", at)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("no such host: %s: is the name right?", dns.Name)
	case errors.As(err, &dns):
		return fmt.Sprintf("the address of %s could not be looked up: is the network up?", dns.Name)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("%s did not answer in time: is it up, and does a firewall let this through?", at)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Sprintf("there is no route to %s: is the network up, and is the address right?", at)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, wsaConnReset):
		return fmt.Sprintf("%s closed the connection: is it the control port (8123 by default), "+
			"and are connections from here allowed there?", at)
	default:
		return ""
	}
}
