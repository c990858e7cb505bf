// Package nowait reads and writes descriptors that do not block, without telling the scheduler.
//
// A system call of Go's own gives its processor away when it takes longer than a few microseconds, and a large read or
// write of a socket does: waking another thread for it, again and again, costs more than the copying. These calls do not,
// because they never wait; they must be used on non-blocking descriptors alone, such as those of package net.
package nowait
