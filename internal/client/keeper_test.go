package client

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"culvert/internal/tunnel"
)

func TestPauseAfter(t *testing.T) {
	tests := map[string]struct {
		err  error
		want time.Duration
	}{
		"a failure":            {errors.New("refused"), 0},
		"replaced":             {&tunnel.GoAway{Reason: tunnel.Replaced}, time.Minute},
		"the server asks":      {fmt.Errorf("hello: %w", &tunnel.GoAway{Reason: tunnel.Shutdown, After: 5 * time.Second}), 5 * time.Second},
		"the server overdoes":  {&tunnel.GoAway{Reason: tunnel.Shutdown, After: time.Hour}, time.Minute},
		"the server is absurd": {&tunnel.GoAway{Reason: tunnel.Shutdown, After: -time.Hour}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := pauseAfter(tt.err); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
