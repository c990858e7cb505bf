// Package generate writes systemd units and Kubernetes manifests that run a command with exactly the settings it was given.
//
// No secret is in what it writes: a unit takes it from a file as a credential of systemd, manifests refer to a Secret, and
// Notes say how to put both in place. Every value that came from outside is quoted for the reader that it meets, and what
// that reader cannot hold is refused.
package generate

import (
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
	"time"

	"culvert/internal/config"
	"culvert/internal/config/plan"
)

// Options say for whom to write.
type Options struct {
	Words   []string // the command below the program: "http", "server"
	Dir     string   // what relative paths are relative to; "" refuses them
	Version string   // names the image, if the settings name none
	Binary  string   // path of the program in a unit; "" means /usr/local/bin/culvert
}

// Result is what was written.
type Result struct {
	Text string
	// Notes are lines for the operator: what to do before it can run.
	Notes []string
}

// argument is a flag with its value, or a file in the place of the value.
type argument struct {
	flag, value string
	file        string // key of a file; empty for a plain value
	toggle      bool   // value is true or false
}

// file is a file that must be put in place, by its key.
type file struct {
	key    string
	source string // path on the machine of a unit
	secret string // what the operator puts there by hand; empty for files that exist
	ours   bool   // the path was chosen here, not by the operator
	// path is where a unit reads it as it is, so that a change can take effect while it runs; empty for a copy that systemd
	// makes when the unit starts.
	path string
}

// port is a port that a service listens on.
type port struct {
	name   string
	number uint16
	udp    bool
}

// service is a command to be run for good, in the form that units and manifests are written from.
type service struct {
	options   Options
	name      string
	title     string
	image     string
	arguments []argument
	files     []file
	folders   []string // served folders, absolute
	stateDir  string   // folder for state; "" for none, statePath if the settings name none
	ports     []port
	lowPorts  bool  // ports below 1024 may be opened
	addresses bool  // asks the system for its network addresses
	probe     *port // port of /healthz and /readyz; nil for none
	probeTLS  bool
	stop      time.Duration // how long an orderly end may take
	san       bool          // the certificate's names are found out at run time
}

// Server writes a server. The settings are those that cfg was filled from.
func Server(cfg config.Server, settings *config.Settings, o Options) (Result, error) {
	s, err := newService(cfg.Generator, settings, o)
	if err != nil {
		return Result{}, err
	}
	if cfg.HasControl() {
		s.control(cfg, settings)
	}
	if cfg.Mode.HasHTTP() {
		s.ports = append(s.ports, port{name: "http", number: cfg.Port})
	}
	if cfg.Mode.HasTCP() && cfg.HasControl() {
		s.allowedPorts(cfg)
	}
	s.entrypoints(cfg.Plan)
	if health, ok := cfg.HealthPort(); ok {
		s.probe, s.probeTLS = &port{name: "health", number: health}, false
		s.ports = append(s.ports, *s.probe)
	}
	s.lowPorts = s.lowPorts || cfg.Config != "" // it may get such a port while the service runs
	for _, p := range s.ports {
		s.lowPorts = s.lowPorts || p.number != 0 && p.number < 1024
	}
	s.stop = cfg.ReadyGrace + cfg.DrainTimeout + 10*time.Second
	return s.write(cfg.Generate, settings.Lookup("auto-tls-path"))
}

// control is what the control port needs. A token that stands in the configuration file needs no file of its own, and of
// a file that is elsewhere nobody knows.
func (s *service) control(cfg config.Server, settings *config.Settings) {
	inFile := cfg.FileUnread() || settings.Lookup("token").Source() == config.FromFile
	if !cfg.InsecureNoAuth && !inFile && (cfg.Tokens == "" || cfg.CredentialGiven()) {
		s.needSecret("token-file", "token", "the token")
	}
	if cfg.AutoTLS {
		s.stateDir = statePath
		s.addresses = len(cfg.AutoTLSSAN) == 0
		s.san = s.addresses
	}
	control := port{name: "control", number: cfg.ControlPort}
	s.ports = append(s.ports, control)
	s.probe, s.probeTLS = &control, !cfg.InsecurePlaintext
}

// entrypoints lists the ports of the configuration file.
func (s *service) entrypoints(p plan.Plan) {
	for _, e := range p.Entrypoints {
		_, text, err := net.SplitHostPort(e.Addr)
		number, err2 := strconv.ParseUint(text, 10, 16)
		udp := e.Protocol == plan.UDP
		if err != nil || err2 != nil || s.has(uint16(number), udp) {
			continue
		}
		s.ports = append(s.ports, port{fmt.Sprintf("%s-%d", e.Protocol.Network(), number), uint16(number), udp})
	}
}

// maxListed is how many ports of clients a Service lists.
const maxListed = 64

// allowedPorts lists the ports that clients may open, if they are few, and finds out whether any is privileged.
func (s *service) allowedPorts(cfg config.Server) {
	var listed []port
	for n := 1; n <= 65535; n++ {
		if !cfg.AllowPorts.Contains(uint16(n)) {
			continue
		}
		s.lowPorts = s.lowPorts || n < 1024
		if len(listed) <= maxListed {
			listed = append(listed, port{name: fmt.Sprintf("tcp-%d", n), number: uint16(n)})
		}
	}
	if len(listed) <= maxListed {
		for _, p := range listed {
			if !s.has(p.number, false) {
				s.ports = append(s.ports, p)
			}
		}
	}
}

func (s *service) has(number uint16, udp bool) bool {
	for _, p := range s.ports {
		if p.number == number && p.udp == udp {
			return true
		}
	}
	return false
}

// Client writes a client. The settings are those that cfg was filled from.
func Client(cfg config.Client, settings *config.Settings, o Options) (Result, error) {
	s, err := newService(cfg.Generator, settings, o)
	if err != nil {
		return Result{}, err
	}
	if !cfg.InsecureNoAuth {
		s.needSecret("token-file", "token", "the server's token")
	}
	for _, folder := range cfg.Folders() {
		if !path.IsAbs(folder) {
			return Result{}, fmt.Errorf("--upstream: file:%s is relative; give the whole path", folder)
		}
		s.folders = append(s.folders, folder)
	}
	s.stateDir = statePath
	s.stop = cfg.DrainTimeout + 15*time.Second
	return s.write(cfg.Generate, settings.Lookup("state-dir"))
}

// Fileserver writes a file server. The settings are those that cfg was filled from.
func Fileserver(cfg config.Fileserver, settings *config.Settings, o Options) (Result, error) {
	s, err := newService(cfg.Generator, settings, o)
	if err != nil {
		return Result{}, err
	}
	folder, err := absolute(cfg.Webroot, o.Dir)
	if err != nil {
		return Result{}, fmt.Errorf("--webroot: %w", err)
	}
	s.setPath("webroot", folder)
	s.folders = []string{folder}
	if !cfg.BasicAuthPassword.Empty() || cfg.BasicAuthPasswordFile != "" {
		s.needSecret("basic-auth-password-file", "password", "the password")
	}
	s.ports = []port{{name: "http", number: cfg.Port}}
	s.lowPorts = cfg.Port != 0 && cfg.Port < 1024
	s.stop = 15 * time.Second
	return s.write(cfg.Generate, nil)
}

// statePath is where the service keeps its state in a container, and below which it does so in a unit.
const statePath = "/var/lib/culvert"

// secretPath is where units find what they need.
const secretPath = "/etc/culvert"

func newService(g config.Generator, settings *config.Settings, o Options) (*service, error) {
	if o.Binary == "" {
		o.Binary = "/usr/local/bin/culvert"
	}
	s := &service{
		options: o,
		name:    g.GenerateName,
		image:   g.GenerateImage,
		title:   "Culvert " + strings.Join(o.Words, " "),
	}
	if s.name == "" {
		s.name = "culvert-" + strings.Join(o.Words, "-")
	}
	if s.image == "" {
		s.image = "culvert:" + o.Version
	}
	for _, setting := range settings.All() {
		if err := s.take(setting); err != nil {
			return nil, fmt.Errorf("--%s: %w", setting.Flag, err)
		}
	}
	return s, nil
}

// take turns one setting into arguments, and leaves out what is not for the service: secrets, folders for state, and the
// wish for a unit itself.
func (s *service) take(setting *config.Setting) error {
	switch setting.Flag {
	case "generate", "generate-name", "print-config", "generate-image", "auto-tls-path", "state-dir", "webroot":
		return nil
	}
	given := setting.Given()
	if len(given) == 0 || setting.Secret() || setting.Flag == "token-env" {
		return nil
	}
	if setting.Source() == config.FromFile && setting.File == "" {
		return nil // it is in the configuration file, and can be changed there
	}
	if setting.File != "" {
		source, err := absolute(given[len(given)-1], s.options.Dir)
		if err != nil {
			return err
		}
		f := file{key: setting.File, source: source}
		if setting.Flag == "config" {
			f.path = s.configPath(source)
		}
		s.files = append(s.files, f)
		s.arguments = append(s.arguments, argument{flag: setting.Flag, file: setting.File})
		return nil
	}
	if !setting.Repeatable() {
		given = given[len(given)-1:]
	}
	for _, value := range given {
		if err := checkValue(value); err != nil {
			return err
		}
		s.arguments = append(s.arguments, argument{flag: setting.Flag, value: value, toggle: setting.Bool()})
	}
	return nil
}

// configPath is where a unit reads its configuration file: where it is, if the unit's user can look there.
func (s *service) configPath(source string) string {
	for _, private := range []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"} {
		if strings.HasPrefix(source, private+"/") {
			return "/etc/" + s.name + ".yaml" // not among the secrets, whose folder is closed
		}
	}
	return source
}

// needSecret sees to it that the service gets a secret by a file, wherever it came from here.
func (s *service) needSecret(flag, key, what string) {
	for i, f := range s.files {
		if f.key == key {
			s.files[i].secret = what
			return
		}
	}
	source := secretPath + "/" + key
	if s.custom() {
		source = secretPath + "/" + s.name + "." + key
	}
	s.files = append(s.files, file{key: key, source: source, secret: what, ours: true})
	s.arguments = append(s.arguments, argument{flag: flag, file: key})
}

// custom says whether the operator chose a name: several services of one kind may then be on one machine.
func (s *service) custom() bool { return s.name != "culvert-"+strings.Join(s.options.Words, "-") }

// setPath adds an argument that is always there, because its default depends on where the program runs.
func (s *service) setPath(flag, value string) {
	s.arguments = append([]argument{{flag: flag, value: value}}, s.arguments...)
}

func (s *service) write(form string, state *config.Setting) (Result, error) {
	chosen := ""
	if state != nil && len(state.Given()) > 0 {
		chosen = path.Clean(state.Given()[len(state.Given())-1])
	}
	if form == "k8s_yaml" {
		return s.manifests(chosen)
	}
	return s.unit(state, chosen)
}

// absolute is the path on the machine that a unit is for. Paths are those of Linux, wherever this runs.
func absolute(file, dir string) (string, error) {
	if err := checkValue(file); err != nil {
		return "", err
	}
	if path.IsAbs(file) {
		return path.Clean(file), nil
	}
	if !path.IsAbs(dir) {
		return "", fmt.Errorf("%q is relative; give the whole path", file)
	}
	return path.Join(dir, file), nil
}
