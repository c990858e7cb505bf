package generate

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// FuzzManifests gives free text to a client and reads the arguments of its container back (C21).
func FuzzManifests(f *testing.F) {
	for _, seed := range []string{"x", "yes", "1e3", "$(HOME) $$", "a: b", "- x", "'\"", "#", "\u0085", "a\n---\nkind: Secret", " "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, label string) {
		if strings.Contains(label, ",") || !utf8.ValidString(label) {
			return
		}
		result, err := write(t, options(), "k8s_yaml", "client", "--url=wss://a", "--upstream=http://b", "--label=k="+label)
		if err != nil {
			return
		}
		var deployment struct {
			Spec struct {
				Template struct {
					Spec struct {
						Containers []struct{ Args []string }
					}
				}
			}
		}
		d := yaml.NewDecoder(strings.NewReader(result.Text))
		if err := d.Decode(&deployment); err != nil {
			t.Fatalf("label %q: %s\n%s", label, err, result.Text)
		}
		if err := d.Decode(new(any)); err == nil {
			t.Errorf("label %q: a second document", label)
		}
		containers := deployment.Spec.Template.Spec.Containers
		if len(containers) != 1 {
			t.Fatalf("label %q: %d containers", label, len(containers))
		}
		var got []string
		for _, arg := range containers[0].Args {
			got = append(got, kubernetesExpand(t, arg))
		}
		want := []string{"client", "--url=wss://a", "--label=k=" + label, "--upstream=http://b", "--token-file=/run/secrets/culvert/token"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("label %q: want -, got +\n%s", label, diff)
		}
	})
}

// kubernetesExpand replaces $$ by $; a reference to a variable fails the test.
func kubernetesExpand(t *testing.T, arg string) string {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(arg); i++ {
		b.WriteByte(arg[i])
		if arg[i] != '$' || i+1 == len(arg) {
			continue
		}
		switch arg[i+1] {
		case '$':
			i++
		case '(':
			t.Errorf("%q refers to a variable", arg)
		}
	}
	return b.String()
}
