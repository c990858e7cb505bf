package generate

import (
	"fmt"
	"math"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Where things are in a container, and as whom it runs.
const (
	containerSecrets = "/run/secrets/culvert"
	containerUser    = 65532 // "nonroot" of the usual distroless images
)

// manifests writes a Deployment, and a Service if there are ports to reach.
func (s *service) manifests(state string) (Result, error) {
	if len(s.folders) > 0 {
		return Result{}, fmt.Errorf("a folder of this machine cannot be served from a Kubernetes cluster; use --generate systemd")
	}
	if state != "" {
		s.stateDir = state
	}
	documents := []*yaml.Node{s.deployment()}
	if len(s.ports) > 0 {
		documents = append(documents, s.kubeService())
	}
	var b strings.Builder
	create := s.createSecret()
	for _, line := range s.manifestComments(create) {
		b.WriteString(strings.TrimRight("# "+line, " ") + "\n")
	}
	for _, d := range documents {
		b.WriteString("---\n")
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		if err := e.Encode(d); err != nil {
			return Result{}, err
		}
		if err := e.Close(); err != nil {
			return Result{}, err
		}
	}
	var notes []string
	if create != "" {
		notes = []string{"# First put the files into a Secret:", create}
	}
	return Result{Text: b.String(), Notes: notes}, nil
}

// createSecret is the command that makes the Secret, of files on the operator's machine.
func (s *service) createSecret() string {
	if len(s.files) == 0 {
		return ""
	}
	line := "kubectl create secret generic " + s.name
	for _, f := range s.files {
		source := f.source
		if f.ours { // a path of units
			source = f.key
		}
		line += " --from-file=" + f.key + "=" + shellQuote(source)
	}
	return line
}

func (s *service) manifestComments(create string) []string {
	lines := []string{s.title + " (" + s.name + ")"}
	if create != "" {
		lines = append(lines, "The Secret is not here. Make it first:", "  "+create)
	}
	lines = append(lines, "The image is "+s.image+": name your own with --generate-image.")
	if s.san {
		lines = append(lines, "Clients reach the server by a name or address that its certificate must have: give --auto-tls-san.")
	}
	return lines
}

func (s *service) deployment() *yaml.Node {
	pod := object(
		"automountServiceAccountToken", boolean(false),
		// Else a Service named culvert-server would set CULVERT_SERVER_PORT, which is our own variable.
		"enableServiceLinks", boolean(false),
		"terminationGracePeriodSeconds", number(int(s.stop.Seconds())),
		"securityContext", s.podSecurity(),
		"containers", list(s.container()),
	)
	if v := s.volumes(); len(v.Content) > 0 {
		add(pod, "volumes", v)
	}
	strategy := "RollingUpdate"
	if len(s.ports) > 0 { // a server: clients of the old pod must not meet two
		strategy = "Recreate"
	}
	return object(
		"apiVersion", text("apps/v1"),
		"kind", text("Deployment"),
		"metadata", s.metadata(),
		"spec", object(
			"replicas", number(1),
			"strategy", object("type", text(strategy)),
			"selector", object("matchLabels", s.selector()),
			"template", object(
				"metadata", object("labels", s.selector()),
				"spec", pod,
			),
		),
	)
}

func (s *service) podSecurity() *yaml.Node {
	security := object(
		"runAsNonRoot", boolean(true),
		"runAsUser", number(containerUser),
		"runAsGroup", number(containerUser),
		"fsGroup", number(containerUser),
		"seccompProfile", object("type", text("RuntimeDefault")),
	)
	if s.lowPorts { // a user without capabilities may open them, in its own network namespace
		add(security, "sysctls", list(object("name", text("net.ipv4.ip_unprivileged_port_start"), "value", text("0"))))
	}
	return security
}

func (s *service) container() *yaml.Node {
	args := list()
	for _, word := range s.options.Words {
		args.Content = append(args.Content, text(word))
	}
	for _, a := range s.arguments {
		value := quoteContainer(a.value)
		if a.file != "" {
			value = containerSecrets + "/" + a.file
		}
		args.Content = append(args.Content, text("--"+a.flag+"="+value))
	}
	c := object("name", text("culvert"), "image", text(s.image), "args", args)
	if s.stateDir != "" {
		add(c, "env", list(object("name", text("STATE_DIRECTORY"), "value", text(quoteContainer(s.stateDir)))))
	}
	if ports := s.containerPorts(); len(ports.Content) > 0 {
		add(c, "ports", ports)
	}
	if s.probe != nil && s.probe.number != 0 {
		add(c, "livenessProbe", s.httpProbe("/healthz", 10, 3))
		add(c, "readinessProbe", s.httpProbe("/readyz", 5, 1))
	}
	add(c, "resources", object(
		"requests", object("cpu", text("100m"), "memory", text("64Mi")),
		"limits", object("memory", text("512Mi")),
	))
	add(c, "securityContext", object(
		"allowPrivilegeEscalation", boolean(false),
		"readOnlyRootFilesystem", boolean(true),
		"capabilities", object("drop", list(text("ALL"))),
	))
	if mounts := s.mounts(); len(mounts.Content) > 0 {
		add(c, "volumeMounts", mounts)
	}
	return c
}

func (s *service) httpProbe(path string, period, failures int) *yaml.Node {
	scheme := "HTTP"
	if s.probeTLS {
		scheme = "HTTPS" // the kubelet does not verify the certificate
	}
	return object(
		"httpGet", object("path", text(path), "port", text(s.probe.name), "scheme", text(scheme)),
		"periodSeconds", number(period),
		"timeoutSeconds", number(3),
		"failureThreshold", number(failures),
	)
}

func (s *service) containerPorts() *yaml.Node {
	l := list()
	for _, p := range s.ports {
		if p.number != 0 {
			l.Content = append(l.Content, withProtocol(p, object("name", text(p.name), "containerPort", number(int(p.number)))))
		}
	}
	return l
}

func (s *service) mounts() *yaml.Node {
	l := list()
	if len(s.files) > 0 {
		l.Content = append(l.Content, object("name", text("secrets"), "mountPath", text(containerSecrets), "readOnly", boolean(true)))
	}
	if s.stateDir != "" {
		l.Content = append(l.Content, object("name", text("state"), "mountPath", text(s.stateDir)))
	}
	return l
}

func (s *service) volumes() *yaml.Node {
	l := list()
	if len(s.files) > 0 {
		l.Content = append(l.Content, object("name", text("secrets"), "secret",
			object("secretName", text(s.name), "defaultMode", number(0o440))))
	}
	if s.stateDir != "" {
		l.Content = append(l.Content, object("name", text("state"), "emptyDir", object()))
	}
	return l
}

// kubeService makes the ports reachable in the cluster. The health port is for the kubelet alone.
func (s *service) kubeService() *yaml.Node {
	ports := list()
	for _, p := range s.ports {
		if p.number != 0 && p.name != "health" {
			ports.Content = append(ports.Content, withProtocol(p, object(
				"name", text(p.name), "port", number(int(p.number)), "targetPort", text(p.name))))
		}
	}
	return object(
		"apiVersion", text("v1"),
		"kind", text("Service"),
		"metadata", s.metadata(),
		"spec", object("selector", s.selector(), "ports", ports),
	)
}

// withProtocol says of a port of datagrams that it is one.
func withProtocol(p port, n *yaml.Node) *yaml.Node {
	if p.udp {
		add(n, "protocol", text("UDP"))
	}
	return n
}

func (s *service) metadata() *yaml.Node {
	return object("name", text(s.name), "labels", s.selector())
}

func (s *service) selector() *yaml.Node {
	return object("app.kubernetes.io/name", text("culvert"), "app.kubernetes.io/instance", text(s.name))
}

// object is a mapping of keys and nodes, in order.
func object(pairs ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	if len(pairs) == 0 {
		n.Style = yaml.FlowStyle
	}
	for i := 0; i < len(pairs); i += 2 {
		add(n, pairs[i].(string), pairs[i+1].(*yaml.Node))
	}
	return n
}

func add(mapping *yaml.Node, key string, value *yaml.Node) {
	mapping.Content = append(mapping.Content, text(key), value)
}

func list(items ...*yaml.Node) *yaml.Node { return &yaml.Node{Kind: yaml.SequenceNode, Content: items} }

// text is a string, which the encoder quotes where YAML would read something else.
func text(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	n.Style = 0
	return n
}

func number(i int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprint(min(i, math.MaxInt32))}
}

func boolean(b bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(b)}
}
