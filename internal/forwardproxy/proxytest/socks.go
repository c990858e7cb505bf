package proxytest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
)

// serveSocks does the exchange of RFC 1928 and RFC 1929 for those who know the name and password.
func serveSocks(c net.Conn, name, password string) (net.Conn, error) {
	if _, err := counted(c, 1); err != nil { // version, then the methods
		return nil, err
	}
	if _, err := c.Write([]byte{5, 2}); err != nil {
		return nil, err
	}
	gotName, err := counted(c, 1)
	if err != nil {
		return nil, err
	}
	gotPassword, err := counted(c, 0)
	if err != nil {
		return nil, err
	}
	if string(gotName) != name || string(gotPassword) != password {
		_, _ = c.Write([]byte{1, 1})
		return nil, errors.New("wrong password")
	}
	if _, err := c.Write([]byte{1, 0}); err != nil {
		return nil, err
	}
	addr, err := target(c)
	if err != nil {
		return nil, err
	}
	up, err := net.Dial("tcp", addr)
	status := byte(0)
	if err != nil {
		status = 5
	}
	_, werr := c.Write([]byte{5, status, 0, 1, 0, 0, 0, 0, 0, 0})
	return up, errors.Join(err, werr)
}

// target reads the request: version, command, reserved, address, port.
func target(r io.Reader) (string, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	var host string
	switch head[3] {
	case 1, 4:
		ip := make([]byte, map[byte]int{1: 4, 4: 16}[head[3]])
		if _, err := io.ReadFull(r, ip); err != nil {
			return "", err
		}
		host = net.IP(ip).String()
	default:
		name, err := counted(r, 0)
		if err != nil {
			return "", err
		}
		host = string(name)
	}
	var port [2]byte
	if _, err := io.ReadFull(r, port[:]); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port[:])))), nil
}

// counted skips bytes and reads a field whose length comes first.
func counted(r io.Reader, skip int) ([]byte, error) {
	head := make([]byte, skip+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	field := make([]byte, head[skip])
	_, err := io.ReadFull(r, field)
	return field, err
}
