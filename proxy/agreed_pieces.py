"""A packed state that replicas agree upon, on its way to the server and back in pieces (agreed_wire.py: the scripts).

However large it is, no command carries more than a piece, each within the deadline of one command; and what was written
or read of it before a failure needn't be again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from farthing.proxy.agreed_wire import PART, PIECE, Id, Names, Packed

__all__ = ["PIECE_BYTES", "Coming", "Pieces"]

PIECE_BYTES = 262_144

Eval = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Coming:
    """A state that is being written: as it was at `at`, to be kept in the place of that of `after`. `name`: which no
    other one has. `written`: pieces."""

    name: str
    packed: Packed
    at: Id
    after: Id
    written: int = 0


class Pieces:
    """Of one state's. `eval`: runs a script, given it, its keys and values."""

    def __init__(self, names: Names, eval: Eval, piece_bytes: int) -> None:
        self._names = names
        self._eval = eval
        self._piece_bytes = piece_bytes
        self._of: tuple[str, Id] = "", Id(0, 0)  # what was read last, as far as it was
        self._read: list[bytes] = []

    def count(self, coming: Coming) -> int:
        """How many pieces it has."""
        return -(-len(coming.packed.body) // self._piece_bytes)

    async def write(self, coming: Coming, *, claim: bool = False) -> bool:
        """Write the next piece, if there is one; whether all are written. `claim`: say to those who have nothing that
        something comes. Raises StoreFault."""
        if coming.written < self.count(coming):
            start = coming.written * self._piece_bytes
            keys = (self._names.coming(coming.name), *((self._names.claim,) if claim else ()))
            await self._eval(PIECE, keys, coming.written, coming.packed.body[start : start + self._piece_bytes])
            coming.written += 1
        return coming.written == self.count(coming)

    async def read(self, generation: str, at: Id, count: int) -> bytes | None:
        """The packed state that was kept at that place, in so many pieces; None: it isn't there any more. Raises
        StoreFault; called again for the same it goes on where it was."""
        if self._of != (generation, at) or len(self._read) > count:
            self._of, self._read = (generation, at), []
        keys = (self._names.about, self._names.state, self._names.before)
        while len(self._read) < count:
            piece = await self._eval(PART, keys, generation, str(at), len(self._read), kind="read")
            if piece is None:
                return None
            self._read.append(piece)
        body = b"".join(self._read)
        self._of, self._read = ("", Id(0, 0)), []
        return body
