package app

import (
	"context"
	"log/slog"
	"net/http"
	"sync"

	"culvert/internal/client"
	"culvert/internal/config"
	"culvert/internal/mux"
	"culvert/internal/pki"
)

// Client is a client as a program of its own.
type Client struct{ client *client.Client }

// Run serves until the context ends and open connections are through, or out of time.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var memory sync.WaitGroup
	memory.Go(func() { giveBackMemory(ctx) })
	err := c.client.Run(ctx)
	cancel()
	memory.Wait()
	return err
}

// NewClient assembles a client, to be Run once. It opens nothing.
func NewClient(cfg config.Client, version Version, log *slog.Logger) (*Client, error) {
	c, err := client.New(clientConfig(cfg, version, log))
	if err != nil {
		return nil, err
	}
	return &Client{c}, nil
}

// RunDivert has live traffic of a server come to this machine, and tells event what happens. See client.Divert.
func RunDivert(ctx context.Context, cfg config.Divert, event func(client.DivertEvent), version Version, log *slog.Logger) error {
	return client.Divert(ctx, client.DivertConfig{
		Client: clientConfig(cfg.Client, version, log), Wish: cfg.Wish, Target: cfg.Target, Report: event,
	})
}

func clientConfig(cfg config.Client, version Version, log *slog.Logger) client.Config {
	proxy := http.ProxyFromEnvironment
	if cfg.ProxyURL != nil {
		proxy = http.ProxyURL(cfg.ProxyURL)
	}
	return client.Config{
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

		ProxyProtocol: cfg.ServiceHeader(),
		Weight:        cfg.Weight,
		Backup:        cfg.Backup,

		Budget: mux.NewBudget(windowBudget),
		Log:    log.With(subsystem, "client"),
	}
}
