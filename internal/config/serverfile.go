package config

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"culvert/internal/auth"
	"culvert/internal/config/file"
	"culvert/internal/config/plan"
	"culvert/internal/pki"
)

// File is the configuration file of a server: any of its settings, and the data plane.
type File struct {
	Config      string `flag:"config" key:"-" file:"culvert.yaml" unit:"FILE" group:"Connection" help:"file with entrypoints, upstreams and any of these settings; flags and environment win"`
	PrintConfig bool   `flag:"print-config" key:"-" group:"Advanced" help:"print all settings as they are in effect, in the form of that file and with secrets masked, and exit"`

	// Plan is the data plane that the file describes; the zero Plan without a file. Load makes it.
	Plan plan.Plan
	// Warnings are of what is in the file and has no effect.
	Warnings file.Faults

	doc       *file.Doc // of Plan, until it has been checked
	unread    bool      // the file is on the machine that a unit is for
	elsewhere bool      // what the file names is on another machine
	anyKind   bool      // the file may be for every kind of server
	origin    *origin
}

// origin is what a configuration was made of, to make it again.
type origin struct {
	settings *Settings
	prefix   string
	env      Environment
}

// Resolver is a configuration that completes and checks itself.
type Resolver interface {
	Resolve(env Environment) error
}

// Load makes a configuration complete and checks it: what no flag has set comes from the environment, what neither has from
// the file that it names, if it is one that can. The settings are those of cfg; prefix is that of its variables.
// The error is Problems.
func Load(cfg Resolver, settings *Settings, prefix string, env Environment) error {
	settings.ReadEnvironment(prefix, env)
	s, ok := cfg.(*Server)
	if !ok {
		return settings.Check(cfg.Resolve(env))
	}
	s.origin = &origin{settings, prefix, env}
	if found := s.readFile(settings); len(found) > 0 {
		return settings.Check(found) // what else is wrong may come of it
	}
	err := s.Resolve(env)
	s.warnOfNoControl(settings)
	s.Warnings.Sort()
	s.doc = nil
	return settings.Check(err)
}

// warnOfNoControl tells which of the settings that are given have no effect without a control port.
func (s *Server) warnOfNoControl(settings *Settings) {
	if s.HasControl() {
		return
	}
	for _, one := range settings.all {
		if one.Needs != "control" || one.source == FromDefault {
			continue
		}
		f := one.place
		if one.source != FromFile {
			f = file.Fault{File: cmp.Or(one.variable(), "--"+one.Flag)}
		}
		f.Fault, f.Remedy = "has no effect: without a token there is no control port", "add token_file: FILE"
		s.Warnings = append(s.Warnings, f)
	}
}

// readFile takes from the file what no stronger source has set.
func (s *Server) readFile(settings *Settings) (found Problems) {
	if s.Config == "" {
		return nil
	}
	doc, err := file.Read(s.Config)
	if err == nil {
		s.doc = doc
		var warnings file.Faults
		s.Plan, warnings, err = plan.Read(doc, file.Options{
			Others: fileKeys(),
			Take:   func(key string, v file.Value) { s.take(settings, key, v) },
		})
		s.Warnings = append(s.Warnings, warnings...)
	}
	var faults file.Faults
	switch {
	case err == nil:
	case !errors.As(err, &faults):
		found.add("config", "", "%s", err)
	case s.Generate != "" && missing(s.Config):
		s.unread = true
	default:
		for _, f := range faults {
			found = append(found, ofFile(f))
		}
	}
	return found
}

// FileUnread says whether a unit is to be made for a file that is not on this machine.
func (s *Server) FileUnread() bool { return s.unread }

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// fileKeys are the keys of a file that are settings: those of every kind of server, so that one file fits all of them.
func fileKeys() []string {
	var keys []string
	for _, one := range Describe(new(Server), Mixed).All() {
		if one.Key != "" {
			keys = append(keys, one.Key)
		}
	}
	return keys
}

// take sets a setting to what the file has, unless a flag or the environment has set it, or another of its alternatives.
func (s *Server) take(settings *Settings, key string, v file.Value) {
	i := slices.IndexFunc(settings.all, func(one *Setting) bool { return one.Key == key })
	if i < 0 {
		f := v.Fault
		f.Fault, f.Remedy = "has no effect", "it is not for culvert "+string(s.Mode)
		if s.Mode != LB {
			f.Remedy += " server"
		}
		s.Warnings = append(s.Warnings, f)
		return
	}
	one := settings.all[i]
	if one.source > FromFile || slices.Contains(settings.taken(FromEnvironment), one.OneOf) {
		return
	}
	one.place = v.Fault
	texts := v.Texts
	switch {
	case v.Kind == file.Pairs && one.Repeatable():
		one.source, one.problem = FromFile, errors.New("is keys and values; write one value, or a list: [A, B]")
		return
	case v.Kind != file.One && !one.Repeatable():
		one.source, one.problem = FromFile, errors.New("is more than one value; write one")
		return
	case v.Kind == file.One && one.Blank != "" && texts[0] == one.Blank:
		texts = []string{""}
	}
	for _, text := range texts {
		one.set(FromFile, text)
	}
}

// warnOfHeaders tells the entrypoints of the file that would pass a PROXY header on to members, as if the visitor had said it,
// though the server expects headers elsewhere.
func (s *Server) warnOfHeaders() {
	for i, e := range s.Plan.Entrypoints {
		path := file.Item("entrypoints", i)
		if _, given := s.doc.At(path + ".proxy_protocol"); s.ExpectsProxy() && !given && e.Protocol != plan.UDP {
			s.Warnings = append(s.Warnings, s.doc.Fault(path, "add proxy_protocol: {accept: auto, trusted: [CIDR]}, or proxy_protocol: off",
				"expects no PROXY header: lb_proxy_protocol is for the ports that no file describes"))
		}
	}
}

// validateFile checks what the file has against the other settings.
func (s *Server) validateFile() (found Problems) {
	if s.Mode == LB {
		switch {
		case s.Config == "":
			found.add("config", "give --config culvert.yaml; docs/configuration.md has its keys", "a load balancer needs a file of entrypoints and upstreams")
		case s.doc != nil && len(s.Plan.Entrypoints) == 0 && s.anyKind:
			s.Warnings = append(s.Warnings, s.doc.Fault("", "add entrypoints: and upstreams: if it is for culvert lb", "has no entrypoint, which is right for culvert server alone"))
		case s.doc != nil && len(s.Plan.Entrypoints) == 0:
			found = append(found, ofFile(s.doc.Fault("", "add entrypoints: and upstreams:", "has no entrypoint, so nobody could connect")))
		}
	}
	if s.doc == nil {
		return found
	}
	for _, f := range s.Plan.Conflicts(s.doc, s.sockets()) {
		found = append(found, ofFile(f))
	}
	s.warnOfHeaders()
	if tunnels := s.Plan.Tunnels(); len(tunnels) > 0 && !s.HasControl() {
		f := s.doc.Fault("", "add token_file: FILE, or give members with an address",
			"the tunnel %s has no members ever: without a token no client can connect", tunnels[0])
		s.Warnings = append(s.Warnings, f)
	}
	return found
}

// Reread makes the configuration again, of the same flags and environment and of the file as it is now. The keys are those
// of settings that have changed: they take effect when the server starts again, while Plan can be changed in one that runs.
func (s *Server) Reread() (next Server, changed []string, err error) {
	settings := Describe(&next, s.Mode)
	next.Mode = s.Mode
	for i, one := range s.origin.settings.all {
		if one.source == FromFlag {
			for _, raw := range one.given {
				settings.all[i].Set(raw)
			}
		}
	}
	if err := Load(&next, settings, s.origin.prefix, s.origin.env); err != nil {
		return Server{}, nil, err
	}
	for i, one := range settings.all {
		if one.Key != "" && !sameValue(one.target, s.origin.settings.all[i].target) {
			changed = append(changed, one.Key)
		}
	}
	return next, changed, nil
}

// sameValue says whether two settings have the same value.
func sameValue(a, b any) bool {
	if secret, ok := a.(*auth.Secret); ok {
		other, ok := b.(*auth.Secret)
		return ok && secret.Equal(*other)
	}
	return reflect.DeepEqual(a, b)
}

// CheckFile reads a configuration file for its faults alone. elsewhere leaves alone what it names: files, and the variable
// that holds the token. The error is Problems.
func CheckFile(path string, elsewhere bool, env Environment) (Server, error) {
	var s Server
	settings := Describe(&s, LB)
	s.Mode, s.elsewhere = LB, elsewhere
	s.Config = path
	if found := s.readFile(settings); len(found) > 0 {
		return s, settings.Check(found)
	}
	s.Warnings = slices.DeleteFunc(s.Warnings, func(f file.Fault) bool { return slices.Contains(fileKeys(), f.Path) })
	s.anyKind = slices.ContainsFunc(settings.all, func(one *Setting) bool { return one.source == FromFile })
	if token := settings.Lookup("token"); s.masked() {
		f := token.place
		f.Fault, f.Remedy = maskFault, asKeys(maskRemedy)
		s.Warnings = append(s.Warnings, f)
		s.Token = auth.NewSecret(strings.Repeat(mask, pki.MinToken)) // nothing more is wrong with it
	}
	err := s.Resolve(env)
	s.Warnings.Sort()
	return s, settings.Check(err)
}
