package cork

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestTuneSetsTheOptionsOfALink(t *testing.T) {
	_, _, far := pair(t)
	Tune(far)
	raw, err := far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name         string
		option, want int
	}{
		{"unsent bytes", unix.TCP_NOTSENT_LOWAT, 128 << 10},
		{"silence", unix.TCP_USER_TIMEOUT, 10_000},
		{"no delay", unix.TCP_NODELAY, 1},
	} {
		got := 0
		if err := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, tt.option) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: %d, %v, want %d", tt.name, got, err, tt.want)
		}
	}
}
