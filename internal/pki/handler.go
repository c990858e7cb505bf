package pki

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
)

// CAHandler answers the bootstrap on CAPath, for anyone: it gives away nothing but the CA's certificate, and costs two
// hashes. digest looks up the SHA-256 of the token with an id, "" for the shared token.
//
// An id that digest does not know is answered too, with a proof that nobody can check, so that one who asks cannot
// find out which ids exist. (One who asks again after a restart can: then the proofs of unknown ids have changed. Ids
// are not secrets, merely nobody's business.)
func CAHandler(ca *x509.Certificate, digest func(id string) ([sha256.Size]byte, bool)) http.Handler {
	h := &caHandler{ca: ca.Raw, pem: string(certPEM(ca.Raw)), digest: digest}
	_, _ = rand.Read(h.decoy[:]) // never fails
	return h
}

type caHandler struct {
	ca     []byte // DER
	pem    string
	digest func(id string) ([sha256.Size]byte, bool)
	decoy  [sha256.Size]byte
}

func (h *caHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	query := r.URL.Query()
	n, err := parseNonce(query.Get("nonce"))
	if err != nil {
		http.Error(w, "nonce: want 64 hexadecimal digits", http.StatusBadRequest)
		return
	}
	id := query.Get("id")
	if len(id) > maxID {
		http.Error(w, "id: too long", http.StatusBadRequest)
		return
	}
	proof, err := prove(h.digestOf(id), n, h.ca)
	if err != nil {
		http.Error(w, "no proof", http.StatusInternalServerError)
		return
	}
	body, err := json.Marshal(answer{CA: h.pem, Proof: base64.StdEncoding.EncodeToString(proof)})
	if err != nil {
		http.Error(w, "no answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // an answer is good for one nonce
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(body) // a client that has gone needs no answer
}

// digestOf is the digest of the token with that id, or a decoy. The decoy differs from id to id: equal proofs for two
// ids would betray both as unknown. It is computed in either case, so that the time taken tells nothing.
func (h *caHandler) digestOf(id string) (digest [sha256.Size]byte) {
	mac := hmac.New(sha256.New, h.decoy[:])
	mac.Write([]byte(id))
	mac.Sum(digest[:0])
	if known, ok := h.digest(id); ok {
		return known
	}
	return digest
}
