//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// A visitor sends HTTP requests to an entrypoint, whatever host they name.
type visitor struct {
	addr   string
	client *http.Client
}

// newVisitor keeps connections, one a worker, until the test ends.
func newVisitor(t *testing.T, addr string) *visitor {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &visitor{addr, &http.Client{Transport: transport, Timeout: 2 * time.Minute}}
}

// get reads a whole answer.
func (v *visitor) get(ctx context.Context, host, path string) (code int, body string, header http.Header, err error) {
	return v.do(ctx, http.MethodGet, host, path, nil)
}

func (v *visitor) do(ctx context.Context, method, host, path string, send io.Reader) (code int, body string, header http.Header, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+v.addr+path, send)
	if err != nil {
		return 0, "", nil, err
	}
	r.Host = host
	resp, err := v.client.Do(r)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header, err
}

// answers waits until the host and path give a code.
func (v *visitor) answers(t *testing.T, host, path string, code int) {
	t.Helper()
	eventually(t, patience, fmt.Sprintf("%s%s answers %d", host, path, code), func(ctx context.Context) error {
		got, body, _, err := v.get(ctx, host, path)
		if err == nil && got != code {
			err = fmt.Errorf("%d %.200s", got, body)
		}
		return err
	})
}

// must200 is the body of a GET that has to succeed.
func (v *visitor) must200(t *testing.T, host, path string) string {
	t.Helper()
	code, body, _, err := v.get(t.Context(), host, path)
	if err == nil && code != http.StatusOK {
		err = errors.New(body)
	}
	if err != nil {
		t.Fatalf("GET %s%s: %d %v", host, path, code, err)
	}
	return body
}
