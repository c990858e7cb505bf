package config

import (
	"path/filepath"
	"strings"
)

// defaultStateDir is where a command keeps what must outlive it: what systemd says, /var/lib/culvert for root, else a
// folder of the user's.
func defaultStateDir(env Environment) string {
	// systemd separates several folders by colons; the unit that we generate has one.
	if dir, _, _ := strings.Cut(env.get("STATE_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return dir
	}
	if env.Root {
		return "/var/lib/culvert"
	}
	if dir := env.get("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "culvert")
	}
	if home := env.get("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "culvert")
	}
	if dir := env.get("LocalAppData"); dir != "" { // Windows
		return filepath.Join(dir, "culvert")
	}
	return "culvert-state"
}
