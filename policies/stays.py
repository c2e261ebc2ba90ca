"""Where conversations are warm: which variant read a conversation's prompt last, and until when its cache keeps it.

Rules of this file: no clock, no IO; memory is bounded, and whoever was heard of longest ago is forgotten first; no text
is kept, only the number that `choose.conversation` makes of how a conversation begins.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

__all__ = ["Stay", "Stays"]

_MOST = 32_768  # about 300 bytes each


@dataclass(frozen=True, slots=True)
class Stay:
    """Of one conversation. `tokens`: how many of its prompt the variant's cache has. `until_s`: seconds since the
    epoch."""

    variant: str
    tokens: int
    until_s: float


@dataclass(slots=True)
class Stays:
    """Of all conversations of late. `most`: that are remembered."""

    most: int = _MOST
    known: OrderedDict[int, Stay] = field(default_factory=OrderedDict)

    def get(self, conversation: int, now_s: float) -> Stay | None:
        """Where the conversation is warm; None: nowhere, any more."""
        stay = self.known.get(conversation)
        if stay is None or stay.until_s > now_s:
            return stay
        del self.known[conversation]
        return None

    def put(self, conversation: int, stay: Stay) -> None:
        """It has just been answered there."""
        self.known[conversation] = stay
        self.known.move_to_end(conversation)
        if len(self.known) > self.most:
            self.known.popitem(last=False)
