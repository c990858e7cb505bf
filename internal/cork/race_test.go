//go:build race

package cork

const raceEnabled = true
