// Command culvert is a reverse tunnel: it brings private HTTP and TCP services to a public server.
package main

import (
	"os"

	"culvert/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
