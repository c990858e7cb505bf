// Package admin answers what an operator asks a running process: status, metrics, health and readiness.
//
// Status, metrics and questions to the API are for bearers whose grant lets them read, changes by the API for those who may
// administer; health and readiness are for anyone, and an answer to someone unknown ends the connection, because such
// connections are few. It knows nothing of tunnels: what it shows is handed to it, and what is to change it hands on.
package admin

import "time"

// Status is what a process is doing. Its first fields are those of other tunnels' status, under the same names; more
// may follow them.
type Status struct {
	Info    Info     `json:"info"`
	Clients []Client `json:"clients"`

	Entrypoints []Entrypoint `json:"entrypoints,omitempty"`
	Upstreams   []Upstream   `json:"upstreams,omitempty"`
	Diverts     []Divert     `json:"diverts,omitempty"`
}

// Info describes the process.
type Info struct {
	Version   string    `json:"version"`
	SHA       string    `json:"sha"`
	Mode      string    `json:"mode"` // http, tcp or mixed
	StartTime time.Time `json:"startTime"`
	Hostname  string    `json:"hostname"`
}

// Client is a client that is connected.
type Client struct {
	ClientID   string    `json:"clientID"`
	RemoteAddr string    `json:"remoteAddr"`
	Since      time.Time `json:"since"`
	Upstreams  []string  `json:"upstreams"` // "*=http://127.0.0.1:8080", "localhost:22", "2222=host:22"

	Instance   string            `json:"instance,omitempty"` // tells apart two clients of one id
	Labels     map[string]string `json:"labels,omitempty"`
	Tunnels    []Tunnel          `json:"tunnels,omitempty"`
	RTTMillis  float64           `json:"rttMillis"`
	Links      int               `json:"links"`      // connections in use; 0 while the client is out of reach
	Streams    int               `json:"streams"`    // open now
	Resumes    int64             `json:"resumes"`    // losses of a connection that its streams have survived
	Reconnects uint64            `json:"reconnects"` // since the client's process began
}

// Tunnel is one thing that a client offers.
type Tunnel struct {
	Name    string `json:"name"`              // "http/app.example.com", "tcp/2222"
	Address string `json:"address,omitempty"` // where visitors reach it
	Down    string `json:"down,omitempty"`    // why the client's check says that its service is down
}
