package proxy

import (
	"context"
	"log/slog"
	"time"

	"culvert/internal/upstream"
)

// giveUp ends a visitor that gets no service.
func (p *passage) giveUp(ctx context.Context, err error) {
	reason := upstream.ReasonOf(err)
	p.recordFailure(err) // first: who was sent away can be told why
	if reason == upstream.NoRoute && p.settings.Refuse != nil {
		p.settings.Refuse(p.visitor)
	} else {
		_ = p.visitor.Reset()
	}
	level := slog.LevelWarn
	switch reason {
	case upstream.Canceled, upstream.NoMember, upstream.NoRoute: // counted, and no news
		level = slog.LevelDebug
	}
	p.tcp.tell(ctx, level, p, reason, err)
}

// tell logs that a visitor came in vain, or counts it for the next line if there were many.
func (t *TCP) tell(ctx context.Context, level slog.Level, p *passage, reason upstream.Reason, err error) {
	if !t.cfg.Log.Enabled(ctx, level) {
		return
	}
	if level > slog.LevelDebug && !t.news.Allow() {
		t.untold.Add(1)
		return
	}
	attrs := []any{"source", p.visit.Source, "reason", reason, "err", err}
	if n := t.untold.Swap(0); n > 0 {
		attrs = append(attrs, "untold", n)
	}
	p.log().Log(ctx, level, "no connection for the visitor", attrs...)
}

// tells says whether what happens to every connection is logged at all: finding that out for each line costs more.
func (t *TCP) tells(ctx context.Context) bool { return t.cfg.Log.Enabled(ctx, slog.LevelDebug) }

func (p *passage) log() *slog.Logger {
	return p.tcp.cfg.Log.With("conn", p.visit.ID, "entrypoint", p.settings.Name)
}

// opened puts down that the visitor has a member.
func (p *passage) opened(ctx context.Context) {
	if p.tcp.tells(ctx) {
		p.log().Debug("connection open", "source", p.visit.Source, "member", p.member(), "after", time.Since(p.start))
	}
	if p.tcp.cfg.Records != nil {
		p.entry = p.tcp.cfg.Records.Opened(p.record())
	}
}

// member is the name of who serves the visitor.
func (p *passage) member() string { return p.dialed.Place.Member().Name() }

// closed puts down how a connection ended, and gives its place back.
func (p *passage) closed(ctx context.Context, err error) {
	if p.dialed.Place == nil {
		return
	}
	p.tcp.open.remove(p)
	p.dialed.Place.Release()
	p.recordEnd()
	if p.tcp.tells(ctx) {
		p.log().Debug("connection closed", "member", p.member(), "after", time.Since(p.start), "err", err)
	}
}
