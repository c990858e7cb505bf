package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"culvert/internal/nowait"
	"culvert/internal/upstream"
)

// ferry copies a direction between two descriptors, with calls that do not wait: it reads, writes and reads again until
// there is nothing, and only then waits, once for all of that. It holds a buffer only while something is on its way.
type ferry struct {
	d        *direction
	src, dst syscall.RawConn

	step     func(fd uintptr) bool // stepNow, bound once, as those that follow
	put      func(fd uintptr)      // putNow
	putWhole func(fd uintptr) bool // putNow

	buf  *[bufferSize]byte // borrowed; nil while there is nothing
	rest []byte            // what was read and is to be written
	end  error             // why nothing more can be read; io.EOF is what an end looks like
	fail error             // why nothing more can be written
}

// descriptors gives the direction's ferry; nil if a side gives no descriptor.
func (d *direction) descriptors() *ferry {
	if d.ferry != nil || !nowait.Works {
		return d.ferry
	}
	src, ok := rawConn(d.src)
	if !ok {
		return nil
	}
	dst, ok := rawConn(d.dst)
	if !ok {
		return nil
	}
	f := &ferry{d: d, src: src, dst: dst}
	f.step, f.putWhole = f.stepNow, f.putNow
	f.put = func(fd uintptr) { f.putNow(fd) }
	d.ferry = f
	return f
}

func rawConn(c net.Conn) (syscall.RawConn, bool) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil, false
	}
	r, err := s.SyscallConn()
	return r, err == nil
}

// run copies until the source ends, which is nil and nil, or fails or is out of time, or until the destination does not
// listen. While much moves it leaves it to the kernel.
func (f *ferry) run() (readErr, writeErr error) {
	defer f.release()
	for {
		if f.d.heavy() {
			if over, readErr, writeErr := f.d.splice(); over {
				return readErr, writeErr
			}
		}
		if err := f.src.Read(f.step); err != nil { // closed, or out of time
			return err, nil
		}
		if len(f.rest) > 0 && f.fail == nil {
			if err := f.dst.Write(f.putWhole); err != nil {
				return nil, err
			}
		}
		switch {
		case f.fail != nil:
			return nil, opError("write", "sendto", f.d.dst, f.fail)
		case errors.Is(f.end, io.EOF):
			return unlessEnd(upstream.EndOfRead(f.d.src)), nil
		case f.end != nil:
			return opError("read", "recvfrom", f.d.src, f.end), nil
		}
	}
}

// write writes all of p.
func (f *ferry) write(p []byte) error {
	f.rest = p
	err := f.dst.Write(f.putWhole)
	f.rest = nil
	if err == nil && f.fail != nil {
		err = opError("write", "sendto", f.d.dst, f.fail)
	}
	return err
}

// stepsAtOnce is how often at most is read without a look at whether the source was closed meanwhile.
const stepsAtOnce = 64

// stepNow copies what is there. It says whether the wait for more is over: because of an end, or because something is to
// be done that must not be done here, where the source's descriptor is held: its Close waits for us.
func (f *ferry) stepNow(fd uintptr) bool {
	if f.buf == nil {
		f.buf = getBuffer()
	}
	for range stepsAtOnce {
		n, again, err := nowait.Receive(fd, f.buf[:])
		switch {
		case again:
			f.release()
			return false
		case err != nil:
			f.end = err
			return true
		case n == 0:
			f.end = io.EOF
			return true
		}
		f.rest = f.buf[:n]
		f.d.weigh(n)
		if err := f.dst.Control(f.put); err != nil {
			f.fail = err
		}
		if f.fail != nil || len(f.rest) > 0 || f.d.heavy() {
			return true
		}
	}
	return true
}

// putNow writes what the destination takes, and says whether that is all, or all that there will be.
func (f *ferry) putNow(fd uintptr) bool {
	for len(f.rest) > 0 {
		n, again, err := nowait.Send(fd, f.rest)
		if again {
			return false
		}
		if err != nil {
			f.fail = err
			return true
		}
		f.rest = f.rest[n:]
		f.d.moved(n)
	}
	return true
}

func (f *ferry) release() {
	if f.buf != nil {
		putBuffer(f.buf)
		f.buf, f.rest = nil, nil
	}
}

// opError is the error that the connection's own Read or Write would give.
func opError(op, call string, c net.Conn, err error) error {
	return &net.OpError{
		Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(call, err),
	}
}
