"""A large entry in pieces of the shared store, and whole again. Pure.

Under the entry's own name lies a *head* (codec.headed): its labels as every entry has them, so that a purge reads them
alike, and what its pieces are: the digest of the whole, how many, and how many bytes together. An entry's own digest
covers all of its bytes, so pieces of two writes are never one entry: they fail it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from farthing.cache.codec import digest_of, headed, manifest_of

__all__ = ["PIECE_BYTES", "Pieces", "cut", "joined", "named_by"]

PIECE_BYTES = 262_144
"""Longest piece, and longest entry that stays in one: `python -m bench.entry_pieces` (docs/exact-cache.md)."""
_MANIFEST = struct.Struct(">16sII")
_MOST = 65_536  # of a head that we did not write


class Pieces(NamedTuple):
    """What a head says of them. `version`: hex of the whole entry's digest."""

    version: str
    number: int
    total: int


def cut(raw: bytes, piece_bytes: int) -> tuple[bytes, list[bytes]]:
    """An encoded entry's head and its pieces; no pieces, and the entry itself, where it isn't longer than one."""
    if len(raw) <= piece_bytes:
        return raw, []
    pieces = [raw[at : at + piece_bytes] for at in range(0, len(raw), piece_bytes)]
    return headed(raw, _MANIFEST.pack(digest_of(raw), len(pieces), len(raw))), pieces


def named_by(head: bytes) -> Pieces | None:
    """What that head says; None: it is no head, or damaged."""
    manifest = manifest_of(head)
    if manifest is None or len(manifest) != _MANIFEST.size:
        return None
    digest, count, total = _MANIFEST.unpack(manifest)
    return Pieces(digest.hex(), count, total) if 1 < count <= min(total, _MOST) else None


def joined(about: Pieces, pieces: Sequence[bytes | None]) -> bytes | None:
    """The encoded entry, for `decode` to check; None: a piece is missing, or they aren't those that the head means."""
    there = [piece for piece in pieces if piece is not None]
    if len(there) != about.number or sum(map(len, there)) != about.total:
        return None
    raw = b"".join(there)
    return raw if digest_of(raw).hex() == about.version else None
