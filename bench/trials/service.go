package trials

import (
	"context"
	"flag"
	"io"
	"net"

	"culvert/bench/service"
)

// RunService is the part of a benchmark's program that is the service.
func RunService(_ context.Context, args []string, _ io.Writer) error {
	fs := flag.NewFlagSet("service", flag.ContinueOnError)
	listen := fs.String("listen", "", "host:port")
	if err := fs.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", *listen)
	if err != nil {
		return err
	}
	if err := packets.(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
		return err
	}
	s := service.New()
	go func() { _ = s.ServePackets(packets) }() // both end with the process
	return s.Serve(l)
}
