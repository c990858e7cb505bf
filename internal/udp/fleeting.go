package udp

import "time"

// EstablishedAfter is how many datagrams a visitor sends until its flow, once a member has answered, is established. Asking
// a name takes two, for either kind of address, and a few more when some are lost; what begins with a handshake sends more
// at once. A forwarder of names that picks its ports at random asks again from some of them: with this number, and a share
// of the table that is a small part of all ports, hardly ever so often that a port passes for a conversation.
const EstablishedAfter = 6

// How long nothing was heard of a flow that is not established, until a new one may have its place. One whose questions
// were all answered is over, if no handshake goes on, of which a round trip seldom takes longer; one that waits for an
// answer is given up before the visitor may have done so, since a service that loses some questions would soon have all
// places taken by them. This also bounds what a flood can have begun: each place once in such a time.
const (
	AnsweredSilence   = 500 * time.Millisecond
	UnansweredSilence = 2 * time.Second
)

// fleeting are the flows that are not established, each kind in the order in which something was last heard of them.
type fleeting[K comparable, F any] struct {
	asked, answered ring[K, F]
}

func (f *fleeting[K, F]) clear() {
	f.asked.clear()
	f.answered.clear()
}

// kind is where a flow stands: whether there was an answer to each datagram of its visitor's, as far as numbers tell.
func (f *fleeting[K, F]) kind(e *Entry[K, F]) *ring[K, F] {
	if e.got >= e.sent {
		return &f.answered
	}
	return &f.asked
}

// over is the flow that is most likely to be of no more use; nil if each may still be.
func (f *fleeting[K, F]) over(now time.Duration) *Entry[K, F] {
	if e := f.answered.first(); e != nil && now-e.heard >= AnsweredSilence {
		return e
	}
	if e := f.asked.first(); e != nil && now-e.heard >= UnansweredSilence {
		return e
	}
	return nil
}
