package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const canary = "canary-3f9a-token"

// Security C7: however a secret is printed, also from the unexported field of a struct, it does not show.
func TestSecretDoesNotShow(t *testing.T) {
	s := NewSecret(canary)
	type holder struct {
		Public  Secret
		private Secret
		Pointer *Secret
	}
	h := holder{s, s, &s}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s", "%T", "%p", "%!"} {
		for _, v := range []any{s, &s, h, &h, []Secret{s}, map[string]Secret{"k": s}, fmt.Errorf("wrapped: %v", s)} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	fmt.Fprintln(&out, s, &s, h)
	for _, handler := range []slog.Handler{
		slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil),
	} {
		slog.New(handler).Info("secret", "s", s, "p", &s, "h", h, "list", []Secret{s}, slog.Group("g", "s", s))
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		b, err := marshal(map[string]any{"s": s, "p": &s, "h": h.Public})
		if err != nil {
			t.Error(err)
		}
		out.Write(b)
	}
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), "canary"} {
		if i := strings.Index(out.String(), form); i >= 0 {
			t.Errorf("the secret shows as %q: …%.100q", form, out.String()[max(0, i-50):])
		}
	}
	if !strings.Contains(out.String(), "***") {
		t.Error("*** does not show either")
	}
}

func TestSecretForms(t *testing.T) {
	tests := []struct {
		name, text, want string
		empty            bool
	}{
		{"of some text", canary, "***", false},
		{"of no text", "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewSecret(tt.text)
			text, _ := s.MarshalText()
			asJSON, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			for form, got := range map[string]string{
				"String": s.String(), "GoString": s.GoString(), "%v": fmt.Sprintf("%v", s), "%#v": fmt.Sprintf("%#v", s),
				"MarshalText": string(text), "MarshalJSON": string(bytes.Trim(asJSON, `"`)), "LogValue": s.LogValue().String(),
			} {
				if got != tt.want {
					t.Errorf("%s gives %q, want %q", form, got, tt.want)
				}
			}
			if s.Reveal() != tt.text || s.Empty() != tt.empty {
				t.Errorf("Reveal %q, Empty %v; want %q, %v", s.Reveal(), s.Empty(), tt.text, tt.empty)
			}
		})
	}
	if !(Secret{}).Empty() || (Secret{}).Reveal() != "" {
		t.Error("the zero Secret is not empty")
	}
}

func TestSecretEqual(t *testing.T) {
	a, b := NewSecret("a"), NewSecret("b")
	if !a.Equal(NewSecret("a")) || a.Equal(b) || a.Equal(Secret{}) || !(Secret{}).Equal(NewSecret("")) {
		t.Error("Equal does not say whether the texts are equal")
	}
	if diff := cmp.Diff(a, b); diff == "" || strings.Contains(diff, `"a"`) {
		t.Errorf("cmp.Diff of two secrets = %q, want a difference that does not show them", diff)
	}
}

func TestReadSecretFile(t *testing.T) {
	tests := []struct {
		name, content, want, wantErr string
	}{
		{"no line end", canary, canary, ""},
		{"line end", canary + "\n", canary, ""},
		{"line end of Windows", canary + "\r\n", canary, ""},
		{"spaces are part of it", " a b\t\n", " a b\t", ""},
		{"not ASCII", "pässwörd\n", "pässwörd", ""},
		{"empty", "", "", "the file is empty"},
		{"only a line end", "\n", "", "the file is empty"},
		{"only a line end of Windows", "\r\n", "", "the file is empty"},
		{"only spaces", "  \n", "", "the file is empty"},
		{"two line ends", canary + "\n\n", "", "more than one line, or not text"},
		{"two lines", canary + "\nx\n", "", "more than one line, or not text"},
		{"NUL bytes", "c\x00a\x00", "", "more than one line, or not text"},
		{"too long", strings.Repeat("x", maxSecretFile+1), "", "longer than 65536 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ReadSecretFile(path)
			if got.Reveal() != tt.want {
				t.Errorf("got %q, want %q", got.Reveal(), tt.want)
			}
			want := ""
			if tt.wantErr != "" {
				want = "read secret: " + path + ": " + tt.wantErr
			}
			if message := fmt.Sprint(err); err != nil && message != want || err == nil && want != "" {
				t.Errorf("got error %v, want %q", err, want)
			}
		})
	}
}

func TestReadSecretFileThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{"missing": filepath.Join(dir, "none"), "a folder": dir, "no path": ""} {
		if s, err := ReadSecretFile(path); err == nil || !s.Empty() {
			t.Errorf("%s: got %q, %v; want only an error", name, s.Reveal(), err)
		} else if path != "" && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %q does not name the file", name, err)
		}
	}
}
