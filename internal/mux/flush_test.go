package mux

import (
	"bytes"
	"io"
	"testing"
)

func TestCloseAfterFlushTakesNothingBack(t *testing.T) {
	for range 50 { // what is in the queue when the connection is closed is a matter of luck
		client, server := pair(t, Config{})
		a, b := open(t, client, server)
		sent := bytes.Repeat([]byte("x"), 100<<10)
		if _, err := a.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		client.Close(nil)
		got, err := io.ReadAll(b)
		if err != nil || len(got) != len(sent) {
			t.Fatalf("read %d bytes of %d, %v", len(got), len(sent), err)
		}
		_ = b.Reset()
		server.Close(nil)
	}
}

func TestFlushOfASessionThatIsGone(t *testing.T) {
	client, server := pair(t, Config{})
	if err := client.Flush(t.Context()); err != nil {
		t.Errorf("peer whose user accepts nothing: %v", err)
	}
	server.Close(nil)
	<-client.Done()
	if err := client.Flush(t.Context()); err == nil {
		t.Error("peer that is gone: no error")
	}
}
