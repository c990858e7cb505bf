package pki

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestWriteFileIsNeverSeenInParts(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	old, fresh := bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)
	if err := writeFile(name, old, keyMode); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 20 {
			if err := writeFile(name, [][]byte{fresh, old}[i%2], keyMode); err != nil {
				t.Error(err)
			}
		}
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, old) && !bytes.Equal(got, fresh) {
			t.Fatalf("read %d bytes, neither the old nor the new content: %v", len(got), err)
		}
	}
	wg.Wait()
}

func TestWriteFileThatFailsLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	write(t, filepath.Join(dir, "keep"), "x")
	if err := os.Mkdir(name, 0o755); err != nil { // a folder cannot be replaced by a file
		t.Fatal(err)
	}
	if err := writeFile(name, []byte("x"), keyMode); err == nil {
		t.Error("no error")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("got %v: %v", entries, err)
	}
	if err := writeFile(filepath.Join(dir, "none", "file"), []byte("x"), keyMode); err == nil {
		t.Error("no error for a folder that is not there")
	}
}

func TestWriteFileTightensALooseFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "key")
	write(t, name, "old")
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(name, []byte("new"), keyMode); err != nil {
		t.Fatal(err)
	}
	if exposed(name) {
		t.Error("the file is still readable by others")
	}
}
