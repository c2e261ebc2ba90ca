"""Who has which keys of a cluster, as one of its nodes sees it. Pure.

Source: Valkey and Redis, "CLUSTER NODES" and "CLUSTER SLOTS". A node's own line has the slots that are on their way in
brackets: they are still whose they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["SLOTS", "Dealt", "View", "endpoints", "view_of"]

SLOTS = 16_384
_FAILED, _STRANGER = "fail", {"handshake", "noaddr", "fail"}  # "fail?" is one node's suspicion, and no verdict

Dealt = frozenset[tuple[str, tuple[tuple[int, int], ...]]]
"""Every primary's id, with its slots: first and last of each range."""


@dataclass(frozen=True, slots=True)
class View:
    """`me`: the id of the node whose view it is. `dealt`: the primaries, also those that have no slots, unless they are
    down or not known yet. `sound`: none that has slots is held to be down. `places`: host, which may be empty, and port
    of each primary."""

    me: str
    dealt: Dealt
    sound: bool
    places: Mapping[str, tuple[str, int]]

    @property
    def primaries(self) -> frozenset[str]:
        """Their ids."""
        return frozenset(id for id, _ in self.dealt)


def view_of(text: str) -> View:
    """What CLUSTER NODES says. Raises ValueError: it says something else."""
    me, sound = "", True
    dealt: set[tuple[str, tuple[tuple[int, int], ...]]] = set()
    places: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        parts = line.split()
        if len(parts) < 8:
            raise ValueError(f"no node: {line[:80]!r}")
        id, address, flags = parts[0], parts[1], set(parts[2].split(","))
        if "myself" in flags:
            me = id
        if "master" not in flags:
            continue
        slots = tuple(_range(part) for part in parts[8:] if not part.startswith("["))
        if not slots and flags & _STRANGER:
            continue
        sound = sound and _FAILED not in flags
        dealt.add((id, slots))
        host, _, port = address.partition("@")[0].rpartition(":")
        places[id] = host, int(port)
    return View(me, frozenset(dealt), sound, places)


def endpoints(said: Sequence[Any]) -> dict[str, tuple[str, int]]:
    """Host and port by id of those that have slots, from CLUSTER SLOTS: where clients are to ask, which may be a name.
    The host is empty where the node says none: it is then that of whoever was asked."""
    found = {}
    for _, _, (host, port, id, *_), *_ in said:
        found[id.decode()] = ((host or b"").decode(), int(port))
    return found


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)
