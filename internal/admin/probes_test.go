package admin

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhoAsksAgainAndAgain(t *testing.T) {
	yes, no := error(nil), errors.New("not ready")
	for _, test := range []struct {
		name    string
		answers []error
		pause   time.Duration
		after   time.Duration // the question whether somebody asks regularly
		want    bool
	}{
		{"nobody", nil, 0, 0, false},
		{"a script that waits for the server", []error{no, no, no, yes}, time.Second, 0, false},
		{"a script in a hurry", []error{yes, yes, yes}, 100 * time.Millisecond, 0, false},
		{"a balancer", []error{yes, yes}, 10 * time.Second, 5 * time.Second, true},
		{"a balancer with time", []error{yes, yes, yes}, 2 * time.Minute, time.Minute, true},
		{"a balancer that has gone", []error{yes, yes, yes}, 10 * time.Second, time.Hour, false},
		{"a balancer that hears no", []error{no, no, no}, 10 * time.Second, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var p Probes
			var answer error
			ready := p.Watch(func(string) error { return answer })
			for _, answer = range test.answers {
				if got := ready(""); got != answer {
					t.Errorf("%s: got %v, want %v", test.name, got, answer)
				}
				time.Sleep(test.pause)
			}
			time.Sleep(test.after)
			if got := p.Regular(); got != test.want {
				t.Errorf("%s: regular %v, want %v", test.name, got, test.want)
			}
		})
	}
}
