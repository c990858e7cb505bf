package client

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func TestRestartedClientIsTheSameInstanceWithANewerEpoch(t *testing.T) {
	dir := t.TempDir()
	first, release := TakeIdentity(dir, "", quiet)
	release()
	second, release := TakeIdentity(dir, "", quiet)
	release()
	if second.ID != first.ID || second.Instance != first.Instance || second.Epoch <= first.Epoch {
		t.Errorf("first %+v, second %+v", first, second)
	}
}

func TestClockThatWentBackDoesNotAgeTheEpoch(t *testing.T) {
	dir := t.TempDir()
	future := Identity{ID: "shop", Instance: "i", Epoch: uint64(time.Now().Add(24 * time.Hour).UnixNano())}
	if err := writeIdentity(filepath.Join(dir, identityFile), future); err != nil {
		t.Fatal(err)
	}
	got, release := TakeIdentity(dir, "", quiet)
	defer release()
	if got.Epoch != future.Epoch+1 {
		t.Errorf("epoch %d, want %d", got.Epoch, future.Epoch+1)
	}
}

func TestTwoProcessesOfOneFolderAreTwoInstances(t *testing.T) {
	dir := t.TempDir()
	first, release := TakeIdentity(dir, "", quiet)
	second, releaseSecond := TakeIdentity(dir, "", quiet)
	if second.ID != first.ID || second.Instance == first.Instance {
		t.Errorf("first %+v, second %+v: want one id and two instances", first, second)
	}
	releaseSecond()
	release()
	third, release := TakeIdentity(dir, "", quiet)
	defer release()
	if third.Instance != first.Instance {
		t.Error("the folder's instance was lost")
	}
}

func TestGivenIDHoldsForTheProcessAndNotForTheFolder(t *testing.T) {
	dir := t.TempDir()
	stored, release := TakeIdentity(dir, "", quiet)
	release()
	given, release := TakeIdentity(dir, "shop", quiet)
	release()
	again, release := TakeIdentity(dir, "", quiet)
	defer release()
	if given.ID != "shop" || given.Instance != stored.Instance || again.ID != stored.ID {
		t.Errorf("stored %+v, given %+v, again %+v", stored, given, again)
	}
}

func TestClientWorksWithoutAUsableFolder(t *testing.T) {
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, identityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"none": "", "not to be made": "/proc/culvert", "broken file": broken} {
		t.Run(name, func(t *testing.T) {
			got, release := TakeIdentity(dir, "", quiet)
			defer release()
			if got.ID == "" || got.Instance == "" || got.Epoch == 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
	if p, _ := os.ReadFile(filepath.Join(broken, identityFile)); string(p) != "{" {
		t.Error("a file that could not be read was replaced")
	}
}

func TestBackoffGrowsToItsCapWithFullJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b backoff
		var waits []time.Duration
		for range 200 {
			most := b.ceiling()
			begun := time.Now()
			if !b.wait(t.Context()) {
				t.Fatal("the context has not ended")
			}
			took := time.Since(begun)
			if took <= 0 || took > most || most > maxDelay {
				t.Fatalf("waited %s, ceiling %s", took, most)
			}
			waits = append(waits, took)
		}
		if b.ceiling() != maxDelay {
			t.Errorf("ceiling after 200 failures: %s", b.ceiling())
		}
		if maxDelay > 4*time.Second {
			t.Errorf("a client may wait %s: it is not back within 5 s of its server", maxDelay)
		}
		var early bool
		for _, w := range waits[10:] {
			early = early || w < maxDelay/4
		}
		if !early {
			t.Error("no wait in the first quarter: that is no full jitter")
		}
		b.reset()
		if b.ceiling() != firstDelay {
			t.Errorf("ceiling after a reset: %s", b.ceiling())
		}
	})
}
