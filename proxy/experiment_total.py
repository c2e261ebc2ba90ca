"""The sums of one experiment: what rows and words add to them once it is known whose they are. No IO.

What is added is a *placed* event, a list of plain values, so that it may come from this process or through a log from
another replica:

    ["row", arm, unit, day, slices, [cost, latency, error]]     one request; None where it says nothing of it
    ["more", arm, unit, day, slices, cost before, how much more]
    ["said", arm, unit, day, slices, metric, values before, values after]

`arm`: number; `day`: since the start; `slices`: pairs of name and value. The same events in the same order make the
same sums; in another order the same but for the last digit, as long as nothing is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from farthing.policies.assign import Unit
from farthing.policies.experiment_sums import Kind, Seen, Tracker

__all__ = ["ROW_METRICS", "Placed", "Sums", "Wanted"]

Placed = list[Any]
Slices = Sequence[Sequence[str]]
ROW_METRICS = ("cost_usd", "latency_ms", "error")
_MOST_SLICES = 40
_SLICE_UNITS = 10_000


class Wanted(NamedTuple):
    """A metric that is to be followed."""

    name: str
    kind: Kind
    bounds: tuple[float, float] | None


@dataclass(slots=True)
class Sums:
    """All of them. `arms`: their names, the control first; `wanted`: metrics, the deciding one first; `rest`: the
    control is all traffic that is in no other arm. `before`: the covariate of the deciding metric, by unit. `lock`:
    whoever reads or changes them from several threads holds it."""

    name: str
    arms: tuple[str, ...]
    unit: Unit
    since_s: float
    wanted: tuple[Wanted, ...]
    most_units: int
    before: dict[str, float] = field(default_factory=dict)
    rest: bool = False
    trackers: dict[str, Tracker] = field(init=False)
    slices: dict[tuple[str, str], Tracker] = field(default_factory=dict, init=False)
    assigned: Tracker = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        decides = self.wanted[0].name
        self.trackers = {
            one.name: Tracker(one.kind, len(self.arms), self.alone, self.most_units, one.bounds,
                              self.before if one.name == decides else {}, with_days=one.name == decides)
            for one in self.wanted
        }  # fmt: skip
        # Whoever was assigned counts for the shares, whether or not anything was said of them.
        self.assigned = Tracker("ratio", len(self.arms), self.alone, self.most_units)

    @property
    def alone(self) -> bool:
        """Whether each request is its own unit."""
        return self.unit == "request"

    def take(self, placed: Placed) -> None:
        """Add one event. Raises ValueError, TypeError, IndexError: it is none."""
        kind, arm, unit, day, slices, *rest = placed
        if not 0 <= arm < len(self.arms):
            raise ValueError(f"there is no arm {arm}")
        if kind == "row":
            self._row(arm, unit, day, slices, rest[0])
        elif kind == "more":
            self._more(arm, unit, day, slices, *rest)
        elif kind == "said":
            self._said(arm, unit, day, slices, *rest)
        else:
            raise ValueError(f"there is no event {kind!r}")

    def remember(self, past: Mapping[str, float]) -> None:
        """What these units were like before the start is now this; what they did since counts with it."""
        counted = (self.trackers[self.wanted[0].name], *self.slices.values())
        for unit, mean in past.items():
            for tracker in counted:
                tracker.take_out(unit)
            self.before[unit] = mean
            for tracker in counted:
                tracker.put_back(unit)

    def plain(self) -> dict[str, Any]:
        """All of it as plain values; the lock is the caller's."""
        return {
            "before": dict(self.before),
            "assigned": self.assigned.plain(),
            "trackers": {name: tracker.plain() for name, tracker in self.trackers.items()},
            "slices": [[*key, tracker.plain()] for key, tracker in self.slices.items()],
        }

    def put_plain(self, plain: Mapping[str, Any]) -> None:
        """Go on from what `plain` gave, in place of what is there; the lock is the caller's. Raises KeyError,
        TypeError, ValueError: it is something else."""
        self.before = dict(plain["before"])
        self.assigned.put_plain(plain["assigned"])
        for name, tracker in self.trackers.items():
            tracker.put_plain(plain["trackers"][name])
        self.trackers[self.wanted[0].name].before = self.before
        self.slices = {}
        for name, value, held in plain["slices"]:
            self._slice((name, value)).put_plain(held)

    def pieces(self) -> Iterator[list[Any]]:
        """The same as `plain`, a little at a time."""
        units = list(self.before.items())
        for at in range(0, len(units), 1000):
            yield ["before", units[at : at + 1000]]
        named: list[tuple[list[str], Tracker]] = [(["assigned"], self.assigned)]
        named += [(["tracker", name], tracker) for name, tracker in self.trackers.items()]
        named += [(["slice", *key], tracker) for key, tracker in self.slices.items()]
        for name, tracker in named:
            for piece in tracker.pieces():
                yield [*name, piece]

    def put_pieces(self, pieces: Sequence[list[Any]]) -> None:
        """Of one that is new. Raises KeyError, TypeError, ValueError: they are something else."""
        for kind, *rest in pieces:
            if kind == "before":
                self.before.update(dict(rest[0]))
            elif kind == "assigned":
                self.assigned.put_piece(rest[0])
            elif kind == "tracker":
                self.trackers[rest[0]].put_piece(rest[1])
            elif kind == "slice":
                self._slice((rest[0], rest[1])).put_piece(rest[2])
            else:
                raise ValueError(f"there is no part {kind!r}")

    def still(self) -> Sums:
        """A copy to be read elsewhere, without what is remembered of units: some thousand numbers."""
        copy = Sums(self.name, self.arms, self.unit, self.since_s, self.wanted, self.most_units, {}, self.rest)
        copy.assigned = self.assigned.still()
        copy.trackers = {name: tracker.still() for name, tracker in self.trackers.items()}
        copy.slices = {key: tracker.still() for key, tracker in self.slices.items()}
        return copy

    def _row(self, arm: int, unit: str, day: int, slices: Slices, told: Sequence[float | None]) -> None:
        values = dict(zip(ROW_METRICS, told, strict=True))
        self.assigned.add(arm, unit, day, 0.0, 0, 1)
        for name, tracker in self._followed(slices):
            if name in values:
                value = values[name]
                if value is not None:
                    tracker.add(arm, unit, day, tracker.clamped(value), 1, 1)
            elif tracker.kind == "ratio":
                tracker.add(arm, unit, day, 0.0, 0, 1)

    def _more(self, arm: int, unit: str, day: int, slices: Slices, cost: float, more: float) -> None:
        for name, tracker in self._followed(slices):
            if name == "cost_usd":
                was, now = tracker.clamped(cost), tracker.clamped(cost + more)
                tracker.add(arm, unit, day, now - was, 0, 0, Seen(was, 1, 1))

    def _said(
        self,
        arm: int,
        unit: str,
        day: int,
        slices: Slices,
        metric: str,
        before: Sequence[float],
        after: Sequence[float],
    ) -> None:
        for name, tracker in self._followed(slices):
            if name != metric:
                continue
            old, new = ([tracker.clamped(value) for value in values] for values in (before, after))
            was = Seen(sum(old), len(old), 1 if tracker.kind == "ratio" else 0)
            tracker.add(arm, unit, day, sum(new) - sum(old), len(new) - len(old), 0, was)

    def _followed(self, slices: Slices) -> list[tuple[str, Tracker]]:
        """All sums that a request belongs to, with the metric's name."""
        found = list(self.trackers.items())
        decides = self.wanted[0].name
        for name, value in slices:
            if (name, value) in self.slices or len(self.slices) < _MOST_SLICES:
                found.append((decides, self._slice((name, value))))
        return found

    def _slice(self, key: tuple[str, str]) -> Tracker:
        if key not in self.slices:
            decides, most = self.wanted[0], min(self.most_units, _SLICE_UNITS)
            self.slices[key] = Tracker(decides.kind, len(self.arms), self.alone, most, decides.bounds, self.before)
        return self.slices[key]
