package demo

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What the demo calls failed is its whole point: an error that another client could have kept from the visitor.
func TestVerdict(t *testing.T) {
	fault := errors.New("the connection was reset")
	for _, tt := range []struct {
		name      string
		since     time.Duration // of the kill; below zero if there was none
		took      time.Duration
		err       error
		mayBeCut  bool
		wantError bool
	}{
		{"all is well", 0, time.Millisecond, nil, true, false},
		{"a connection fails and nobody was killed", -1, time.Millisecond, fault, true, true},
		{"a connection is cut by the kill", cutWindow / 2, time.Millisecond, fault, true, false},
		{"a connection of before the kill fails when the client is back", 3 * cutWindow, 3 * cutWindow, fault, true, false},
		{"a connection fails long after the kill", 2 * cutWindow, time.Millisecond, fault, true, true},
		{"a request fails at the kill", 0, time.Millisecond, fault, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLoad(nil)
				if tt.since >= 0 {
					l.cut()
					time.Sleep(tt.since)
				}
				l.note(&l.tcp, "one", 5, tt.took, tt.err, tt.mayBeCut)
				err := l.summary().verdict()
				if got := err != nil; got != tt.wantError {
					t.Errorf("the verdict is %v", err)
				}
				if err != nil && !strings.Contains(err.Error(), fault.Error()) {
					t.Errorf("the verdict %q does not say what failed", err)
				}
			})
		})
	}
}
