package app

import (
	"fmt"
	"os"

	"culvert/internal/accesslog"
	"culvert/internal/admin"
	"culvert/internal/config"
	"culvert/internal/control"
)

// newRecords makes the records of connections, and the access log if there is to be one.
func (s *Server) newRecords(cfg config.Connections) *accesslog.Log {
	return accesslog.New(accesslog.Config{
		Records: cfg.ConnectionRecords, Path: cfg.AccessLog, Format: accesslog.Format(cfg.AccessLogFormat), Out: os.Stdout,
		Metrics: s.registry, Log: s.log.With(subsystem, "accesslog"),
	})
}

// operator is the server as the API of the control port sees it.
type operator struct{ server *Server }

// Reload implements admin.Operator.
func (o operator) Reload() ([]string, error) { return o.server.Reload() }

// Drain implements admin.Operator.
func (o operator) Drain() {
	select {
	case o.server.drainAsked <- struct{}{}:
	default: // it drains already
	}
}

// Diverts implements admin.Diverts.
func (o operator) Diverts() []admin.Divert {
	var list []admin.Divert
	for _, d := range o.server.sessions.Diverts() {
		list = append(list, shownDivert(d))
	}
	return list
}

func shownDivert(d control.LiveDivert) admin.Divert {
	shown := admin.Divert{
		ID: d.ID, By: d.By, ByName: d.ByName, Client: d.Client, Up: d.Up, Entrypoint: d.Entrypoint, Protocol: d.Protocol, To: d.To, OnDown: "fallback",
		Existing: existing(d), Begun: d.Begun.UTC(), Until: d.Until.UTC(), Open: d.Open, Total: d.Total,
	}
	for _, p := range d.Sources {
		shown.Sources = append(shown.Sources, p.String())
	}
	for _, h := range d.Hosts {
		shown.Hosts = append(shown.Hosts, h.String())
	}
	if d.Percent < 100 {
		shown.Percent = d.Percent
	}
	if d.Fail {
		shown.OnDown = "fail"
	}
	return shown
}

// existing is what becomes of what is open, in one word.
func existing(d control.LiveDivert) string {
	switch {
	case d.Existing != control.MoveFlows:
		return string(d.Existing)
	case d.Protocol == "udp":
		return string(control.Move)
	default:
		return string(control.Keep)
	}
}

// EndDivert implements admin.Diverts.
func (o operator) EndDivert(id, reason string) error {
	if err := o.server.sessions.EndDivert(id, reason); err != nil {
		return fmt.Errorf("%w: no divert has the id %.80q: culvert divert list shows those that there are", admin.ErrNotFound, id)
	}
	return nil
}
