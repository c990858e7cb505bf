package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"culvert/bench/load"
	"culvert/bench/longway"
	"culvert/bench/reference"
	"culvert/bench/trials"
)

// part is a process of the benchmark: this program again, with the part's name as its first argument.
type part func(ctx context.Context, args []string, out io.Writer) error

func parts() map[string]part {
	return map[string]part{
		"service":          trials.RunService,
		"way":              runWay,
		"reference-server": runReferenceServer,
		"reference-client": runReferenceClient,
		"downloads":        runDownloads,
	}
}

func runWay(_ context.Context, args []string, _ io.Writer) error {
	fs := flag.NewFlagSet("way", flag.ContinueOnError)
	listen := fs.String("listen", "", "host:port")
	to := fs.String("to", "", "host:port")
	rtt := fs.Duration("rtt", 0, "round-trip time")
	mbit := fs.Int("mbit", 0, "rate in each direction, 0 for no limit")
	if err := fs.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	return longway.New(*rtt, float64(*mbit)*1e6/8).Serve(l, *to)
}

func runReferenceServer(_ context.Context, args []string, _ io.Writer) error {
	fs := flag.NewFlagSet("reference-server", flag.ContinueOnError)
	tunnel := fs.String("tunnel", "", "host:port for the client")
	public := fs.String("public", "", "host:port for visitors")
	cert := fs.String("cert", "", "certificate")
	key := fs.String("key", "", "its key")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	s := reference.Server{Certificate: pair}
	if s.Tunnel, err = net.Listen("tcp", *tunnel); err != nil {
		return err
	}
	if s.Public, err = net.Listen("tcp", *public); err != nil {
		return err
	}
	return s.Serve()
}

func runReferenceClient(ctx context.Context, args []string, _ io.Writer) error {
	fs := flag.NewFlagSet("reference-client", flag.ContinueOnError)
	server := fs.String("server", "", "host:port")
	ca := fs.String("ca", "", "CA of its certificate")
	to := fs.String("service", "", "host:port")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
	return reference.Client{Server: *server, TLS: config, Service: *to}.Run(ctx)
}

// runDownloads waits until an address serves, downloads from it for a time, and prints how many bytes came.
func runDownloads(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("downloads", flag.ContinueOnError)
	addr := fs.String("addr", "", "host:port")
	streams := fs.Int("streams", 1, "how many at once")
	during := fs.Duration("during", time.Second, "how long, from the first byte asked")
	if err := fs.Parse(args); err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); ; {
		err := load.Fresh(*addr, "/")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return err
		}
		if err := trials.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	t, err := load.StartTransfers(*addr, *streams, load.Down)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := trials.Pause(ctx, *during); err != nil {
		return err
	}
	if n := t.Ended(); n > 0 {
		return fmt.Errorf("%d of %d downloads ended", n, *streams)
	}
	_, err = fmt.Fprintln(out, t.Got())
	return err
}
