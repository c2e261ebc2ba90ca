"""A worker's place: what the supervisor hands to the process that it starts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """`slot`: which of the `count` workers; that of slot 0 is the keeper, who does what only one may do. `cell`: its
    cell on the board. `listeners`, `line`, `board`: file descriptors, of the sockets that all listen on, of the line to
    the hub, and of the board's memory. `first`: it starts together with farthing. `flags`: of the command line, and
    `config`, the file."""

    slot: int
    count: int
    cell: int
    listeners: tuple[int, ...]
    line: int
    board: int
    first: bool
    config: str | None
    flags: dict[str, Any]

    def written(self) -> str:
        """As one argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Place:
        """From `written`."""
        fields = json.loads(text)
        return cls(**fields | {"listeners": tuple(fields["listeners"])})
