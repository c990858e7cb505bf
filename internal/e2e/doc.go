// Package e2e runs the real binary against real programs: Debian's servers, curl, Prometheus, and visitors of its own.
//
// The tests build culvert once (or take the one that CULVERT_E2E_BIN names) and start it as an operator would. As root
// they run in a network namespace of their own, where every port is free. Nothing waits for a fixed time but for how long
// an outage lasts: a test waits for a line of output, an answer or the end of a process, bounded by a deadline. A test that needs a program says so
// in its first line with need, and is skipped by name where it is missing; under CI=true it fails instead.
//
// Figures of time and memory are logged, and held by ceilings generous enough for a busy machine of two cores; the
// sharp bars live in benchmarks. With CULVERT_TEST_LONG=1 the tests that repeat do so many more times. Under -race the
// binary is built with the race detector too: what it finds ends the process and fails the test.
package e2e
