package pki

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFetchedCAVerifiesTheServer(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	addr := serveAuthority(t, a)
	pool, err := FetchCA(t.Context(), Fetch{Host: addr, Token: testToken, TokenID: testID})
	if err != nil {
		t.Fatal(err)
	}
	if err := connect(t.Context(), addr, "127.0.0.1", testToken, pool); err != nil {
		t.Error(err)
	}
}

func TestFetchCAOverIPv6AndTheCallersDial(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"::1"}})
	addr := serveAuthority(t, a)
	var asked string
	dial := func(ctx context.Context, network, to string) (net.Conn, error) {
		asked = network + " " + to
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	_, err := FetchCA(t.Context(), Fetch{Host: "[::1]:8123", Token: testToken, TokenID: testID, Dial: dial})
	if err != nil || asked != "tcp [::1]:8123" {
		t.Errorf("dialled %q: %v", asked, err)
	}
}

func TestFetchCAOfTheSharedToken(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	addr := serveHTTP(t, &tls.Config{GetCertificate: a.GetCertificate}, CAHandler(a.CA(), knows("", testToken)))
	if _, err := FetchCA(t.Context(), Fetch{Host: addr, Token: testToken}); err != nil {
		t.Error(err)
	}
}

// The proof as another program computed it (Python's hmac and hashlib), for second implementations of the protocol.
func TestProofIsTheDocumentedOne(t *testing.T) {
	var n nonce
	for i := range n {
		n[i] = byte(i)
	}
	got, err := prove(sha256.Sum256([]byte("correct horse battery staple")), n, []byte("the CA's DER"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "f1d2df7d48514661157550efc68819cde9cf4a743959efad99bee369c6b99088"
	if hex.EncodeToString(got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}

func TestFetchCARefusesWrongTokens(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	addr := serveAuthority(t, a)
	for name, tt := range map[string]struct {
		token, id string
		want      error
	}{
		"another token":            {strings.ToLower(testToken), testID, ErrProof},
		"a token with a newline":   {testToken + "\n", testID, ErrProof},
		"an unknown id":            {testToken, "ffffffff", ErrProof},
		"no id":                    {testToken, "", ErrProof},
		"an empty token":           {"", testID, ErrShortToken},
		"a token of 15 characters": {testToken[:15], testID, ErrShortToken},
		"a token of 16 characters": {testToken[:16], testID, ErrProof},
	} {
		t.Run(name, func(t *testing.T) {
			pool, err := FetchCA(t.Context(), Fetch{Host: addr, Token: tt.token, TokenID: tt.id})
			if !errors.Is(err, tt.want) || pool != nil {
				t.Errorf("got %v, want %v and no pool", err, tt.want)
			}
		})
	}
}

func TestFetchCADialsNobodyWithAShortToken(t *testing.T) {
	dial := func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, io.EOF
	}
	if _, err := FetchCA(t.Context(), Fetch{Host: "127.0.0.1:1", Token: "short", Dial: dial}); !errors.Is(err, ErrShortToken) {
		t.Error(err)
	}
}

// goodAnswer is what the real server answers to a nonce.
func goodAnswer(t testing.TB, a *Authority, n string) answer {
	t.Helper()
	w := httptest.NewRecorder()
	CAHandler(a.CA(), knows(testID, testToken)).ServeHTTP(w,
		httptest.NewRequest(http.MethodGet, CAPath+"?id="+testID+"&nonce="+n, nil))
	var got answer
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	return got
}

func TestFetchCARefusesAnswers(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	other := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	leaf := certPEM(a.leaf.Load().Leaf.Raw)
	zeros := strings.Repeat("0", 64)
	asJSON := func(ans answer) string {
		data, err := json.Marshal(ans)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for name, tt := range map[string]struct {
		answer func(nonce string) string
		proof  bool // refused for the proof, else as an answer
	}{
		"another CA with the server's proof": {proof: true, answer: func(n string) string {
			ans := goodAnswer(t, a, n)
			ans.CA = string(certPEM(other.CA().Raw))
			return asJSON(ans)
		}},
		"the proof of another nonce": {proof: true, answer: func(string) string { return asJSON(goodAnswer(t, a, zeros)) }},
		"the proof of the digest instead of the key": {proof: true, answer: func(n string) string {
			ans := goodAnswer(t, a, n)
			sum := sha256.Sum256([]byte(testToken))
			ans.Proof = base64.StdEncoding.EncodeToString(sum[:])
			return asJSON(ans)
		}},
		"two CAs": {answer: func(n string) string {
			ans := goodAnswer(t, a, n)
			ans.CA += string(certPEM(other.CA().Raw))
			return asJSON(ans)
		}},
		"half a proof": {answer: func(n string) string {
			ans := goodAnswer(t, a, n)
			ans.Proof = ans.Proof[:20]
			return asJSON(ans)
		}},
		"no proof": {answer: func(n string) string {
			ans := goodAnswer(t, a, n)
			ans.Proof = ""
			return asJSON(ans)
		}},
		"a proved certificate that is no CA's": {answer: func(n string) string {
			var raw nonce
			raw, err := parseNonce(n)
			if err != nil {
				t.Error(err)
			}
			proof, err := prove(sha256.Sum256([]byte(testToken)), raw, a.leaf.Load().Leaf.Raw)
			if err != nil {
				t.Error(err)
			}
			return asJSON(answer{CA: string(leaf), Proof: base64.StdEncoding.EncodeToString(proof)})
		}},
		"trailing data": {answer: func(n string) string { return asJSON(goodAnswer(t, a, n)) + "x" }},
		"an empty page": {answer: func(string) string { return "" }},
		"a web page":    {answer: func(string) string { return "<!doctype html><title>Welcome to nginx!</title>" }},
		"JSON of another kind": {answer: func(string) string {
			return `["ca"]`
		}},
		"an endless page": {answer: func(string) string { return strings.Repeat(" ", maxAnswer+1) }},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serveHTTP(t, &tls.Config{GetCertificate: a.GetCertificate},
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, tt.answer(r.URL.Query().Get("nonce")))
				}))
			_, err := FetchCA(t.Context(), Fetch{Host: addr, Token: testToken, TokenID: testID})
			var bad *AnswerError
			switch {
			case tt.proof && !errors.Is(err, ErrProof):
				t.Errorf("got %v, want %v", err, ErrProof)
			case !tt.proof && !errors.As(err, &bad):
				t.Errorf("got %v, want an AnswerError", err)
			}
		})
	}
}

// A server that sends for ever, in any part of its answer, is cut off.
func TestFetchCAReadsAtMost64KiB(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	for name, start := range map[string]string{
		"status line": "HTTP/1.1 200 ",
		"header":      "HTTP/1.1 200 OK\r\nX: ",
		"headers":     "HTTP/1.1 200 OK\r\n",
		"body":        "HTTP/1.1 200 OK\r\n\r\n",
		"chunks":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			sent := make(chan int, 1)
			addr := serveConns(t, func(raw net.Conn) {
				defer raw.Close()
				c := tls.Server(raw, &tls.Config{GetCertificate: a.GetCertificate})
				n, _ := io.WriteString(c, start)
				for line := []byte("1\r\nA: bbbbbbbbbbbbbbbbbbbbbbbb\r\n"); ; {
					k, err := c.Write(line)
					if n += k; err != nil {
						sent <- n
						return
					}
				}
			})
			_, err := FetchCA(t.Context(), Fetch{Host: addr, Token: testToken, TokenID: testID})
			var bad *AnswerError
			if !errors.As(err, &bad) {
				t.Errorf("got %v, want an AnswerError", err)
			}
			t.Logf("the server got rid of %d bytes, socket buffers included", <-sent)
		})
	}
}

// C11: a server that stops answering, at whatever byte, holds the client no longer than its context.
func TestC11FetchCAEndsWithItsContext(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	const full = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"ca\":"
	stalls := map[string]func(net.Conn){
		"before TLS": func(net.Conn) {},
		"in TLS":     func(c net.Conn) { _, _ = io.WriteString(c, "\x16\x03\x03\x01") },
	}
	for n := 0; n <= len(full); n += 7 {
		stalls[fmt.Sprintf("after %d bytes of the answer", n)] = func(c net.Conn) {
			_, _ = io.WriteString(tls.Server(c, &tls.Config{GetCertificate: a.GetCertificate}), full[:n])
		}
	}
	for name, stall := range stalls {
		t.Run(name, func(t *testing.T) {
			addr := serveConns(t, func(c net.Conn) {
				defer c.Close()
				stall(c)
				_, _ = io.Copy(io.Discard, c) // until the client has gone
			})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := FetchCA(ctx, Fetch{Host: addr, Token: testToken, TokenID: testID})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
			}
		})
	}
}

func TestFetchPrintsWithoutItsToken(t *testing.T) {
	f := Fetch{Host: "h:1", Token: testToken, TokenID: testID}
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(f), fmt.Sprintf("%+v %#v %s %q %x", f, f, f, f, f), fmt.Sprintf("%v", &f), string(data),
	} {
		if strings.Contains(text, "CANARY") || strings.Contains(text, hex.EncodeToString([]byte("CANARY"))) {
			t.Errorf("token in %s", text)
		}
	}
}

func TestCAHandlerAnswers(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	h := CAHandler(a.CA(), knows(testID, testToken))
	good := strings.Repeat("0a", 32)
	for name, tt := range map[string]struct {
		method, query string
		want          int
	}{
		"good":              {http.MethodGet, "nonce=" + good + "&id=" + testID, 200},
		"upper case":        {http.MethodGet, "nonce=" + strings.ToUpper(good), 200},
		"without id":        {http.MethodGet, "nonce=" + good, 200},
		"unknown id":        {http.MethodGet, "nonce=" + good + "&id=%00<script>", 200},
		"without nonce":     {http.MethodGet, "", 400},
		"short nonce":       {http.MethodGet, "nonce=" + good[2:], 400},
		"long nonce":        {http.MethodGet, "nonce=" + good + "00", 400},
		"nonce not in hex":  {http.MethodGet, "nonce=" + strings.Repeat("zz", 32), 400},
		"bad query":         {http.MethodGet, "nonce=%zz", 400},
		"an endless id":     {http.MethodGet, "nonce=" + good + "&id=" + strings.Repeat("a", maxID+1), 400},
		"another method":    {http.MethodPost, "nonce=" + good, 405},
		"a deleting method": {http.MethodDelete, "nonce=" + good, 405},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(tt.method, CAPath+"?"+tt.query, nil))
			if w.Code != tt.want {
				t.Errorf("got %d, want %d: %s", w.Code, tt.want, w.Body)
			}
			if strings.Contains(w.Body.String(), "script") {
				t.Errorf("the query is in the answer: %s", w.Body)
			}
			if w.Code == http.StatusMethodNotAllowed && w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("Allow: %q", w.Header().Get("Allow"))
			}
		})
	}
}

// One who asks for ids with the same nonce learns nothing from the proofs: they differ for known and unknown ids alike,
// and are the same when asked again.
func TestCAHandlerDoesNotTellWhichIDsExist(t *testing.T) {
	a := openAuthority(t, Config{SANs: []string{"127.0.0.1"}})
	h := CAHandler(a.CA(), knows(testID, testToken))
	ask := func(id string) answer {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, CAPath+"?nonce="+strings.Repeat("00", 32)+"&id="+id, nil))
		var got answer
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	seen := map[string]string{}
	for _, id := range []string{testID, "", "00000000", "ffffffff"} {
		first := ask(id)
		if diff := cmp.Diff(first, ask(id)); diff != "" {
			t.Errorf("id %q: another answer to the same question:\n%s", id, diff)
		}
		if who, ok := seen[first.Proof]; ok {
			t.Errorf("ids %q and %q have the same proof", who, id)
		}
		seen[first.Proof] = id
	}
}

func FuzzParseAnswer(f *testing.F) {
	a, err := OpenAuthority(Config{Dir: f.TempDir(), SANs: []string{"localhost"}})
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(goodAnswer(f, a, strings.Repeat("00", 32)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"ca":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----","proof":""}`))
	f.Add([]byte(`{"ca":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		der, proof, err := parseAnswer(data)
		if err != nil {
			return
		}
		if len(proof) != sha256.Size {
			t.Errorf("a proof of %d bytes was accepted", len(proof))
		}
		// What was understood can be said again and is understood the same.
		again, err := json.Marshal(answer{CA: string(certPEM(der)), Proof: base64.StdEncoding.EncodeToString(proof)})
		if err != nil {
			t.Fatal(err)
		}
		der2, proof2, err := parseAnswer(again)
		if err != nil || string(der2) != string(der) || string(proof2) != string(proof) {
			t.Errorf("not the same again: %v", err)
		}
	})
}

// FuzzReadAnswer is the whole of what comes out of an unverified connection.
func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 404 Not Found\r\n\r\n"))
	f.Add([]byte("220 smtp.example ESMTP\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := readAnswer(strings.NewReader(string(data)), &http.Request{Method: http.MethodGet})
		if len(body) > maxAnswer {
			t.Errorf("read %d bytes", len(body))
		}
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

func FuzzParseNonce(f *testing.F) {
	f.Add(strings.Repeat("0a", 32))
	f.Add(strings.Repeat("zz", 32))
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseNonce(s)
		if err == nil && hex.EncodeToString(n[:]) != strings.ToLower(s) {
			t.Errorf("%q became %x", s, n)
		}
	})
}

func BenchmarkCAHandler(b *testing.B) {
	a, err := OpenAuthority(Config{Dir: b.TempDir(), SANs: []string{"localhost"}})
	if err != nil {
		b.Fatal(err)
	}
	h := CAHandler(a.CA(), knows(testID, testToken))
	r := httptest.NewRequest(http.MethodGet, CAPath+"?id="+testID+"&nonce="+strings.Repeat("00", 32), nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}
