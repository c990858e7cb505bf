package k8stest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestManifestsDecodeStrictly(t *testing.T) {
	files, err := filepath.Glob("../testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden manifests: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var deployment *appsv1.Deployment
			for _, document := range bytes.Split(content, []byte("\n---\n"))[1:] {
				switch kind := kindOf(t, document); kind {
				case "Deployment":
					deployment = new(appsv1.Deployment)
					strict(t, document, deployment)
					checkDeployment(t, deployment)
				case "Service":
					service := new(corev1.Service)
					strict(t, document, service)
					checkService(t, service, deployment)
				default:
					t.Errorf("a %q in the manifests", kind)
				}
			}
			if deployment == nil {
				t.Error("no Deployment")
			}
		})
	}
}

func kindOf(t *testing.T, document []byte) string {
	t.Helper()
	var meta struct{ Kind string }
	if err := yaml.Unmarshal(document, &meta); err != nil {
		t.Fatal(err)
	}
	return meta.Kind
}

func strict(t *testing.T, document []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(document, into); err != nil {
		t.Fatalf("%s\n%s", err, document)
	}
}

// checkDeployment checks what the types cannot: references inside, and what keeps the container harmless.
func checkDeployment(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	for key, value := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[key] != value {
			t.Errorf("the selector's %s=%s is no label of the pod", key, value)
		}
	}
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, m := range c.VolumeMounts {
		if !volumes[m.Name] {
			t.Errorf("the mount %s has no volume", m.Name)
		}
	}
	if sc := c.SecurityContext; *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem || sc.Capabilities.Drop[0] != "ALL" {
		t.Errorf("the container is not hardened: %+v", sc)
	}
	if !*pod.SecurityContext.RunAsNonRoot || *pod.EnableServiceLinks || *pod.AutomountServiceAccountToken {
		t.Errorf("the pod is not hardened: %+v", pod.SecurityContext)
	}
	if len(c.Ports) == 0 {
		return // a client
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet.Path != path || !hasPort(c, probe.HTTPGet.Port.StrVal) {
			t.Errorf("%s is not probed at a port of the container: %+v", path, probe)
		}
	}
}

func checkService(t *testing.T, s *corev1.Service, d *appsv1.Deployment) {
	t.Helper()
	if d == nil {
		t.Fatal("a Service before its Deployment")
	}
	for key, value := range s.Spec.Selector {
		if d.Spec.Template.Labels[key] != value {
			t.Errorf("the Service's selector %s=%s is no label of the pod", key, value)
		}
	}
	for _, p := range s.Spec.Ports {
		if !hasPort(d.Spec.Template.Spec.Containers[0], p.TargetPort.StrVal) {
			t.Errorf("the Service's port %s is none of the container's", p.Name)
		}
	}
}

func hasPort(c corev1.Container, name string) bool {
	for _, p := range c.Ports {
		if p.Name == name {
			return true
		}
	}
	return false
}
