//go:build !unix

package handover

import (
	"context"
	"errors"
	"log/slog"
)

// predecessor exists on Unix.
type predecessor struct{}

// Inherit gives Sockets: nothing is inherited on this system.
func Inherit(log *slog.Logger) (*Sockets, error) { return New(log), nil }

// copy is never called: nothing is inherited.
func (k *socket) copy() (*socket, error) { return nil, errUnsupported }

// Ready does nothing on this system.
func (s *Sockets) Ready() error { return nil }

var errUnsupported = errors.New("not on this system")

// Self is not known on this system.
func Self() (Program, error) { return Program{}, errUnsupported }

// Successor exists on Unix.
type Successor struct{}

// Upgrade is not possible on this system.
func (s *Sockets) Upgrade(context.Context, Program) (*Successor, error) { return nil, errUnsupported }

// PID is 0.
func (c *Successor) PID() int { return 0 }

// Leave does nothing.
func (c *Successor) Leave() error { return nil }
