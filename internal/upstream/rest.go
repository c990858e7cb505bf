package upstream

// Rest hands the read side of c, the connection that f reads, to a relay: the Conn's reads begin with the bytes and the
// end that f holds, and go on with c's own. If sent, the bytes have been sent to the service already and are left out.
// It does not wait for f; its first Read does.
func (f *First) Rest(c Conn, sent bool) Conn { return &rest{Conn: c, first: f, sent: sent} }

type rest struct {
	Conn
	first *First // nil once its bytes have been taken
	sent  bool
	bytes []byte
	err   error
}

// Read is for one reader, as a relay is.
func (r *rest) Read(p []byte) (int, error) {
	if r.first != nil {
		r.bytes, r.err = r.first.Bytes()
		if r.sent {
			r.bytes = nil
		}
		r.first = nil // its buffer is not needed for the rest of the connection
	}
	if len(r.bytes) > 0 {
		n := copy(p, r.bytes)
		if r.bytes = r.bytes[n:]; len(r.bytes) == 0 {
			r.bytes = nil
		}
		return n, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	return r.Conn.Read(p)
}
