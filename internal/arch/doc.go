// Package arch holds the tree to its architecture: which package may import which, what the binary may link, and the
// rules of the house that a compiler does not know.
//
// It has tests only. It guarantees nothing at run time, and it does not judge names, sizes or style: those are the
// linter's and the reviewer's.
package arch
