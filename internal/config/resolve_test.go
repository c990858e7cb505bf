package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const testToken = "0123456789abcdef0123"

// typed is what is typed after a command, and what is wrong with it; DIR stands for the test's folder.
type typed struct {
	name  string
	flags string
	want  string // all problems; "" for none
}

func TestServerResolve(t *testing.T) {
	run(t, func(dir string, flags []string) error {
		var cfg Server
		settings := Describe(&cfg, Mixed)
		cfg.Mode = Mixed
		set(t, settings, flags)
		return settings.Check(cfg.Resolve(Environment{Lookup: lookup(map[string]string{"GIVEN": testToken, "EMPTY": "", "HOME": dir})}))
	}, []typed{
		{"nothing", "", "--token-file: a server needs a credential; give --token-file FILE, --tokens FILE, or --insecure-no-auth if you mean it"},
		{"token", "--token=" + testToken, ""},
		{"token file", "--token-file=DIR/token", ""},
		{"token variable", "--token-env=GIVEN", ""},
		{"no credential on purpose", "--insecure-no-auth", ""},
		{"token twice", "--token=" + testToken + " --token-env=GIVEN", "--token: the token is given more than once, by --token and --token-env; keep one of them"},
		{"no credential, but one", "--insecure-no-auth --token=" + testToken, "--insecure-no-auth: contradicts the token that is given; leave one of the two out"},
		{"missing token file", "--token-file=DIR/nothing", "--token-file: read secret: open DIR/nothing: no such file or directory; check the path"},
		{"empty token file", "--token-file=DIR/empty", "--token-file: read secret: DIR/empty: the file is empty"},
		{"unset variable", "--token-env=UNSET", "--token-env: the variable that it names is not set; export it, or give the name of another"},
		{"empty variable", "--token-env=EMPTY", "--token-env: the variable that it names is empty"},
		{"empty token", "--token=", "--token: is empty; give it a value or leave it out\n--token-file: a server needs a credential; give --token-file FILE, --tokens FILE, or --insecure-no-auth if you mean it"},
		{"short token", "--token=short", "--token: the token has 5 characters; auto-TLS needs 16 or more, because a shorter one can be guessed; make one with: openssl rand -hex 20"},
		{"short token in a file", "--token-file=DIR/short", "--token-file: the token has 5 characters; auto-TLS needs 16 or more, because a shorter one can be guessed; make one with: openssl rand -hex 20"},
		{"short token without auto-TLS", "--token=short --auto-tls=false --insecure-plaintext", ""},
		{"missing tokens", "--tokens=DIR/nothing", "--tokens: read tokens: open DIR/nothing: no such file or directory; make it with: culvert token new"},
		{"one token for many", "--tokens=DIR/token", "--tokens: DIR/token:1: a value of type !!str does not belong here; a file of one shared token is for --token-file"},
		{"a URL for a name", "--token=" + testToken + " --auto-tls-san=https://a.example.com", `--auto-tls-san: "https://a.example.com" has a scheme; give a host name or an address without scheme and port`},
		{"own certificate", "--token=" + testToken + " --auto-tls=false --tls-cert=DIR/a.crt --tls-key=DIR/a.key", ""},
		{"certificate without key", "--token=" + testToken + " --auto-tls=false --tls-cert=DIR/a.crt", "--tls-key: missing beside --tls-cert; give --tls-key FILE too"},
		{"certificate with auto-TLS", "--token=" + testToken + " --tls-cert=DIR/a.crt --tls-key=DIR/a.key", "--tls-cert: an own certificate is not used while auto-TLS is on; add --auto-tls=false"},
		{"mismatched pair", "--token=" + testToken + " --auto-tls=false --tls-cert=DIR/a.crt --tls-key=DIR/b.key", "--tls-cert: DIR/a.crt and DIR/b.key are not a certificate and its key: tls: private key does not match public key"},
		{"missing key", "--token=" + testToken + " --auto-tls=false --tls-cert=DIR/a.crt --tls-key=DIR/nothing", "--tls-cert: key: open DIR/nothing: no such file or directory"},
		{"no certificate at all", "--token=" + testToken + " --auto-tls=false", "--auto-tls: without it the control port has no certificate; give --tls-cert and --tls-key, or --insecure-plaintext behind a proxy that ends TLS"},
		{"plaintext with auto-TLS", "--token=" + testToken + " --insecure-plaintext", "--insecure-plaintext: contradicts auto-TLS, which is on; add --auto-tls=false"},
		{"a name with a port", "--token=" + testToken + " --auto-tls-san=a.example.com:8123", `--auto-tls-san: "a.example.com:8123" has port 8123; give a host name or an address without scheme and port`},
		{"data address with a colon", "--token=" + testToken + " --data-addr=127.0.0.1:", ""},
		{"data address in brackets", "--token=" + testToken + " --data-addr=[::1]:", ""},
		{"data address of IPv6", "--token=" + testToken + " --data-addr=::", ""},
		{"data address with a port", "--token=" + testToken + " --data-addr=127.0.0.1:80", "--data-addr: takes a host alone, not port 80; leave the port out: it is --port"},
		{"one port for two", "--token=" + testToken + " --port=8123", "--port: 8123 is the control port too; give one of them another"},
		{"one port on two addresses", "--token=" + testToken + " --port=8123 --control-addr=127.0.0.1 --data-addr=::1", ""},
		{"health", "--token=" + testToken + " --health-addr=:8081", ""},
		{"health on the control port", "--token=" + testToken + " --health-addr=127.0.0.1:8123", "--health-addr: 8123 is the control port, which has /healthz and /readyz already; give another port"},
		{"health without a port", "--token=" + testToken + " --health-addr=127.0.0.1", `--health-addr: "127.0.0.1" has no host and port; write HOST:PORT, as in 127.0.0.1:8081 or :8081`},
		{"a unit needs no files", "--generate=systemd --token-file=/nowhere --tls-cert=x --tls-key=y --auto-tls=false", ""},
		{"a name for no unit", "--token=" + testToken + " --generate-name=x", "--generate: missing beside --generate-name or --generate-image; add --generate systemd or --generate k8s_yaml"},
		{"a bad name for a unit", "--generate=systemd --generate-name=A/b", `--generate-name: "A/b" does not name a unit and a Kubernetes object; use 1 to 50 lower-case letters, digits and '-', a letter first`},
	})
}

func TestClientResolve(t *testing.T) {
	const good = "--url=wss://localhost --token=" + testToken + " --upstream=http://localhost:80"
	run(t, func(dir string, flags []string) error {
		var cfg Client
		settings := Describe(&cfg, Mixed)
		cfg.Mode = Mixed
		set(t, settings, flags)
		return settings.Check(cfg.Resolve(Environment{Lookup: lookup(map[string]string{"HOME": dir})}))
	}, []typed{
		{"good", good, ""},
		{"nothing", "", `--url: a client needs the address of a server; give --url wss://HOST:8123
--token-file: the server's token is missing; give --token-file FILE, --token-env NAME or --token TOKEN
--upstream: a client needs something to offer; give --upstream http://127.0.0.1:3000 or --upstream 2222=127.0.0.1:22`},
		{"no scheme", good + " --url=Localhost:8123", `--url: "Localhost:8123" has no scheme; write wss://localhost:8123`},
		{"no scheme and no port", good + " --url=::1", `--url: "::1" has no scheme; write wss://[::1]:8123`},
		{"neither scheme nor host", good + " --url=/x", `--url: "/x" has no scheme; write wss://HOST:8123`},
		{"an empty port of a URL", good + " --url=wss://localhost:", `--url: "" is not a port from 1 to 65535; write wss://HOST:8123`},
		{"a website's scheme without TLS", good + " --url=http://localhost:8123", `--url: "http" is the scheme of a website; write wss://localhost:8123`},
		{"a byte order mark", "--url=wss://localhost --upstream=http://x --token-file=DIR/bom", "--token-file: the token holds a space or an invisible character; a token is one line of visible characters"},
		{"bad port of a URL", good + " --url=wss://localhost:99999", `--url: "99999" is not a port from 1 to 65535; write wss://HOST:8123`},
		{"a website's scheme", good + " --url=https://localhost:8123/", `--url: "https" is the scheme of a website; write wss://localhost:8123/`},
		{"plaintext", good + " --url=ws://localhost", `--url: "ws://localhost" is not encrypted: anyone on the way could read the token; use wss://, or add --insecure-plaintext`},
		{"plaintext on purpose", good + " --url=ws://localhost --insecure-plaintext", ""},
		{"a password in a URL", good + " --url=wss://user:canary@localhost", "--url: not a URL of scheme, host, port and path; write wss://HOST:8123"},
		{"a query in a URL", good + " --url=wss://localhost?token=canary", `--url: "wss://localhost?…" has more than scheme, host, port and path; give the token by --token-file`},
		{"another carrier", good + " --url=quic://localhost", "--url: quic:// comes with a later version; use wss://"},
		{"bare TLS", good + " --url=tls://localhost", ""},
		{"bare TLS with a path", good + " --url=tls://localhost/connect", "--url: tls:// has no path; leave the path out, or use wss://"},
		{"a proxy", good + " --http-proxy=http://me:canary@proxy:3128", ""},
		{"a proxy of IPv6", good + " --http-proxy=socks5://[::1]", ""},
		{"a proxy without a scheme", good + " --http-proxy=proxy:3128", "--http-proxy: not a URL of scheme, host and port; write http://HOST:PORT"},
		{"a proxy of another kind", good + " --http-proxy=ftp://me:canary@proxy:3128", `--http-proxy: the scheme "ftp" cannot be used; use http://, https:// or socks5://`},
		{"a proxy with a path", good + " --http-proxy=http://me:canary@proxy/x", "--http-proxy: not a URL of scheme, host and port; write http://HOST:PORT"},
		{"a proxy without a port", good + " --http-proxy=http://me:canary@proxy:", `--http-proxy: "" is not a port from 1 to 65535; write http://HOST:PORT`},
		{"a proxy's password in a unit", good + " --generate=systemd --http-proxy=http://me:canary@proxy:3128", "--http-proxy: holds a password, which does not belong into a unit or manifest; leave it out, and set HTTPS_PROXY for the service"},
		{"two for one host", good + " --upstream=*=http://localhost:81", "--upstream: *=http://localhost:80 and *=http://localhost:81 are both for every host; give one of them another host, path or port"},
		{"two for one path", good + " --upstream=a/b=http://x,a/b/=http://y", "--upstream: a/b=http://x and a/b=http://y are both for host a/b; give one of them another host, path or port"},
		{"two for one port", good + " --upstream=22=a:1,b:22", "--upstream: 22=a:1 and b:22 are both for port 22; give one of them another host, path or port"},
		{"a path each", good + " --upstream=a/b=http://x,a=http://y,a/c=http://x", ""},
		{"a missing folder", good + " --upstream=a=file:DIR/nothing", "--upstream: a=file:DIR/nothing: there is no folder DIR/nothing"},
		{"a folder that is a file", good + " --upstream=a=file:DIR/token", "--upstream: a=file:DIR/token: DIR/token is not a folder"},
		{"ports for no host", good + " --ports=22", "--ports: there is no --upstream HOST without a port to use them for; write the ports at the upstreams, or give --upstream HOST alone"},
		{"ports for a host", good + " --upstream=localhost --ports=22", ""},
		{"a CA with auto-TLS", good + " --tls-ca=DIR/a.crt", "--tls-ca: not used while auto-TLS is on; add --auto-tls=false"},
		{"a CA", good + " --tls-ca=DIR/a.crt --auto-tls=false", ""},
		{"a CA that is none", good + " --tls-ca=DIR/token --auto-tls=false", "--tls-ca: DIR/token holds no PEM certificate"},
		{"an identity that is none", good + " --id=a/b", `--id: "a/b" is not an identity; use 1 to 128 letters, digits, '.', '-' and '_'`},
		{"no token", "--url=wss://localhost --upstream=http://x --insecure-no-auth", "--auto-tls: without a token there is nothing to verify the server's CA with; copy the server's ca.crt here and give --tls-ca ca.crt --auto-tls=false"},
		{"no token, other trust", "--url=wss://localhost --upstream=http://x --insecure-no-auth --auto-tls=false", ""},
		{"short token", "--url=wss://localhost --upstream=http://x --token=short", "--token: the token has 5 characters; auto-TLS needs 16 or more, because a shorter one can be guessed; make one with: openssl rand -hex 20"},
	})
}

func TestFileserverResolve(t *testing.T) {
	run(t, func(_ string, flags []string) error {
		var cfg Fileserver
		settings := Describe(&cfg, "")
		set(t, settings, flags)
		return settings.Check(cfg.Resolve(Environment{}))
	}, []typed{
		{"nothing", "", ""},
		{"a missing folder", "--webroot=DIR/nothing", "--webroot: there is no folder DIR/nothing"},
		{"a name and a password", "--basic-auth-username=me --basic-auth-password-file=DIR/token", ""},
		{"a name without a password", "--basic-auth-username=me", "--basic-auth-username: without a password everyone is let in; give --basic-auth-password-file FILE too"},
		{"a name that browsers cannot send", "--basic-auth-username=a:b --basic-auth-password=x", "--basic-auth-username: a name with ':' cannot be sent by a browser"},
		{"an empty password file", "--basic-auth-password-file=DIR/empty", "--basic-auth-password-file: read secret: DIR/empty: the file is empty"},
		{"two passwords", "--basic-auth-password=x --basic-auth-password-file=DIR/token", "--basic-auth-password: the password is given by --basic-auth-password-file too; keep one of them"},
		{"an address with a port", "--data-addr=127.0.0.1:80", "--data-addr: takes a host alone, not port 80; leave the port out: it is --port"},
	})
}

func TestURLsAreCompleted(t *testing.T) {
	for raw, want := range map[string]string{
		"wss://localhost": "wss://localhost:443/connect", "wss://LOCALHOST:8123/": "wss://localhost:8123/connect",
		"WSS://[::1]/a/b": "wss://[::1]:443/a/b", "ws://h": "ws://h:80/connect",
		"TLS://h": "tls://h:443", "tls://[::1]:8123/": "tls://[::1]:8123",
	} {
		u, problem := parseURL(raw, true)
		if problem != nil {
			t.Errorf("%s: %s", raw, problem)
		} else if u.String() != want {
			t.Errorf("%s: got %s, want %s", raw, u, want)
		}
	}
}

// run types each case after a command and compares all problems.
func run(t *testing.T, command func(dir string, flags []string) error, cases []typed) {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir)
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if err := command(dir, strings.Fields(strings.ReplaceAll(test.flags, "DIR", dir))); err != nil {
				got = strings.ReplaceAll(err.Error(), dir, "DIR")
			}
			if got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
			if strings.Contains(got, "canary") {
				t.Error("a secret is quoted")
			}
		})
	}
}

func set(t *testing.T, settings *Settings, flags []string) {
	t.Helper()
	for _, flag := range flags {
		name, value, ok := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if !ok {
			value = "true"
		}
		s := settings.Lookup(name)
		if s == nil {
			t.Fatalf("no setting %q", name)
		}
		s.Set(value)
	}
}

func writeFiles(t *testing.T, dir string) {
	t.Helper()
	files := map[string]string{"token": testToken + "\n", "short": "short", "empty": "", "bom": "\ufeff" + testToken + "\r\n"}
	for _, name := range []string{"a", "b"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		files[name+".crt"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		files[name+".key"] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// display prints what a setting's target points to, as tests compare it.
func display(target any) string { return fmt.Sprint(reflect.ValueOf(target).Elem().Interface()) }
