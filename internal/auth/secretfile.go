package auth

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const maxSecretFile = 64 << 10

// ReadSecretFile reads a secret from a file of one line, without its line end ("\n" or "\r\n"). A file that is missing,
// unreadable, empty, longer than 64 KiB, or not one line of text is an error that names the file and never its content.
func ReadSecretFile(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %w", err)
	}
	s, err := oneLine(string(b))
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %s: %w", path, err)
	}
	return NewSecret(s), nil
}

func oneLine(s string) (string, error) {
	if len(s) > maxSecretFile {
		return "", fmt.Errorf("longer than %d bytes", maxSecretFile)
	}
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	if strings.TrimSpace(s) == "" {
		return "", errors.New("the file is empty")
	}
	// A line break or NUL inside would be refused later by HTTP, with a message that does not lead here.
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) >= 0 {
		return "", errors.New("more than one line, or not text")
	}
	return s, nil
}
