// Package service is what the tunnels of the benchmark lead to: an HTTP/1.1 server that costs next to nothing.
//
//	GET /          AnswerSize bytes in all, keep-alive
//	GET /down      a body without end
//	POST /up       a body without end, counted
//	GET /counted   bytes of /up so far, as 20 digits
//	GET /once/N    like /, and counts how often each N was asked
//	GET /twice     how many N were asked more than once, as 20 digits
//	GET /packets   datagrams so far, as 20 digits
//
// A goroutine a connection, a read and a write a request. Requests are not pipelined, and it is no server for strangers.
package service

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// Endless is the length that bodies without end claim.
const Endless = 1 << 50

// digits is the length of a number's body.
const digits = 20

const answerHead = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n"

// AnswerSize is the length of the small answer, head and body.
const AnswerSize = len(answerHead) + 128

// NumberSize is the length of an answer that is a number, head and body.
const NumberSize = len("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n") + digits

// ParseNumber reads an answer that is a number.
func ParseNumber(answer []byte) (int64, error) {
	if len(answer) != NumberSize {
		return 0, fmt.Errorf("answer of %d bytes, want %d", len(answer), NumberSize)
	}
	return strconv.ParseInt(string(answer[NumberSize-digits:]), 10, 64)
}

// Service is a running service.
type Service struct {
	answer   []byte
	uploaded atomic.Int64
	packets  atomic.Int64

	mu    sync.Mutex
	asked map[string]int // of /once
	twice int64
}

// New makes a service.
func New() *Service {
	return &Service{answer: append([]byte(answerHead), bytes.Repeat([]byte{'x'}, 128)...), asked: map[string]int{}}
}

// Serve serves connections until accepting fails.
func (s *Service) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.serve(c)
	}
}

// ServePackets counts datagrams until reading fails. It answers none.
func (s *Service) ServePackets(c net.PacketConn) error {
	buf := make([]byte, 64<<10)
	for {
		if _, _, err := c.ReadFrom(buf); err != nil {
			return err
		}
		s.packets.Add(1)
	}
}

const chunk = 128 << 10

func (s *Service) serve(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 2048)
	have := 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		end := bytes.Index(buf[:have], []byte("\r\n\r\n"))
		if end < 0 {
			if have == len(buf) {
				return
			}
			continue
		}
		if err := s.request(c, buf[:end], have-end-4); err != nil {
			return
		}
		have = 0
	}
}

// request answers one request; early is how much of its body came with its head.
func (s *Service) request(c net.Conn, head []byte, early int) error {
	switch {
	case bytes.HasPrefix(head, []byte("GET / ")):
		_, err := c.Write(s.answer)
		return err
	case bytes.HasPrefix(head, []byte("GET /once/")):
		id, _, _ := bytes.Cut(head[len("GET /once/"):], []byte{' '})
		s.count(string(id))
		_, err := c.Write(s.answer)
		return err
	case bytes.HasPrefix(head, []byte("GET /down")):
		return down(c)
	case bytes.HasPrefix(head, []byte("POST /up")):
		s.uploaded.Add(int64(early))
		return s.up(c)
	case bytes.HasPrefix(head, []byte("GET /counted")):
		return number(c, s.uploaded.Load())
	case bytes.HasPrefix(head, []byte("GET /packets")):
		return number(c, s.packets.Load())
	case bytes.HasPrefix(head, []byte("GET /twice")):
		s.mu.Lock()
		defer s.mu.Unlock()
		return number(c, s.twice)
	default:
		return fmt.Errorf("unknown request %.40q", head)
	}
}

func (s *Service) count(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[id]++
	if s.asked[id] == 2 {
		s.twice++
	}
}

func number(c net.Conn, n int64) error {
	_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%0*d", digits, digits, n)
	return err
}

func down(c net.Conn) error {
	if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", int64(Endless)); err != nil {
		return err
	}
	body := make([]byte, chunk)
	for i := range body {
		body[i] = byte(i * 7)
	}
	for {
		if _, err := c.Write(body); err != nil {
			return err
		}
	}
}

func (s *Service) up(c net.Conn) error {
	buf := make([]byte, chunk)
	for {
		n, err := c.Read(buf)
		s.uploaded.Add(int64(n))
		if err != nil {
			return err
		}
	}
}
