// Package muxes compares culvert's multiplexer with libp2p's and hashicorp's yamux and with smux, version 2 of its
// protocol, each over the same kind of connection: TLS 1.3 over loopback TCP, as the tls:// carrier makes it. It has benchmarks only.
//
// Both ends, the echo and the load run in the process that is measured, alike for all. Sub-benchmarks end in mux=NAME,
// for benchstat -col /mux.
package muxes
