// Package config is the settings of every command: each one written once, as a field with tags, from which the flag, the
// environment variable, the line of help and the default come.
//
// Precedence is flag, environment, file, default. All that is wrong with a configuration is found at once and told as Problems
// that name the setting, the fault and the remedy, before anything is opened: reading the named files is all that Resolve
// does to the world. Secrets are never quoted in a Problem.
package config

// Mode says which data planes a server or client has.
type Mode string

// The modes.
const (
	HTTP  Mode = "http"
	TCP   Mode = "tcp"
	UDP   Mode = "udp" // of clients alone: a server that carries TCP carries UDP
	Mixed Mode = "mixed"
	LB    Mode = "lb" // what the file has; clients too, if there is a credential for them
)

// HasHTTP says whether the mode carries HTTP by host name.
func (m Mode) HasHTTP() bool { return m == HTTP || m == Mixed }

// HasTCP says whether the mode carries TCP by port.
func (m Mode) HasTCP() bool { return m == TCP || m == Mixed || m == LB }

// HasUDP says whether the mode carries UDP by port.
func (m Mode) HasUDP() bool { return m == UDP || m == Mixed }

// Environment is what a configuration takes from the process it is in.
type Environment struct {
	// Lookup finds an environment variable, as os.LookupEnv does.
	Lookup func(name string) (value string, ok bool)
	// Root says whether the process is the system's administrator.
	Root bool
}

func (e Environment) get(name string) string {
	if e.Lookup == nil {
		return ""
	}
	v, _ := e.Lookup(name)
	return v
}
