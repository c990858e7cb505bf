package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"culvert/internal/app"
	"culvert/internal/client"
	"culvert/internal/config"
	"culvert/internal/demo"
	"culvert/internal/systemd"
)

func appVersion(b Build) app.Version { return app.Version{Version: b.Version, SHA: b.Revision} }

func runServer(ctx context.Context, cfg config.Server, log *slog.Logger) error {
	s, err := app.NewServer(cfg, appVersion(ReadBuild()), log)
	if err != nil {
		return err
	}
	if err := s.Listen(); err != nil {
		return err
	}
	defer onHangup(s.HangUp)()
	return served(ctx, log, s.Run)
}

func runClient(ctx context.Context, cfg config.Client, log *slog.Logger) error {
	c, err := app.NewClient(cfg, appVersion(ReadBuild()), log)
	if err != nil {
		return err
	}
	return served(ctx, log, c.Run)
}

// served runs a program that the service manager may have started, and tells the manager.
func served(ctx context.Context, log *slog.Logger, run func(context.Context) error) error {
	manager := systemd.Listening(log)
	manager.Ready("running")
	defer context.AfterFunc(ctx, func() { manager.Stopping("going down") })()
	watch, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { _ = manager.Run(watch, func() {}) }) // never fails
	defer watching.Wait()
	defer stop()
	return run(ctx)
}

func runFileserver(ctx context.Context, cfg config.Fileserver, log *slog.Logger) error {
	return served(ctx, log, func(ctx context.Context) error {
		return app.RunFileserver(ctx, cfg, appVersion(ReadBuild()), log)
	})
}

func runDivert(ctx context.Context, cfg config.Divert, event func(client.DivertEvent), log *slog.Logger) error {
	return app.RunDivert(ctx, cfg, event, appVersion(ReadBuild()), log)
}

func runDemo(ctx context.Context, cfg config.Demo, out io.Writer, log *slog.Logger) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start it as a client: %w", err)
	}
	f, ok := out.(*os.File)
	return demo.Run(ctx, demo.Config{
		For: cfg.For, JSON: cfg.JSON(), Executable: executable, Version: appVersion(ReadBuild()),
		Out: out, Terminal: ok && colours(f), Log: log,
	})
}
