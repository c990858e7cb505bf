package auth

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// watched runs a Verifier in a synctest bubble, where time passes only while everyone waits: the file is real, the seconds are
// not.
type watched struct {
	*Verifier
	tokenFileFor
	log *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func inBubble(t *testing.T, shared Secret, test func(t *testing.T, w watched)) {
	t.Helper()
	file := newTokenFileFor(t)
	synctest.Test(t, func(t *testing.T) {
		w := watched{tokenFileFor: file, log: new(logBuffer)}
		w.Verifier = mustVerifier(t, Config{Shared: shared, File: file.path, Log: slog.New(slog.NewTextHandler(w.log, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		test(t, w)
		cancel()
		wg.Wait()
	})
}

// poll waits until Run has looked at the file.
func (w watched) poll() {
	time.Sleep(pollInterval + time.Millisecond)
	synctest.Wait()
}

// logged is how many lines of the log have the text.
func (w watched) logged(text string) int { return strings.Count(w.log.String(), text) }

func TestRunFollowsTheFile(t *testing.T) {
	inBubble(t, NewSecret(canary), func(t *testing.T, w watched) {
		shared, err := w.Verify(canary)
		if err != nil {
			t.Fatal(err)
		}
		token := w.add("laptop", TokenEntry{Grant: Grant{Ports: mustPorts(t, "2222")}})
		if _, err := w.Verify(token); !errors.Is(err, ErrUnknownToken) {
			t.Errorf("before the file was read: got %v, want %v", err, ErrUnknownToken)
		}
		w.poll()
		b, err := w.Verify(token)
		if err != nil {
			t.Fatal(err)
		}

		// A changed grant reaches a bearer that was verified before.
		if err := b.Permit(OfferPort(80)); err == nil {
			t.Error("port 80 is permitted before the change")
		}
		write(t, w.path, strings.Replace(w.content(), `"2222"`, `"80"`, 1))
		w.poll()
		if err := b.Permit(OfferPort(80)); err != nil {
			t.Error(err)
		}
		if err := b.Permit(OfferPort(2222)); err == nil {
			t.Error("port 2222 is permitted after the change")
		}

		w.revoke("laptop")
		w.poll()
		if err := b.Permit(OfferPort(80)); !errors.Is(err, ErrRevoked) {
			t.Errorf("Permit after revocation: got %v, want %v", err, ErrRevoked)
		}
		if err := b.Valid(); !errors.Is(err, ErrRevoked) {
			t.Errorf("Valid after revocation: got %v, want %v", err, ErrRevoked)
		}
		if _, err := w.Verify(token); !errors.Is(err, ErrUnknownToken) {
			t.Errorf("Verify after revocation: got %v, want %v", err, ErrUnknownToken)
		}
		if shared.Valid() != nil {
			t.Error("the shared token is no longer valid")
		}
		if got := w.logged("token file read"); got != 3 {
			t.Errorf("logged %d times that the file was read, want 3:\n%s", got, w.log)
		}
		if w.logged(token) > 0 || w.logged("sha256:") > 0 {
			t.Errorf("the log shows a token or its hash:\n%s", w.log)
		}
	})
}

func TestAnotherTokenUnderTheSameIDIsNotTheBearers(t *testing.T) {
	inBubble(t, Secret{}, func(t *testing.T, w watched) {
		token := w.add("a", TokenEntry{Grant: Everything()})
		w.poll()
		b, err := w.Verify(token)
		if err != nil {
			t.Fatal(err)
		}
		id := TokenID(token)
		w.revoke(id)
		if err := AppendToken(w.path, TokenEntry{ID: id, hash: NewSecret(someHash), Grant: Everything()}); err != nil {
			t.Fatal(err)
		}
		w.poll()
		if err := b.Permit(Read()); !errors.Is(err, ErrRevoked) {
			t.Errorf("got %v, want %v", err, ErrRevoked)
		}
	})
}

func TestABrokenFileLeavesTheOldTokensInForce(t *testing.T) {
	inBubble(t, Secret{}, func(t *testing.T, w watched) {
		token := w.add("a", TokenEntry{Grant: Everything()})
		w.poll()
		good := w.content()
		stillGood := func(when string) {
			t.Helper()
			for range 3 {
				w.poll()
			}
			if _, err := w.Verify(token); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}

		write(t, w.path, good+"    colour: red\n")
		stillGood("not in order")
		if got := w.logged("field colour not found"); got != 1 {
			t.Errorf("logged the fault %d times in three looks, want once:\n%s", got, w.log)
		}
		if !strings.Contains(w.log.String(), w.path+":") {
			t.Errorf("the log does not name file and line:\n%s", w.log)
		}

		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		stillGood("missing")
		if got := w.logged("no such file"); got != 1 {
			t.Errorf("logged %d times that the file is missing, want once:\n%s", got, w.log)
		}

		write(t, w.path, good)
		stillGood("there again")
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		stillGood("missing again")
		if got := w.logged("no such file"); got != 2 {
			t.Errorf("logged %d times that the file is missing, want twice:\n%s", got, w.log)
		}

		write(t, w.path, "tokens: []\n")
		w.poll()
		if _, err := w.Verify(token); !errors.Is(err, ErrUnknownToken) {
			t.Errorf("after the file came back empty: got %v, want %v", err, ErrUnknownToken)
		}
	})
}

func TestRunWarnsOfAFileOpenToOthers(t *testing.T) {
	inBubble(t, Secret{}, func(t *testing.T, w watched) {
		const warning = "token file is open to others"
		w.poll()
		if w.logged(warning) > 0 {
			t.Errorf("a warning of a file with mode 0600:\n%s", w.log)
		}
		if err := os.Chmod(w.path, 0o640); err != nil {
			t.Fatal(err)
		}
		write(t, w.path, "tokens: [] # changed\n")
		w.poll()
		if got := w.logged(warning); got != 1 {
			t.Errorf("%d warnings of a file with mode 0640, want one:\n%s", got, w.log)
		}
	})
}

func TestRunWithoutAFileWaitsForItsEnd(t *testing.T) {
	v := mustVerifier(t, Config{Shared: NewSecret(canary)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// An old file that looks the same is not read again; one that changed within the file system's tick of its last read is.
func TestUnchangedFilesAreNotRead(t *testing.T) {
	f := newTokenFileFor(t)
	old := time.Now().Add(-time.Hour)
	age := func() {
		t.Helper()
		if err := os.Chtimes(f.path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	age()
	w := watchedFile{path: f.path}
	for i, want := range []bool{true, false, false} {
		if _, changed, err := w.read(); changed != want || err != nil {
			t.Errorf("look %d: changed %v, %v; want %v", i, changed, err, want)
		}
	}
	if info, err := os.Stat(f.path); err != nil || !w.same(info) {
		t.Errorf("a file as it was an hour ago is not the same (%v)", err)
	}

	fresh := time.Now()
	write(t, f.path, "tokens: [] #1\n")
	if err := os.Chtimes(f.path, fresh, fresh); err != nil {
		t.Fatal(err)
	}
	if _, changed, err := w.read(); !changed || err != nil {
		t.Errorf("a new content: changed %v, %v", changed, err)
	}
	write(t, f.path, "tokens: [] #2\n")
	if err := os.Chtimes(f.path, fresh, fresh); err != nil {
		t.Fatal(err)
	}
	if _, changed, err := w.read(); !changed || err != nil {
		t.Errorf("a new content of the same size and time: changed %v, %v", changed, err)
	}
}

func TestPermitWhileTheFileChanges(t *testing.T) {
	f := newTokenFileFor(t)
	token := f.add("a", TokenEntry{Grant: Everything()})
	v := mustVerifier(t, Config{File: f.path})
	b, err := v.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	content := []byte(f.content())
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if err := b.Permit(Read()); err != nil {
					t.Error(err)
				}
				if _, err := v.Verify(token); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		if err := v.load(content); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
