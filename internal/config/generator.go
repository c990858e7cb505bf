package config

import "strings"

// Generator asks for a unit or manifests for the settings as given, instead of running the command.
type Generator struct {
	Generate      string `flag:"generate" key:"-" values:"systemd k8s_yaml" unit:"FORM" group:"Advanced" help:"print a systemd unit or Kubernetes manifests for these flags, without secrets, and exit"`
	GenerateName  string `flag:"generate-name" key:"-" shown:"culvert-COMMAND" unit:"NAME" group:"Advanced" help:"name of that unit or of those objects"`
	GenerateImage string `flag:"generate-image" key:"-" shown:"culvert:VERSION" unit:"IMAGE" group:"Advanced" help:"container image in those manifests"`
}

func (g *Generator) validate() (found Problems) {
	if g.GenerateName != "" && !objectName(g.GenerateName) {
		found.add("generate-name", "use 1 to 50 lower-case letters, digits and '-', a letter first",
			"%q does not name a unit and a Kubernetes object", shorten(g.GenerateName))
	}
	if strings.ContainsAny(g.GenerateImage, " \t\"'\\") {
		found.add("generate-image", "write it as in registry.example.com/culvert:1.0", "%q is not an image", shorten(g.GenerateImage))
	}
	if g.Generate == "" && (g.GenerateName != "" || g.GenerateImage != "") {
		found.add("generate", "add --generate systemd or --generate k8s_yaml", "missing beside --generate-name or --generate-image")
	}
	return found
}

// objectName says whether s is a DNS label, with room for a suffix, and not a number.
func objectName(s string) bool {
	if s == "" || len(s) > 50 || s[0] < 'a' || s[0] > 'z' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-'
	})
}
