"""Which trace a request belongs to, by the word of its client (W3C Trace Context). Kept until its row comes by.

The header itself goes upstream as it came, like every other; this only remembers it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Parent", "Traces", "parsed"]

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_MOST = 50_000


class Parent(NamedTuple):
    """The span that a client's call is part of. `flags`: bit 0 says whether the client records it."""

    trace_id: int
    span_id: int
    flags: int


def parsed(header: str) -> Parent | None:
    """A `traceparent`; None where it isn't one, which starts a trace of its own (Trace Context, 3.2.2 and 4.3)."""
    found = _FORM.fullmatch(header.strip())
    if found is None:
        return None
    parent = Parent(*(int(part, 16) for part in found.groups()))
    return parent if parent.trace_id and parent.span_id else None


class Traces:
    """Headers by request id, of the latest so many. `note` belongs to the event loop, `take` to one other thread."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._held: OrderedDict[str, str] = OrderedDict()

    def note(self, request_id: str, traceparent: str | None) -> None:
        """Remember what this request came with."""
        if traceparent is None:
            return
        self._held[request_id] = traceparent
        if len(self._held) > self._most:  # rows that the ledger dropped never ask for theirs
            with suppress(KeyError):
                self._held.popitem(last=False)

    def take(self, request_id: str) -> Parent | None:
        """The parent of this request's span, forgotten with this call."""
        held = self._held.pop(request_id, None)
        return None if held is None else parsed(held)
