//go:build race

package e2e

// raceEnabled says that the race detector is on: memory and speed are not what they are without it.
const raceEnabled = true
