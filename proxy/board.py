"""Numbers that all workers of one machine see at once: shared memory that the supervisor makes and each one maps.

Rules of this file:
1. A cell belongs to one process at a time, and that process alone writes it; whoever wants a total adds cells up. So
   nothing is locked, and no total is ever wrong by more than what is being written this moment.
2. What a cell says of money stays when its process dies; what it says of connections and of requests under way, the
   supervisor takes back.
3. A cell has places for what its process counts by name. They are in no order that two processes share, since they may
   have different configurations: the name's hash stands beside the number.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator

from farthing.policies.spend import DAYS, DayTotal
from farthing.proxy.errors import ConfigFault

__all__ = ["PLACES", "TOTALS", "Board", "SharedTotal"]

TOTALS = ("total", "audited", "judged", "shadowed", "warmed")
_TAKES, _OPEN, _FIRST_TOTAL = 0, 1, 2
_FIRST_PLACE = _FIRST_TOTAL + 2 * DAYS * len(TOTALS)
PLACES = 1024
_ROW = _FIRST_PLACE + 2 * PLACES
_BYTES = 8
_DAY_S = 86_400


class Board:
    """`count` workers: two cells for each, since one that follows starts before the last one has ended, and one that
    the totals begin with. `fd`: of the memory, for those who shall map it too."""

    def __init__(self, fd: int, count: int) -> None:
        self.fd = fd
        self.count = count
        self._memory = mmap.mmap(fd, (2 * count + 1) * _ROW * _BYTES)
        self._cells = memoryview(self._memory).cast("q")

    @classmethod
    def make(cls, count: int) -> Board:
        """A new one, all zero. Raises OSError."""
        with tempfile.TemporaryFile() as file:
            file.truncate((2 * count + 1) * _ROW * _BYTES)
            return cls(os.dup(file.fileno()), count)

    def close(self) -> None:
        """Unmap it."""
        self._cells.release()
        self._memory.close()
        os.close(self.fd)

    @property
    def first(self) -> int:
        """The cell that totals begin with: nobody's."""
        return 2 * self.count

    # -- connections

    def takes(self, cell: int, *, takes: bool) -> None:
        """This process takes connections from now on, or no more."""
        self._cells[cell * _ROW + _TAKES] = int(takes)

    def opened(self, cell: int, connections: int) -> None:
        """So many are open."""
        self._cells[cell * _ROW + _OPEN] = connections

    def gone(self, cell: int) -> None:
        """Its process has ended."""
        self.takes(cell, takes=False)
        self.opened(cell, 0)
        for at in range(cell * _ROW + _FIRST_PLACE, (cell + 1) * _ROW):
            self._cells[at] = 0

    def fewest(self, but: int) -> int | None:
        """The fewest connections that any other process has which takes some; None where there is none."""
        others = [
            self._cells[cell * _ROW + _OPEN]
            for cell in range(2 * self.count)
            if cell != but and self._cells[cell * _ROW + _TAKES]
        ]
        return min(others, default=None)

    # -- what is under way

    def place(self, cell: int, name: str) -> int:
        """Where this process counts what has that name. Raises ConfigFault: it counts too much already."""
        named = _hash(name)
        for place in range(PLACES):
            at = cell * _ROW + _FIRST_PLACE + 2 * place
            if self._cells[at] in (0, named):
                self._cells[at] = named
                return place
        raise ConfigFault(f"with several workers at most {PLACES - 1} replicas of upstreams can be counted")

    def counted(self, cell: int, place: int, count: int) -> None:
        """So many are under way there, in this process."""
        self._cells[cell * _ROW + _FIRST_PLACE + 2 * place + 1] = count

    def elsewhere(self, cell: int, place: int) -> int:
        """How many are under way in all other processes where this one has that place."""
        named = self._cells[cell * _ROW + _FIRST_PLACE + 2 * place]
        return sum(self._count(other, place, named) for other in range(2 * self.count) if other != cell)

    def _count(self, cell: int, likely: int, named: int) -> int:
        first = cell * _ROW + _FIRST_PLACE
        if self._cells[first + 2 * likely] == named:
            return self._cells[first + 2 * likely + 1]
        for at in range(first, first + 2 * PLACES, 2):
            if self._cells[at] == named:
                return self._cells[at + 1]
            if not self._cells[at]:
                break  # places are taken in order
        return 0

    # -- money

    def add(self, cell: int, which: int, day: int, pico: int) -> None:
        """Add to what this cell says of that day, in the place of the earliest day where it says nothing of it yet."""
        first = self._of(cell, which)
        said = [self._cells[at] for at in range(first, first + 2 * DAYS, 2)]
        at = first + 2 * said.index(day if day in said else min(said))  # 0 is a free one
        if self._cells[at] != day:
            self._cells[at + 1] = 0  # before the day, so that nobody takes another day's for this one's
            self._cells[at] = day
        self._cells[at + 1] += pico

    def total(self, which: int, day: int) -> int:
        """All cells' of that day."""
        return sum(pico for said, pico in self._pairs(which) if said == day)

    def known(self, which: int) -> bool:
        """Whether a total has been begun."""
        return self._cells[self._of(self.first, which)] != 0

    def _pairs(self, which: int) -> Iterator[tuple[int, int]]:
        for cell in range(2 * self.count + 1):
            first = self._of(cell, which)
            for at in range(first, first + 2 * DAYS, 2):
                yield self._cells[at], self._cells[at + 1]

    def _of(self, cell: int, which: int) -> int:
        """Where the days of a total begin in a cell: `DAYS` pairs, a day's number and what was spent."""
        return cell * _ROW + _FIRST_TOTAL + 2 * DAYS * which


def _hash(name: str) -> int:
    """Not 0, which is a free place's."""
    return 1 + (int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 2)


class SharedTotal(DayTotal):
    """A day's total over all workers; `cell`: this one's."""

    def __init__(self, board: Board, cell: int, which: int) -> None:
        super().__init__()
        self._board, self._cell, self._which = board, cell, which

    def begin(self, pico: int, now_s: float) -> None:
        """DayTotal.begin: said by the first worker, before there is another one."""
        if not self._board.known(self._which):
            self._board.add(self._board.first, self._which, int(now_s // _DAY_S), pico)

    def add(self, pico: int, now_s: float) -> None:
        """DayTotal.add."""
        self._board.add(self._cell, self._which, int(now_s // _DAY_S), pico)

    def read(self, now_s: float) -> int:
        """DayTotal.read."""
        return self._board.total(self._which, int(now_s // _DAY_S))
