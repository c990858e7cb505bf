//go:build linux

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"testing"
	"time"
)

// An SSH session and a copy do not end with the connection that carries them.
func TestSSHAndCopyOutliveOutages(t *testing.T) {
	need(t, "sshd", "ssh", "ssh-keygen", "scp")
	if long() {
		need(t, "nft")
	}
	size := int64(256 << 20)
	if long() {
		size = 1 << 30
	}
	if raceEnabled {
		size = 64 << 20 // the detector makes it ten times slower
	}
	service := startSSHD(t)
	s := startServer(t)
	relay := startCutter(t, s.control)
	cuts, each := outages(t, relay, s.control)
	tunnel := freeAddr(t)
	c := s.clientBy(t, "wss://"+relay.addr, "tcp client", "--upstream", port(t, tunnel)+"="+service.addr)
	accepts(t, "tcp", tunnel)

	sh := startShell(t, service, tunnel)
	cp := startCopy(t, service, tunnel, size)
	server, client := watchMemory(t, s.process), watchMemory(t, c)
	begin := time.Now()
	for i, cut := range cuts {
		cp.reaches(t, size/int64(len(cuts)+1)*int64(i)+size/int64(2*len(cuts)+2))
		before := cp.copied()
		t.Logf("%.0f MB/s before cut %d", cp.rate(), i+1)
		cut.begin(t)
		typed := sh.typeIn(t) // a person does not know
		lasts(t, each)
		cut.end(t)
		mended, during := time.Now(), cp.copied()
		if long() && during-before > 64<<20 { // more than can have been on the way
			t.Errorf("cut %d: %s were copied meanwhile: it is no cut", i+1, mebibytes(during-before))
		}
		cp.reaches(t, during+1)
		copies := time.Since(mended)
		cp.rate()
		if pid := sh.answered(t, typed); pid != sh.pid {
			t.Errorf("process %s answers what was typed while it was cut, it was %s", pid, sh.pid)
		}
		t.Logf("cut %d, %s for %v at %s: scp goes on %v after its end, the shell's answer is there after %v",
			i+1, cut.name, each, mebibytes(before), copies, time.Since(mended))
	}
	cp.arrives(t)
	t.Logf("%.0f MB/s after the last cut", cp.rate())
	t.Logf("%s in %v, the cuts included; an echo at the end takes %v", mebibytes(size), time.Since(begin), sh.echoes(t))
	server.grewAtMost(t, "server", 64<<20)
	client.grewAtMost(t, "client", 64<<20)
	sh.leave(t)
	s.settlesWithout(t, c) // a link that came for the load may stay as long as the client
}

func fileHash(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
