package config

import (
	"net"
	"slices"
	"strconv"

	"culvert/internal/config/file"
	"culvert/internal/config/plan"
)

// control is the socket that clients connect to, web that of visitors of HTTP.
func (l *Listen) control() plan.Socket {
	return plan.Socket{Network: "tcp", Addr: joinPort(l.ControlAddr, l.ControlPort), What: "the control port (control_port)"}
}

func (l *Listen) web() plan.Socket {
	return plan.Socket{Network: "tcp", Addr: joinPort(l.DataAddr, l.Port), What: "the HTTP port (port)"}
}

// own are the sockets that the settings open and that are no entrypoints of the plan.
func (s *Server) own() (own []plan.Socket) {
	if s.HasControl() {
		own = append(own, s.control())
	}
	if s.Mode.HasHTTP() {
		own = append(own, s.web())
	}
	if host, port, err := splitBind(s.HealthAddr); s.HealthAddr != "" && err == nil {
		own = append(own, plan.Socket{Network: "tcp", Addr: joinPort(host, port), What: "the health port (health_addr)"})
	}
	return own
}

// OwnPorts are the TCP ports that no client may open, because settings do, with what they are for.
func (s *Server) OwnPorts() map[uint16]string {
	ports := make(map[uint16]string)
	for _, socket := range s.own() {
		if _, port, err := splitBind(socket.Addr); err == nil {
			ports[port] = socket.What
		}
	}
	return ports
}

// sockets are those that the settings open.
func (s *Server) sockets() []plan.Socket {
	all := s.own()
	named := func(e plan.Entrypoint) bool { return e.Name == plan.TLSEntrypoint } // its address is that of the setting
	if s.TLSPort != 0 && !slices.ContainsFunc(s.Plan.Entrypoints, named) {
		all = append(all, plan.Socket{Network: "tcp", Addr: joinPort(s.DataAddr, s.TLSPort), What: "the TLS port (tls_port)"})
	}
	return all
}

// validate puts addresses into their canonical form, and finds settings that want the same socket.
func (l *Listen) validate(mode Mode, hasControl bool) (found Problems) {
	found = append(found, bindHost("control-addr", "--control-port", &l.ControlAddr)...)
	found = append(found, bindHost("data-addr", dataPort(mode), &l.DataAddr)...)
	if mode.HasHTTP() && hasControl && l.web().Collides(l.control()) {
		found.add("port", "give one of them another", "%d is the control port too", l.Port)
	}
	if l.HealthAddr == "" {
		return found
	}
	host, port, err := splitBind(l.HealthAddr)
	health := plan.Socket{Network: "tcp", Addr: joinPort(host, port)}
	switch {
	case err != nil:
		found.add("health-addr", "write HOST:PORT, as in 127.0.0.1:8081 or :8081", "%q has no host and port", shorten(l.HealthAddr))
	case hasControl && health.Collides(l.control()):
		found.add("health-addr", "give another port", "%d is the control port, which has /healthz and /readyz already", port)
	case mode.HasHTTP() && health.Collides(l.web()):
		found.add("health-addr", "give another port", "%d is the HTTP port", port)
	}
	return found
}

// dataPort is the flag that has the port of visitors.
func dataPort(mode Mode) string {
	if mode.HasHTTP() {
		return "--port"
	}
	return "--allow-ports"
}

func splitBind(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, err
	}
	if host != "" {
		if host, err = canonicalBind(host); err != nil {
			return "", 0, err
		}
	}
	return host, uint16(n), nil
}

// HealthPort is the port of the health address; false if there is none.
func (l *Listen) HealthPort() (uint16, bool) {
	if l.HealthAddr == "" {
		return 0, false
	}
	_, port, err := splitBind(l.HealthAddr)
	return port, err == nil
}

// Asked is where a setting's value comes from, as errors name it: "--port", "--port (by default)", its variable, or
// "culvert.yaml:3:7: port".
func (s *Server) Asked(flag string) string {
	name := "--" + flag
	if s.origin == nil {
		return name
	}
	switch one := s.origin.settings.Lookup(flag); {
	case one == nil || one.source == FromFlag:
		return name
	case one.source == FromEnvironment:
		return one.from
	case one.source == FromFile:
		return one.place.Place()
	default:
		return name + " (by default)"
	}
}

// AskedAddr is where the address of an entrypoint of the file stands in it.
func (s *Server) AskedAddr(entrypoint string) string {
	i := slices.IndexFunc(s.Plan.Entrypoints, func(e plan.Entrypoint) bool { return e.Name == entrypoint })
	doc, err := file.Read(s.Config)
	if i < 0 || err != nil {
		return "entrypoint " + entrypoint
	}
	_, _, _ = plan.Read(doc, file.Options{Others: fileKeys(), Take: func(string, file.Value) {}}) // it was right; doc knows now what stands where
	return doc.Fault(file.Item("entrypoints", i)+".addr", "", "").Place()
}
