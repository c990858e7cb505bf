//go:build !unix

package cli

// onHangup does nothing: there is no such signal here.
func onHangup(func()) (stop func()) { return func() {} }
