module culvert/bench

go 1.26.0

require (
	culvert v0.0.0
	github.com/google/go-cmp v0.7.0
	github.com/hashicorp/yamux v0.1.2
	github.com/libp2p/go-yamux/v5 v5.1.0
	github.com/xtaci/smux v1.5.56
)

require (
	github.com/libp2p/go-buffer-pool v0.0.2 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace culvert => ../
