//go:build !race

package cork

const raceEnabled = false
