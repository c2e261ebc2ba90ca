"""How often routes were looked up and served, over time: counts in slots that grow wider with what they span. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from farthing.policies.reuse import RouteKey

__all__ = ["Pulse", "Slots"]

# Each is a multiple of the one before, so that slots can be joined.
_WIDTHS_S = (10, 30, 60, 300, 900, 1_800, 3_600, 10_800, 21_600)
_SLOTS = 120
_ROUTES = 50

Slots = dict[int, list[int]]
"""By slot: look-ups and hits."""


@dataclass(slots=True)
class Pulse:
    """Look-ups and hits over time, in slots of equal width which grows with the time that they span, to 30 days.

    Counts of the 50 routes used last are kept, and those of all together. Memory: 120 pairs of counts a route.
    """

    width_s: int = _WIDTHS_S[0]
    total: Slots = field(default_factory=dict)
    routes: OrderedDict[RouteKey, Slots] = field(default_factory=OrderedDict)

    def looked(self, route: RouteKey, now_s: float) -> None:
        """A request of this route was looked up."""
        self._count(route, now_s, 0)

    def served(self, route: RouteKey, now_s: float) -> None:
        """One was answered by a neighbour. `now_s`: of its look-up, so that no slot has more hits than look-ups."""
        self._count(route, now_s, 1)

    def series(self, route: RouteKey | None = None) -> list[tuple[float, int, int]]:
        """(start in seconds, look-ups, hits) of each slot that has any, in order; of one route, or of all."""
        slots = self.total if route is None else self.routes.get(route, {})
        return [(slot * float(self.width_s), looked, hits) for slot, (looked, hits) in sorted(slots.items())]

    def busiest(self, count: int) -> list[RouteKey]:
        """The routes with the most look-ups."""
        sums = {route: sum(counts[0] for counts in slots.values()) for route, slots in self.routes.items()}
        return sorted(sums, key=lambda route: -sums[route])[:count]

    def _count(self, route: RouteKey, now_s: float, which: int) -> None:
        slots = self.routes.get(route)
        if slots is None:
            slots = self.routes[route] = {}
            if len(self.routes) > _ROUTES:
                self.routes.popitem(last=False)
        self.routes.move_to_end(route)
        slot = int(now_s // self.width_s)
        if slot not in self.total:
            slot = self._make_room(now_s)
        for held in (self.total, slots):
            held.setdefault(slot, [0, 0])[which] += 1

    def _make_room(self, now_s: float) -> int:
        """Drop what is too old, widen the slots until all fit; the slot of `now_s`."""
        oldest_s = now_s - _SLOTS * _WIDTHS_S[-1]
        everyone: list[Slots] = [self.total, *self.routes.values()]
        for held in everyone:
            for slot in [slot for slot in held if slot * self.width_s < oldest_s]:
                del held[slot]
        while True:
            slot = int(now_s // self.width_s)
            span = max(self.total, default=slot), min(self.total, default=slot)
            wider = next((width for width in _WIDTHS_S if width > self.width_s), None)
            if wider is None or max(span[0], slot) - min(span[1], slot) < _SLOTS:
                return slot
            for held in everyone:
                joined: Slots = {}
                for old, counts in held.items():
                    sums = joined.setdefault(old * self.width_s // wider, [0, 0])
                    sums[0], sums[1] = sums[0] + counts[0], sums[1] + counts[1]
                held.clear()
                held.update(joined)
            self.width_s = wider
