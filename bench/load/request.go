// Package load makes visitors: small requests, transfers without end, new connections, idle ones.
//
// All of them speak to a service of the service package, straight or through something. What fails is counted, never
// tried again.
package load

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"time"

	"culvert/bench/service"
)

// Head is a request's head for a path.
func Head(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: bench\r\n\r\n" }

// patience is how long a visitor waits for an answer.
const patience = 5 * time.Second

// Request asks for a path with a small answer and reads it.
func Request(c net.Conn, path string) error {
	_, err := exchange(c, path, service.AnswerSize)
	return err
}

// Number asks a service itself for a path whose answer is a number.
func Number(addr, path string) (int64, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	answer, err := exchange(c, path, service.NumberSize)
	if err != nil {
		return 0, err
	}
	return service.ParseNumber(answer)
}

func exchange(c net.Conn, path string, size int) ([]byte, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, Head(path)); err != nil {
		return nil, err
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(c, answer); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		return nil, fmt.Errorf("answer %.40q", answer)
	}
	return answer, nil
}

// Fresh dials, asks once and closes.
func Fresh(addr, path string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	return Request(c, path)
}
