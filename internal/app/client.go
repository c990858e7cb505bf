package app

import (
	"log/slog"
	"net/http"

	"culvert/internal/client"
	"culvert/internal/config"
	"culvert/internal/mux"
	"culvert/internal/pki"
)

// NewClient assembles a client, to be Run once. It opens nothing.
func NewClient(cfg config.Client, version Version, log *slog.Logger) (*client.Client, error) {
	proxy := http.ProxyFromEnvironment
	if cfg.ProxyURL != nil {
		proxy = http.ProxyURL(cfg.ProxyURL)
	}
	return client.New(client.Config{
		Software:  version.Version,
		URLs:      cfg.URLs,
		Token:     cfg.Token,
		Trust:     pki.Trust{Auto: cfg.AutoTLS, CAFile: cfg.TLSCA},
		Proxy:     proxy,
		ID:        cfg.ID,
		Labels:    cfg.Labels,
		StateDir:  cfg.StateDir,
		Upstreams: cfg.Upstreams,
		Drain:     cfg.DrainTimeout,
		MaxLinks:  cfg.Links,
		Budget:    mux.NewBudget(windowBudget),
		Log:       log.With(subsystem, "client"),
	})
}
