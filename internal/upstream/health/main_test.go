package health

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asService makes the test binary a service that says hello and echoes lines, for tests that need a process to stop.
const asService = "CULVERT_TEST_HEALTH_SERVICE"

func TestMain(m *testing.M) {
	if os.Getenv(asService) != "" {
		serve()
		return
	}
	goleak.VerifyTestMain(m)
}

func serve() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	fmt.Fprintln(os.Stdout, ln.Addr())
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprint(c, "hello\r\n")
			lines := bufio.NewScanner(c)
			for lines.Scan() {
				fmt.Fprintf(c, "you said %s\r\n", lines.Text())
			}
		}()
	}
}
