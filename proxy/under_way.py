"""How many requests are under way at one place: in this process, and in all workers of the machine.

Rules of this file:
1. A limit is kept by beginning first and looking then: two workers that take the last place at the same moment both see
   that it was one too many, and both step back. So a declared limit is never passed; near it one may be refused that
   there was room for.
2. A place is counted once in a process, however many policies lead to it.
"""

from __future__ import annotations

from farthing.proxy.crew import Crew

__all__ = ["EVERYTHING", "Counts", "UnderWay"]

EVERYTHING = ""
"""The place that all requests of a process are at."""


class UnderWay:
    """One place's. `here`: in this process."""

    __slots__ = ("here",)

    def __init__(self) -> None:
        self.here = 0

    @property
    def all(self) -> int:
        """In all workers."""
        return self.here

    def begin(self) -> None:
        """One more here."""
        self.here += 1

    def end(self) -> None:
        """One fewer here."""
        self.here -= 1


class _Shared(UnderWay):
    """`place`: among this worker's places on the board."""

    __slots__ = ("_board", "_cell", "_place")

    def __init__(self, crew: Crew, name: str) -> None:
        super().__init__()
        self._board, self._cell = crew.board, crew.cell
        self._place = crew.board.place(crew.cell, name)

    @property
    def all(self) -> int:
        """UnderWay.all."""
        return self.here + self._board.elsewhere(self._cell, self._place)

    def begin(self) -> None:
        """UnderWay.begin."""
        self.here += 1
        self._board.counted(self._cell, self._place, self.here)

    def end(self) -> None:
        """UnderWay.end."""
        self.here -= 1
        self._board.counted(self._cell, self._place, self.here)


class Counts:
    """Every place's. `crew`: None where farthing is one process."""

    def __init__(self, crew: Crew | None = None) -> None:
        self._crew = crew
        self._known: dict[str, UnderWay] = {}

    def at(self, name: str) -> UnderWay:
        """What is under way there, the same object for the same name. Raises ConfigFault: the board has no room."""
        if name not in self._known:
            self._known[name] = UnderWay() if self._crew is None else _Shared(self._crew, name)
        return self._known[name]
