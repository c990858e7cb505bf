package forwardproxy

import (
	"bufio"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
)

// maxAnswer bounds what is read of a proxy's answer.
const maxAnswer = 64 << 10

// answered is an HTTP proxy's answer other than a way through.
type answered struct {
	status int
	text   string
}

func (a *answered) Error() string { return a.text }

// connect asks an HTTP proxy for the way to addr.
func connect(conn net.Conn, via *url.URL, addr string) error {
	req := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{"User-Agent": {"culvert"}},
	}
	if via.User != nil {
		password, _ := via.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	// The server behind waits to be spoken to, so that what is behind the answer is nothing.
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		_ = resp.Body.Close()
		return &answered{resp.StatusCode, resp.Status}
	}
	return nil
}
