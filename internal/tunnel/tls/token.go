package tls

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Status is a server's answer to a token.
type Status byte

// The answers. Unknown ones are refusals.
const (
	OK        Status = 0 // the stream is the session's from here on
	Refused   Status = 1 // the token is wrong, missing or not valid any more
	GoingDown Status = 2 // the server takes no new sessions; try again
)

const (
	maxToken = 4096 // bytes
	maxText  = 512  // bytes of an answer's text
)

// Refusal is a server's answer other than OK.
type Refusal struct {
	Status Status
	Text   string // the server's own words: one line, cut
}

func (r *Refusal) Error() string {
	if r.Text == "" {
		return fmt.Sprintf("server answered %d", r.Status)
	}
	return fmt.Sprintf("server answered %d: %s", r.Status, r.Text)
}

// show sends a token and reads the answer to it.
func show(conn io.ReadWriter, token string) error {
	if len(token) > maxToken {
		return fmt.Errorf("the token has %d bytes; at most %d can be sent", len(token), maxToken)
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(token))), token...)); err != nil {
		return err
	}
	var head [3]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	status, length := Status(head[0]), binary.BigEndian.Uint16(head[1:])
	if status == OK && length > maxText { // behind the text the session begins, so that it cannot be cut
		return fmt.Errorf("an answer of %d bytes", length)
	}
	text := make([]byte, min(length, maxText))
	if _, err := io.ReadFull(conn, text); err != nil {
		return err
	}
	if status != OK {
		return &Refusal{status, oneLine(string(text))}
	}
	return nil
}

// oneLine makes a stranger's text fit for a log line.
func oneLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(text, "?")), "\n")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, line)
}

// ReadToken reads the token that a client shows. It reads no byte behind it, and sets no deadline.
func ReadToken(conn io.Reader) (string, error) {
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return "", err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxToken {
		return "", fmt.Errorf("a token of %d bytes", n)
	}
	token := make([]byte, n)
	if _, err := io.ReadFull(conn, token); err != nil {
		return "", err
	}
	return string(token), nil
}

// Answer tells a client what became of its token. The text is cut to 512 bytes.
func Answer(conn io.Writer, status Status, text string) error {
	text = text[:min(len(text), maxText)]
	_, err := conn.Write(append(binary.BigEndian.AppendUint16([]byte{byte(status)}, uint16(len(text))), text...))
	return err
}
