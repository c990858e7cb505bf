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
	"culvert/internal/handover"
	"culvert/internal/systemd"
)

func appVersion(b Build) app.Version { return app.Version{Version: b.Version, SHA: b.Revision} }

func runServer(ctx context.Context, cfg config.Server, log *slog.Logger) error {
	asked := hear()
	defer asked.stop()
	sockets, err := handover.Inherit(log)
	if err != nil {
		return fmt.Errorf("inherited sockets: %w", err)
	}
	host := app.Host{Sockets: sockets, Manager: systemd.Listening(log)}
	if host.Program, err = handover.Self(); err != nil {
		log.Warn("no process can take this one's place", "err", err)
	}
	s, err := app.NewHosted(cfg, appVersion(ReadBuild()), host, log)
	if err != nil {
		return err
	}
	if err := s.Listen(); err != nil {
		return err
	}
	asked.grant(map[wish]func(){
		reload: func() {
			host.Manager.Reloading()
			s.HangUp()
			host.Manager.Ready("serving")
		},
		upgrade: func() {
			if err := s.Upgrade(ctx); err != nil {
				log.Error("the upgrade failed, this process goes on", "err", err)
			}
		},
	})
	return watched(ctx, host.Manager, s.Alive, s.Run)
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
	return watched(ctx, manager, func() {}, run)
}

// watched tells the manager's watchdog that the program lives, while it runs and alive returns.
func watched(ctx context.Context, manager *systemd.Manager, alive func(), run func(context.Context) error) error {
	watch, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { _ = manager.Run(watch, alive) }) // never fails
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
