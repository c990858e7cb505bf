package app

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"time"

	"culvert/internal/config"
	"culvert/internal/entrypoint"
	"culvert/internal/upstream/fileserver"
)

// RunFileserver serves a folder until the context ends and the open requests are answered.
func RunFileserver(ctx context.Context, cfg config.Fileserver, version Version, log *slog.Logger) error {
	files := fileserver.Config{Root: cfg.Webroot, AllowBrowsing: cfg.AllowBrowsing, Hidden: cfg.Hidden, Log: log}
	protected := !cfg.BasicAuthPassword.Empty()
	if protected {
		files.Authorize = fileserver.BasicAuth(cfg.BasicAuthUsername, cfg.BasicAuthPassword.Reveal())
	}
	handler, err := fileserver.Handler(files)
	if err != nil {
		return err
	}
	addr := net.JoinHostPort(cfg.DataAddr, strconv.Itoa(int(cfg.Port)))
	ep, err := entrypoint.ListenHTTP(entrypoint.HTTPConfig{
		Addr:  addr,
		Allow: cfg.AllowIPs,
		Log:   log,
	}, handler)
	if err != nil {
		return binding{network: "tcp", addr: addr, askedPort: "--port", asked: "--data-addr"}.explain(err)
	}
	log.Info("serving", "webroot", cfg.Webroot, "on", ep.Addr().String(), "browsing", cfg.AllowBrowsing, "auth", protected,
		"version", version.Version)
	failed := make(chan error, 1)
	go func() { failed <- ep.Run(context.Background()) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), fileserverDrain)
	defer cancel()
	_ = ep.Shutdown(drain) // past the context it has cut what was left
	return <-failed
}

// fileserverDrain is how long open downloads may finish.
const fileserverDrain = 10 * time.Second
