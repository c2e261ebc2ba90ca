"""What a worker has of the others: its place, the line to them, the board; None where farthing is one process."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from farthing.policies.spend import DayTotal
from farthing.proxy.board import TOTALS, Board, SharedTotal

if TYPE_CHECKING:
    from farthing.proxy.peers import Peers

__all__ = ["Crew", "day_totals"]


@dataclass(frozen=True, slots=True)
class Crew:
    """See the module. `first`: it starts together with farthing. `sockets`: that all workers listen on."""

    slot: int
    cell: int
    peers: Peers
    board: Board
    first: bool = True
    sockets: Sequence[socket.socket] = field(default=())

    @property
    def keeper(self) -> bool:
        """Whether this is the one that does what only one may do: it learns, rolls up, sweeps, decides on policies."""
        return self.slot == 0


def day_totals(crew: Crew | None) -> tuple[DayTotal, ...]:
    """The totals of board.TOTALS, in that order."""
    if crew is None:
        return tuple(DayTotal() for _ in TOTALS)
    return tuple(SharedTotal(crew.board, crew.cell, which) for which in range(len(TOTALS)))
