// Package epoll has one goroutine wait for many descriptors.
//
// The runtime wakes a goroutine for each descriptor, whose stack takes more memory than all else that an idle connection
// needs. An Epoll is itself a descriptor that the runtime waits for, so that no thread is held. It reads and writes nothing,
// and is there on Linux alone.
package epoll
