package admin

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAnUpgradeIsCountedAsSuch(t *testing.T) {
	counted := make(chan string, 1)
	upgrade := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		_ = c.Close()
	})
	s := httptest.NewServer(Counted(upgrade, func(path string, code int) { counted <- fmt.Sprint(path, " ", code) }))
	defer s.Close()
	res, err := s.Client().Get(s.URL + "/connect")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, want := <-counted, "/connect 101"; got != want {
		t.Errorf("counted %q, want %q", got, want)
	}
}
