package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestNewToken(t *testing.T) {
	before := time.Now().Add(-time.Second)
	secret, entry, err := NewToken(TokenEntry{Name: "laptop", Grant: Everything()})
	if err != nil {
		t.Fatal(err)
	}
	token := secret.Reveal()
	if !regexp.MustCompile(`^cvt_[0-9a-f]{8}_[A-Za-z0-9_-]{43}$`).MatchString(token) {
		t.Errorf("token %q is not of the form cvt_<8 hex>_<43 base64url>", token)
	}
	if TokenID(token) != entry.ID || entry.Name != "laptop" || entry.Created.Before(before) {
		t.Errorf("entry %v does not fit the token %q", entry, token)
	}
	sum := sha256.Sum256([]byte(token))
	if got, want := entry.hash.Reveal(), "sha256:"+hex.EncodeToString(sum[:]); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
	other, _, _ := NewToken(TokenEntry{})
	if other.Equal(secret) {
		t.Error("two tokens are equal")
	}
	if _, _, err := NewToken(TokenEntry{Grant: Grant{Forward: []string{"x"}}}); err == nil {
		t.Error("a token with a malformed grant is made")
	}
}

func TestTokenID(t *testing.T) {
	secret := strings.Repeat("A-_z", 11)[:43]
	tests := []struct {
		name, token, want string
	}{
		{"of the form", "cvt_0123abcd_" + secret, "0123abcd"},
		{"empty", "", ""},
		{"another word", "correct-horse-battery-staple", ""},
		{"only the prefix", "cvt_", ""},
		{"prefix of another", "cvx_0123abcd_" + secret, ""},
		{"upper case id", "cvt_0123ABCD_" + secret, ""},
		{"id of other letters", "cvt_0123abcg_" + secret, ""},
		{"short id", "cvt_0123abc_" + secret + "A", ""},
		{"short secret", "cvt_0123abcd_" + secret[1:], ""},
		{"long secret", "cvt_0123abcd_" + secret + "A", ""},
		{"other separator", "cvt_0123abcd-" + secret, ""},
		{"bad secret", "cvt_0123abcd_" + secret[1:] + "+", ""},
		{"line end", "cvt_0123abcd_" + secret[1:] + "\n", ""},
		{"bytes beyond ASCII", "cvt_0123abcd_" + secret[2:] + "ü", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := TokenID(tt.token); got != tt.want {
				t.Errorf("TokenID(%q) = %q, want %q", tt.token, got, tt.want)
			}
		})
	}
}

func FuzzTokenID(f *testing.F) {
	f.Add("cvt_0123abcd_" + strings.Repeat("A", 43))
	f.Add("cvt_0123abcd")
	f.Fuzz(func(t *testing.T, token string) {
		if id := TokenID(token); id != "" && (len(token) != tokenLength || !strings.HasPrefix(token, "cvt_"+id+"_")) {
			t.Fatalf("TokenID(%q) = %q", token, id)
		}
	})
}
