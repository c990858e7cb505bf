//go:build !linux

package proxy

// sleepers has nobody sleep: a goroutine waits for each direction.
type sleepers struct{}

func (*sleepers) put(*direction) bool { return false }

func (*sleepers) has(*direction) bool { return false }

func (*sleepers) rouse(*direction) {}
