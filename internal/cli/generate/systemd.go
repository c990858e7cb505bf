package generate

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"culvert/internal/config"
)

// unit writes a systemd service.
func (s *service) unit(state *config.Setting, chosen string) (Result, error) {
	stateName := s.name // each unit has a user of its own, and so a folder of its own
	if chosen != "" {
		below, ok := strings.CutPrefix(chosen, "/var/lib/")
		if !ok || checkPath(below) != nil || strings.Contains(below, " ") {
			return Result{}, fmt.Errorf("--%s: a unit keeps its state below /var/lib; leave the flag out, or name a folder there", state.Flag)
		}
		stateName = below
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s.service\n[Unit]\nDescription=%s (%s)\n", s.name, s.title, s.name)
	b.WriteString("Wants=network-online.target\nAfter=network-online.target\nStartLimitIntervalSec=0\n\n[Service]\nType=notify\n")
	if err := s.writeExec(&b); err != nil {
		return Result{}, err
	}
	fmt.Fprintf(&b, "Restart=always\nRestartSec=2s\nTimeoutStopSec=%ds\n\n", int(s.stop.Seconds()))
	b.WriteString("DynamicUser=yes\nUMask=0077\nLimitNOFILE=1048576\n")
	if s.stateDir != "" {
		fmt.Fprintf(&b, "StateDirectory=%s\nStateDirectoryMode=0700\n", quotePath(stateName))
	}
	for _, f := range s.files {
		if err := checkPath(f.source); err != nil {
			return Result{}, fmt.Errorf("file %q: %w", f.source, err)
		}
		if f.path == "" {
			fmt.Fprintf(&b, "LoadCredential=%s:%s\n", f.key, quotePath(f.source))
		}
	}
	if err := s.writeSandbox(&b); err != nil {
		return Result{}, err
	}
	b.WriteString("\n[Install]\nWantedBy=multi-user.target\n")
	return Result{Text: b.String(), Notes: s.unitNotes()}, nil
}

// writeExec writes the command, a line for each flag.
func (s *service) writeExec(b *strings.Builder) error {
	if err := checkPath(s.options.Binary); err != nil || !path.IsAbs(s.options.Binary) || strings.Contains(s.options.Binary, " ") {
		return fmt.Errorf("program %q: not a plain absolute path", s.options.Binary)
	}
	b.WriteString("ExecStart=" + quotePath(s.options.Binary) + " " + strings.Join(s.options.Words, " "))
	for _, a := range s.arguments {
		b.WriteString(" \\\n    --" + a.flag)
		switch {
		case a.file != "" && s.pathOf(a.file) != "":
			b.WriteString(" " + quoteExec(s.pathOf(a.file)))
		case a.file != "":
			b.WriteString(" ${CREDENTIALS_DIRECTORY}/" + a.file)
		case a.toggle:
			b.WriteString("=" + quoteExec(a.value))
		default:
			b.WriteString(" " + quoteExec(a.value))
		}
	}
	b.WriteString("\n")
	if s.reloads() {
		b.WriteString("ExecReload=/bin/kill -HUP $MAINPID\n")
	}
	return nil
}

// pathOf is where the unit reads a file as it is; empty for a copy.
func (s *service) pathOf(key string) string {
	for _, f := range s.files {
		if f.key == key {
			return f.path
		}
	}
	return ""
}

// reloads says whether there is a configuration file to be read again.
func (s *service) reloads() bool {
	return slices.ContainsFunc(s.files, func(f file) bool { return f.path != "" })
}

// writeSandbox takes away what the service does not need. ProcSubset=pid is not among it: Go reads the length of the
// accept queue from /proc/sys.
func (s *service) writeSandbox(b *strings.Builder) error {
	capabilities := ""
	if s.lowPorts {
		capabilities = "CAP_NET_BIND_SERVICE"
	}
	families := "AF_INET AF_INET6 AF_UNIX"
	if s.addresses {
		families += " AF_NETLINK" // how a program learns the machine's addresses
	}
	fmt.Fprintf(b, `
NoNewPrivileges=yes
CapabilityBoundingSet=%s
AmbientCapabilities=%s
ProtectSystem=strict
ProtectHome=%s
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateTmp=yes
PrivateDevices=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=%s
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
`, capabilities, capabilities, s.protectHome(), families)
	for _, folder := range s.folders {
		if err := checkPath(folder); err != nil || strings.Contains(folder, " ") {
			return fmt.Errorf("folder %q: %w", folder, errPath)
		}
		fmt.Fprintf(b, "BindReadOnlyPaths=%s\n", quotePath(folder))
	}
	return nil
}

// protectHome hides homes, in the way that lets a served folder inside one be seen.
func (s *service) protectHome() string {
	for _, folder := range s.folders {
		for _, home := range []string{"/home", "/root", "/run/user"} {
			if folder == home || strings.HasPrefix(folder, home+"/") {
				return "tmpfs"
			}
		}
	}
	return "yes"
}

func (s *service) unitNotes() []string {
	notes := []string{"# Before the unit can start, as root:"}
	for _, f := range s.files {
		if f.path != "" {
			if f.path != f.source {
				notes = append(notes, "install -D -m 0644 "+shellQuote(f.source)+" "+shellQuote(f.path))
			}
			notes = append(notes, "# "+shellQuote(f.path)+" must be readable by everyone, as the unit runs as a user of its own: keep tokens out of it (token_file)",
				"# After a change of it: systemctl reload "+s.name)
			continue
		}
		if !f.ours {
			notes = append(notes, "# "+shellQuote(f.source)+" must be there; it is read when the unit starts")
			continue
		}
		notes = append(notes,
			"install -d -m 0700 "+shellQuote(path.Dir(f.source)),
			"install -m 0600 /dev/stdin "+shellQuote(f.source)+"   # type or paste "+f.secret+", then Ctrl-D")
	}
	for _, folder := range s.folders {
		notes = append(notes, "# "+shellQuote(folder)+" must be readable by everyone: the unit runs as a user of its own")
	}
	return append(notes,
		"# Save the unit as /etc/systemd/system/"+s.name+".service, then:",
		"systemctl daemon-reload && systemctl enable --now "+s.name)
}

// shellQuote writes a word for a shell.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(c rune) bool { return special(c) || strings.ContainsRune("*$~[]", c) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
