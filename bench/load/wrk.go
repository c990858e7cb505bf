package load

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"culvert/bench/proc"
)

// Keepalive is what wrk tells of one run.
type Keepalive struct {
	Requests  int64
	PerSecond float64
	P50, P99  time.Duration
}

// Wrk runs wrk with keep-alive connections for whole seconds. Answers other than a success and broken connections are
// an error.
func Wrk(ctx context.Context, addr string, conns int, during time.Duration) (Keepalive, error) {
	out, err := proc.Run(ctx, "wrk", "-t1", fmt.Sprintf("-c%d", conns), fmt.Sprintf("-d%ds", int(during.Seconds())), "--latency", "http://"+addr+"/")
	if err != nil {
		return Keepalive{}, err
	}
	return parseWrk(out)
}

func parseWrk(out string) (Keepalive, error) {
	var k Keepalive
	if m := regexp.MustCompile(`Socket errors:.*|Non-2xx.*`).FindString(out); m != "" {
		return k, errors.New("wrk: " + m)
	}
	total := regexp.MustCompile(`(?m)^\s*(\d+) requests in `).FindStringSubmatch(out)
	rate := regexp.MustCompile(`(?m)^Requests/sec:\s+([\d.]+)`).FindStringSubmatch(out)
	if total == nil || rate == nil {
		return k, fmt.Errorf("wrk said %.200q", out)
	}
	k.Requests, _ = strconv.ParseInt(total[1], 10, 64)
	k.PerSecond, _ = strconv.ParseFloat(rate[1], 64)
	for _, m := range regexp.MustCompile(`(?m)^\s+(50|99)%\s+([\d.]+(?:us|ms|s|m))$`).FindAllStringSubmatch(out, -1) {
		d, err := time.ParseDuration(m[2])
		if err != nil {
			return k, fmt.Errorf("wrk: %w", err)
		}
		if m[1] == "50" {
			k.P50 = d
		} else {
			k.P99 = d
		}
	}
	return k, nil
}
