"""What went in and came out of exchanges, kept until their rows come by: only where `otlp.content` is on.

Rules of this file: the event loop only puts references into a table; all that waits anywhere for the collector, the
sender's process included, stays within one bound of bytes. What no longer fits is left out and counted; its span goes
without it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress

from farthing.proxy.capture_record import Said, said_in
from farthing.proxy.config_capture import Capture
from farthing.proxy.exchange import Endpoint, Exchange
from farthing.proxy.row import Row

__all__ = ["Contents", "size_of"]

_OVERHEAD_BYTES = 1024


def size_of(said: Said) -> int:
    """Bytes that it counts for."""
    return len(said.request) + len(said.answer or b"") + _OVERHEAD_BYTES


class Contents:
    """`said_in`, `take` and `append` belong to the event loop, `pop` to one other thread, `let_go` to any.

    `chosen`: says of which exchanges anything may be told; it changes with a reload. `dropped`: contents left out for
    want of room.
    """

    def __init__(self, chosen: Capture, most_bytes: int = 64 * 2**20) -> None:
        self.chosen = chosen
        self.dropped = 0
        self._most = most_bytes
        self._held: OrderedDict[str, Said] = OrderedDict()
        self._in_bytes = self._out_bytes = 0  # the first is the event loop's own
        self._books = threading.Lock()  # round the second

    @property
    def waiting_bytes(self) -> int:
        """Of all that wait, here or further on."""
        return self._in_bytes - self._out_bytes

    def said_in(self, ex: Exchange) -> Said | None:
        """What may be told of it; None where nothing may: the capture store's own rules, whether or not it is on."""
        return said_in(ex, self.chosen)

    def take(self, ex: Exchange, row: Row) -> None:
        """Keep what may be told of an exchange that is over. To be called before its row is appended."""
        said = said_in(ex, self.chosen)
        if said is not None:
            self.append(said, row)

    def append(self, said: Said, row: Row) -> None:
        """The same, of what `said_in` gave. Nothing of embeddings: the conventions know no content of theirs."""
        if row.endpoint == Endpoint.EMBEDDINGS:
            return
        size = size_of(said)
        while self.waiting_bytes + size > self._most and self._held:
            with suppress(KeyError):  # of a row that the ledger dropped, or hasn't told of yet
                _, oldest = self._held.popitem(last=False)
                self.dropped += 1
                self.let_go(size_of(oldest))
        if self.waiting_bytes + size > self._most:
            self.dropped += 1
            return
        self._in_bytes += size
        self._held[row.id] = said

    def pop(self, request_id: str) -> Said | None:
        """What is to be told with this request's row; whoever takes it says `let_go` when it is gone."""
        return self._held.pop(request_id, None)

    def let_go(self, size: int) -> None:
        """So many bytes wait no longer."""
        with self._books:
            self._out_bytes += size
