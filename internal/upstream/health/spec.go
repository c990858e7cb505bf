package health

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Parse reads a check in the form of a flag:
//
//	tcp                            connect
//	tcp:8081                       connect to another port
//	http, http:/healthz            GET a path; 200 to 399 is right
//	http:8081/healthz              at another port
//	expect:SEND|ANSWER             send, and find ANSWER in what comes back
//	expect:SSH-2.0                 find it in what the service says first
//	udp:SEND|ANSWER                the same with datagrams
//
// In SEND and ANSWER, \r \n \t \0 \\ \| and \xHH mean what they mean in C.
func Parse(spec string) (Check, error) {
	kind, rest, more := strings.Cut(spec, ":")
	c := Check{Kind: Kind(kind)}
	var err error
	switch {
	case c.Kind == TCP && more:
		c.Port, err = parsePort(rest)
	case c.Kind == HTTP:
		port, path, slash := strings.Cut(rest, "/")
		if slash {
			c.Path = "/" + path
		}
		if port != "" {
			c.Port, err = parsePort(port)
		}
	case c.Kind == Expect || c.Kind == UDP:
		err = c.parseTexts(rest)
	}
	if err != nil {
		return Check{}, err
	}
	return c, c.Validate()
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%.100q is not a port; write tcp, tcp:PORT, http:/PATH or http:PORT/PATH", s)
	}
	return uint16(n), nil
}

// parseTexts reads SEND|ANSWER, or ANSWER alone.
func (c *Check) parseTexts(s string) error {
	parts, err := unescape(s)
	switch {
	case err != nil:
		return err
	case len(parts) > 2:
		return errors.New(`more than one '|'; write \| for one that is sent or expected`)
	case len(parts) == 2:
		c.Send, c.Expect = parts[0], parts[1]
	case c.Kind == UDP:
		c.Send = parts[0]
	default:
		c.Expect = parts[0]
	}
	if c.Kind == Expect && c.Send+c.Expect == "" {
		return errors.New(`write expect:SEND|ANSWER, as in expect:PING\r\n|+PONG, or expect:ANSWER if the service speaks first`)
	}
	return nil
}

// unescape cuts at each '|' that no backslash stands before, and reads the escapes.
func unescape(s string) ([]string, error) {
	parts, b := []string(nil), []byte(nil)
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '|':
			parts, b = append(parts, string(b)), nil
			continue
		case s[i] != '\\':
			b = append(b, s[i])
			continue
		case i+1 == len(s):
			return nil, errors.New(`ends with a backslash; write \\ for one`)
		}
		i++
		if j := strings.IndexByte(`rnt0\|`, s[i]); j >= 0 {
			b = append(b, "\r\n\t\x00\\|"[j])
			continue
		}
		if s[i] != 'x' || i+2 >= len(s) {
			return nil, fmt.Errorf(`\%c is unknown; use \r \n \t \0 \\ \| or \xHH`, s[i])
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return nil, fmt.Errorf(`%q is not \x and two hexadecimal digits`, s[i-1:i+3])
		}
		b = append(b, byte(n))
		i += 2
	}
	return append(parts, string(b)), nil
}

// String is the check as Parse reads it, as far as a flag can say it.
func (c Check) String() string {
	port := ""
	if c.Port != 0 {
		port = strconv.Itoa(int(c.Port))
	}
	switch {
	case c.Kind == HTTP && port+c.Path != "":
		return "http:" + port + c.Path
	case c.Kind == TCP && port != "":
		return "tcp:" + port
	case c.Kind == Expect && c.Send == "":
		return "expect:" + escape(c.Expect)
	case c.Kind == UDP && c.Expect == "":
		return "udp:" + escape(c.Send)
	case c.Kind == Expect || c.Kind == UDP:
		return string(c.Kind) + ":" + escape(c.Send) + "|" + escape(c.Expect)
	}
	return string(c.Kind)
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch j := strings.IndexByte("\r\n\t\x00\\|", s[i]); {
		case j >= 0:
			b.WriteByte('\\')
			b.WriteByte(`rnt0\|`[j])
		case s[i] < ' ' || s[i] >= 0x7f:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
