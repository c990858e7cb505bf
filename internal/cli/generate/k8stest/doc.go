// Package k8stest decodes the manifests that package generate writes into the types of the Kubernetes API, strictly: a
// misspelt or misplaced field fails its test. It is a module of its own, so that culvert does not depend on Kubernetes.
package k8stest
