"""One request, asked a second time: an exchange of its own that carries what the client asked."""

from __future__ import annotations

from farthing.proxy.exchange import Call, Exchange, Sink

__all__ = ["CARRIED", "branch"]

CARRIED = (
    *("credential", "tenant", "controls", "endpoint", "payload", "model", "stream", "asks_usage", "body", "exact"),
    *("policy", "config_id", "optimise", "plan", "variant", "caller", "hold"),
)


def branch(ex: Exchange, sink: Sink) -> Exchange:
    """The same request with its rewritten body, to be answered into `sink`; it has a call of its own."""
    own = Exchange(ex.id, ex.original, ex.received_s, ex.received_tick)
    for name in CARRIED:
        setattr(own, name, getattr(ex, name))
    own.body_out, own.sink, own.marker = ex.body_out, sink, ex.marker
    own.call = Call(id=ex.call.id if ex.call is not None else "")
    return own
