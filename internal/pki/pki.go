// Package pki gives the control plane its certificates and lets clients find out, without trust on first use, which
// ones to believe.
//
// An Authority makes a CA and a server certificate of its own in a state folder; a KeyPair is a certificate that the
// operator brings. CAHandler and FetchCA are the two ends of the bootstrap: the client asks for the CA over TLS that
// it cannot verify yet and believes the answer only with a proof that its sender knows the client's token. The token
// itself never travels before TLS is verified. Private keys never leave the state folder.
//
// The package knows neither tokens files nor flags; it takes a token's digest from its caller and imports no other
// package of this module.
package pki
