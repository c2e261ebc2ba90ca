"""Large entries on the server: reads their pieces, and writes them before they land (pieces.py, redis_scripts.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from farthing.cache.codec import is_head
from farthing.cache.pieces import Pieces, joined, named_by
from farthing.cache.redis_names import Names
from farthing.cache.redis_scripts import PIECE

__all__ = ["COMING_MS", "Cut", "Found", "batches", "raw_of", "weight", "with_pieces", "write_pieces"]

COMING_MS = 60_000
"""How long pieces stay that never land."""
_AT_ONCE_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Cut:
    """A head, and the pieces as they came. `about`: None where the head is damaged."""

    head: bytes
    about: Pieces | None
    pieces: tuple[bytes | None, ...]


Found = bytes | Cut | None
"""What lies under an entry's name."""


async def with_pieces(client: Any, names: Names, keys: Sequence[str], values: Sequence[bytes | None]) -> list[Found]:
    """What was read of these entries, large ones with their pieces: all pieces in one round trip, where there are any.
    Raises what redis-py raises."""
    from redis.exceptions import ResponseError

    cut = {at: named_by(value) for at, value in enumerate(values) if value is not None and is_head(value)}
    asked = [(at, number) for at, about in cut.items() if about is not None for number in range(about.number)]
    said: list[Any] = []
    if asked:
        pipe = client.pipeline(transaction=False)
        for at, number in asked:
            pipe.hget(names.pieces(keys[at]), str(number))
        said = await pipe.execute(raise_on_error=False)
    there: dict[int, list[bytes | None]] = {}
    for (at, _), piece in zip(asked, said, strict=True):
        if isinstance(piece, Exception) and not isinstance(piece, ResponseError):
            raise piece
        there.setdefault(at, []).append(piece if isinstance(piece, bytes) else None)
    return [
        Cut(value, cut[at], tuple(there.get(at, ()))) if value is not None and at in cut else value
        for at, value in enumerate(values)
    ]


def raw_of(found: Found) -> bytes | None:
    """The encoded entry; None: there is none, or what there is of it isn't whole."""
    if isinstance(found, Cut):
        return None if found.about is None else joined(found.about, found.pieces)
    return found


def weight(found: Found) -> int:
    """Its bytes."""
    if isinstance(found, Cut):
        return sum(len(piece) for piece in found.pieces if piece is not None)
    return 0 if found is None else len(found)


def batches(pieces: Sequence[bytes]) -> Iterator[Sequence[tuple[int, bytes]]]:
    """The numbered pieces that one call writes."""
    some: list[tuple[int, bytes]] = []
    for numbered in enumerate(pieces):
        some.append(numbered)
        if sum(len(piece) for _, piece in some) >= _AT_ONCE_BYTES:
            yield some
            some = []
    if some:
        yield some


async def write_pieces(client: Any, name: str, some: Sequence[tuple[int, bytes]], life_ms: int) -> None:
    """Write these under that name of pieces that are coming. Raises what redis-py raises."""
    pipe = client.pipeline(transaction=False)
    for number, piece in some:
        pipe.execute_command("EVAL", PIECE, 1, name, number, piece, min(life_ms, COMING_MS))
    await pipe.execute()
