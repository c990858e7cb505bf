package pki

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// The bootstrap, one request over TLS that is not verified yet:
//
//	client → GET CAPath?nonce=<64 hex>&id=<token id>
//	server → {"ca": "<PEM>", "proof": "<base64>"}
//
// where the proof is HMAC-SHA256 over the nonce's 32 bytes and the SHA-256 of the CA's DER, with a key that HKDF-SHA256
// derives from the SHA-256 of the token. A man in the middle can pass question and answer on, but the CA that he
// passes on is the server's, for which he has no key; for another one he has no proof, and the nonce makes an old proof
// worthless. He can guess at the token offline, hence MinToken.
const (
	// CAPath is where a server with auto-TLS answers the bootstrap.
	CAPath = "/.well-known/culvert/ca"
	// MinToken is the least length of a token with auto-TLS, in bytes.
	MinToken = 16

	proofInfo = "culvert auto-tls proof v1"
	maxID     = 128
)

type nonce [32]byte

// prove computes the proof for a CA by one who knows the digest of the token.
func prove(digest [sha256.Size]byte, n nonce, caDER []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, digest[:], nil, proofInfo, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the key of the proof: %w", err)
	}
	ca := sha256.Sum256(caDER)
	mac := hmac.New(sha256.New, key)
	mac.Write(n[:])
	mac.Write(ca[:])
	return mac.Sum(nil), nil
}

func parseNonce(s string) (n nonce, err error) {
	if len(s) != hex.EncodedLen(len(n)) {
		return nonce{}, errors.New("want 64 hexadecimal digits")
	}
	_, err = hex.Decode(n[:], []byte(s))
	return n, err
}

// answer is what the server says, in the form in which it travels.
type answer struct {
	CA    string `json:"ca"`
	Proof string `json:"proof"`
}

// parseAnswer takes an answer apart, a stranger's bytes, without believing any of it: der is any bytes at all until
// the proof has been checked over them.
func parseAnswer(data []byte) (der, proof []byte, err error) {
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, nil, err
	}
	block, rest := pem.Decode([]byte(a.CA))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return nil, nil, errors.New("want one certificate")
	}
	proof, err = base64.StdEncoding.DecodeString(a.Proof)
	if err != nil {
		return nil, nil, fmt.Errorf("proof: %w", err)
	}
	if len(proof) != sha256.Size {
		return nil, nil, fmt.Errorf("proof: want %d bytes, got %d", sha256.Size, len(proof))
	}
	return block.Bytes, proof, nil
}
