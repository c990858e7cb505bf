package mux

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// Redo decodes a frame by the package's own parsers, gives its fields in the words of testdata/vectors.txt, and encodes
// them again by its own encoders; again is nil where the frame is one to skip.
func Redo(frame []byte) (fields string, again []byte, err error) {
	h, err := parseHeader(frame)
	if err != nil {
		return "", nil, err
	}
	body := frame[headerSize:]
	if len(body) != h.length {
		return "", nil, fmt.Errorf("%d bytes of body, the header says %d", len(body), h.length)
	}
	switch h.kind {
	case typeAttach:
		return redoAttach(body)
	case typeAttached:
		a, err := parseAttached(body)
		return fmt.Sprintf("ATTACHED status=%d streams=%d text=%q", a.status, a.maxStreams, a.text), a.append(nil), err
	case typePing, typePong:
		n, err := opaqueOf(body)
		name := map[frameType]string{typePing: "PING", typePong: "PONG"}[h.kind]
		return fmt.Sprintf("%s opaque=%d", name, n), appendPing(nil, h.kind, n), err
	case typeResume:
		return redoResume(body)
	case typeMore:
		return "MORE", appendHeader(nil, typeMore, 0, 0), nil
	case typeClose, typeResult, typeReset:
		return redoCoded(h, body)
	default:
		return redoOffsets(h, body)
	}
}

func redoAttach(body []byte) (string, []byte, error) {
	a, err := parseAttach(body)
	kind := 0
	if a.join {
		kind = 1
	}
	return fmt.Sprintf("ATTACH version=%d kind=%d link=%d session=%x secret=%x streams=%d",
		protocolVersion, kind, a.link, a.session, a.secret, a.maxStreams), a.append(nil), err
}

func redoCoded(h header, body []byte) (string, []byte, error) {
	most, name := maxText, map[frameType]string{typeClose: "CLOSE", typeReset: "RESET", typeResult: "RESULT"}[h.kind]
	if h.kind == typeResult {
		most = maxDetail
	}
	code, text, err := coded(body, most)
	if h.stream != 0 {
		name += fmt.Sprintf(" stream=%d", h.stream)
	}
	return fmt.Sprintf("%s code=%d text=%q", name, code, text), appendCoded(nil, h.kind, h.stream, code, text), err
}

func redoOffsets(h header, body []byte) (string, []byte, error) {
	rest := []byte(nil)
	if h.kind == typeOpen || h.kind == typeData {
		n := min(8, len(body))
		body, rest = body[:n], body[n:]
	}
	n := 1
	if h.kind == typeWindow {
		n = 2
	}
	a, b, err := numbers(body, n)
	switch h.kind {
	case typeOpen:
		return fmt.Sprintf("OPEN stream=%d limit=%d meta=%x", h.stream, a, rest), appendOpen(nil, h.stream, a, rest), err
	case typeReceived:
		return fmt.Sprintf("RECEIVED stream=%d limit=%d", h.stream, a), appendReceived(nil, h.stream, a), err
	case typeData:
		return fmt.Sprintf("DATA stream=%d offset=%d data=%x", h.stream, a, rest),
			append(appendDataHeader(nil, h.stream, a, len(rest)), rest...), err
	case typeWindow:
		return fmt.Sprintf("WINDOW stream=%d acked=%d limit=%d", h.stream, a, b), appendWindow(nil, h.stream, a, b), err
	case typeFin:
		return fmt.Sprintf("FIN stream=%d offset=%d", h.stream, a), appendFin(nil, h.stream, a), err
	}
	if h.kind&skippable != 0 {
		return "skipped", nil, nil
	}
	return "", nil, fmt.Errorf("%w: unknown type", errFrame)
}

// redoResume encodes by a session that is in the state which the frame tells. Only a whole RESUME can be made so.
func redoResume(body []byte) (string, []byte, error) {
	conn, _ := net.Pipe() // gives the session its addresses
	s := newSession(Config{}, false, conn)
	defer s.end(ErrClosed, closeDone)
	var streams []string
	last, lost, err := parseResume(body, func(id uint64, e entry) {
		st := newStream(s, id)
		st.own = s.table.isOwn(id)
		st.decided, st.receive.received, st.receive.limit = e.decided, e.received, e.limit
		s.table.all[id] = st
		flags := resumeKnown
		if e.decided {
			flags |= resumeDecided
		}
		streams = append(streams, fmt.Sprintf("{%d %d %d %d}", id, flags, e.received, e.limit))
	})
	if err != nil {
		return "", nil, err
	}
	fields := fmt.Sprintf("RESUME last=%d lost=%v streams=[%s]", body[0]&resumeLast, append([]uint32{}, lost...), strings.Join(streams, " "))
	if !last {
		return fields, nil, nil
	}
	s.lost = lost
	want := append(appendHeader(nil, typeResume, len(body), 0), body...)
	again := s.appendResume(nil)
	for range 1000 { // the order of streams is anyone's
		if slices.Equal(again, want) {
			break
		}
		again = s.appendResume(nil)
	}
	return fields, again, nil
}
