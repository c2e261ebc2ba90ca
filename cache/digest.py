"""Whether two indexes hold the same, said in a few bytes. Pure.

Each entry has a stamp: a hash of what it is, and the minute in which it expires. Their sum, by minute, is kept up at
every change, so that it costs nothing to ask. Of entries that expire soon one index has let go and another hasn't yet;
so a digest counts only what expires after a minute that all agree on.

An index is ahead of its log by its own changes that haven't come back through it. `Ahead` remembers what stood there
before them, so that a digest can be told of exactly what the log said at one place.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, Protocol

__all__ = ["Ahead", "Digest", "Entry", "Stamp", "stamp_of"]

_MODULUS = 2**64


class Stamp(NamedTuple):
    """One entry's part of the sum, of 64 bits, and the minute (since the epoch) in which it expires."""

    minute: int
    value: int


class Entry(Protocol):
    """What a stamp is made of. The vector isn't in it: it follows from the text, and is rounded on its way."""

    @property
    def entry_key(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def expires_s(self) -> float: ...


def stamp_of(entry: Entry) -> Stamp:
    """An entry's stamp."""
    parts = (entry.entry_key.encode(), entry.scope.encode(), struct.pack("<d", entry.expires_s), entry.text.encode())
    value = int.from_bytes(hashlib.blake2b(b"\0".join(parts), digest_size=8).digest(), "little")
    return Stamp(int(max(entry.expires_s, 0.0) // 60), value)


class Digest:
    """How many entries there are, and the sum of their stamps, by minute."""

    def __init__(self) -> None:
        self._minutes: dict[int, tuple[int, int]] = {}

    def add(self, one: Stamp) -> None:
        """An entry more."""
        count, total = self._minutes.get(one.minute, (0, 0))
        self._minutes[one.minute] = count + 1, (total + one.value) % _MODULUS

    def drop(self, one: Stamp) -> None:
        """One that was added goes."""
        count, total = self._minutes[one.minute]
        if count == 1:
            del self._minutes[one.minute]
        else:
            self._minutes[one.minute] = count - 1, (total - one.value) % _MODULUS

    def clear(self) -> None:
        """All go."""
        self._minutes.clear()

    def after(self, minute: int, ahead: Iterable[tuple[Stamp | None, Stamp | None]] = ()) -> tuple[int, str]:
        """Count and sum of what expires after that minute. `ahead`: pairs of what is there, and what is to be counted
        in its place."""
        count = total = 0
        for when, (some, part) in self._minutes.items():
            if when > minute:
                count, total = count + some, total + part
        for now, then in ahead:
            for one, sign in ((now, -1), (then, 1)):
                if one is not None and one.minute > minute:
                    count, total = count + sign, total + sign * one.value
        return count, f"{total % _MODULUS:016x}"


class Ahead:
    """Keys whose own changes haven't come back yet, with what the log has there."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[int, Stamp | None]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def mine(self, key: str, then: Stamp | None) -> None:
        """A change of one's own goes out. `then`: what was there before it."""
        count, first = self._waiting.get(key, (0, then))
        self._waiting[key] = count + 1, first

    def arrived(self, keys: Iterable[str]) -> None:
        """These stand in the log by now, once for each; what was told after them there is told next."""
        for key in keys:
            count, first = self._waiting.get(key, (0, None))
            if count > 1:
                self._waiting[key] = count - 1, first
            else:
                self._waiting.pop(key, None)

    def said(self, key: str, then: Stamp | None) -> bool:
        """The log has this at the key. Whether it isn't to be followed, since a change of one's own comes later."""
        if key not in self._waiting:
            return False
        self._waiting[key] = self._waiting[key][0], then
        return True

    def said_nothing(self, but: Collection[str]) -> None:
        """The log has nothing but these keys."""
        for key in [key for key in self._waiting if key not in but]:
            self.said(key, None)

    def clear(self) -> None:
        """Nothing is waited for any more."""
        self._waiting.clear()

    def pairs(self, now: Callable[[str], Stamp | None]) -> Iterable[tuple[Stamp | None, Stamp | None]]:
        """What `Digest.after` wants. `now`: what is there at a key."""
        return [(now(key), then) for key, (_, then) in self._waiting.items()]
