package mux_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/internal/mux"
)

// vector is one of testdata/vectors.txt.
type vector struct {
	name, from string
	hex        []byte
	is         string // what the frame says; empty for a bad one
	bad        string // why it must be refused
}

// readVectors reads the document's test vectors.
func readVectors(t testing.TB) (all []vector) {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		if strings.HasPrefix(paragraph, "#") {
			continue
		}
		all = append(all, readVector(t, paragraph))
	}
	return all
}

func readVector(t testing.TB, paragraph string) (v vector) {
	t.Helper()
	fields := map[string]string{}
	key := ""
	for line := range strings.Lines(paragraph) {
		if name, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") {
			key, line = name, value
		}
		fields[key] += line
	}
	for k, value := range fields {
		fields[k] = strings.TrimSpace(value)
	}
	var err error
	v.hex, err = hex.DecodeString(strings.Join(strings.Fields(fields["hex"]), ""))
	v.name, v.from, v.is, v.bad = fields["name"], fields["from"], fields["is"], fields["bad"]
	if err != nil || v.name == "" || v.from == "" || (v.is == "") == (v.bad == "") || len(v.hex) < 12 {
		t.Fatalf("vector %q: %v, %v", v.name, fields, err)
	}
	return v
}

// TestVectors decodes and encodes the document's frames by the package, and by the second implementation of these tests.
func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			fields, again, err := mux.Redo(v.hex)
			if v.bad != "" {
				if err == nil {
					t.Errorf("%x was read as %s, but: %s", v.hex, fields, v.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if fields != v.is {
				t.Errorf("read as %s\nwant    %s", fields, v.is)
			}
			if again != nil && !bytes.Equal(again, v.hex) {
				t.Errorf("written as %x\nwant       %x", again, v.hex)
			}
			f, err := readFrame(bytes.NewReader(v.hex))
			if err != nil || !bytes.Equal(f.bytes(), v.hex) {
				t.Errorf("the tests' own framing reads %s, %v", f, err)
			}
			if name, _, _ := strings.Cut(v.is, " "); name != "skipped" && name != typeNames[f.typ] {
				t.Errorf("the tests' own framing takes %s for %s", name, typeNames[f.typ])
			}
		})
	}
}

// TestBadVectorsEndSessions sends each bad vector to a session: on a link in use, or as its first frame.
func TestBadVectorsEndSessions(t *testing.T) {
	for _, v := range readVectors(t) {
		if v.bad == "" {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if v.hex[0] == tAttach {
					near, far := newCable(cableConfig{})
					_, _ = near.Write(v.hex)
					if _, err := mux.Greet(far, time.Second); err == nil {
						t.Error("greeted")
					}
					return
				}
				p, s := dialTo(t, mux.Config{}, newSession())
				p.send(asks(1, 1<<20, "m"), asks(3, 1<<20, "m"))
				if _, err := p.conn.Write(v.hex); err != nil {
					t.Fatal(err)
				}
				p.mustBeCutOff(t, s)
			})
		})
	}
}
