// Package systemd tells the service manager how the program is: that it is ready, reads its configuration anew, goes down,
// or that another process has taken its place (sd_notify(3)). Without one that listens it does nothing.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Manager is the service manager as far as it listens. A nil *Manager does nothing.
type Manager struct {
	log      *slog.Logger
	watchdog time.Duration // within which it wants to hear of the program; 0: it does not
}

// Listening gives the manager that started this process; nil if it does not listen, or there is none.
func Listening(log *slog.Logger) *Manager {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog", "err", err)
	}
	return &Manager{log, watchdog}
}

// Ready says that the program serves, also after Reloading.
func (m *Manager) Ready(status string) { m.tell(daemon.SdNotifyReady, status) }

// Reloading says that the configuration is read anew. Ready ends it.
func (m *Manager) Reloading() {
	m.tell(daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec(), "reading the configuration")
}

// Stopping says that the program goes down.
func (m *Manager) Stopping(status string) { m.tell(daemon.SdNotifyStopping, status) }

// Status is a line for systemctl status.
func (m *Manager) Status(status string) { m.tell("", status) }

// HandedOver says that another process is the service from now on. It must be this one that says so.
func (m *Manager) HandedOver(pid int) {
	m.tell(fmt.Sprintf("MAINPID=%d\n%s", pid, daemon.SdNotifyReady), "another process has taken over")
}

func (m *Manager) tell(state, status string) {
	if m == nil {
		return
	}
	status = strings.ReplaceAll(status, "\n", " ")
	if _, err := daemon.SdNotify(false, strings.TrimPrefix(state+"\nSTATUS="+status, "\n")); err != nil {
		m.log.Debug("the service manager does not listen", "err", err)
	}
}

// Run tells the manager's watchdog, if there is one, that the program lives, until the context ends. alive returns when the
// program could do what it is for; as long as it does not, nothing is told.
func (m *Manager) Run(ctx context.Context, alive func()) error {
	if m == nil || m.watchdog <= 0 {
		return nil
	}
	tick := time.NewTicker(m.watchdog / 2)
	defer tick.Stop()
	for {
		alive()
		if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
			m.log.Debug("the service manager does not listen", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
