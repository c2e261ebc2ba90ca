"""The board: every watched series, for all traffic and for slices of it, under one budget of false alarms. Pure.

The budget is shared by a clock. While `a` series are on the watch, each of them has 1/a of the time that goes by, however
often it is observed. Expected false alarms of one series are at most its part of the time times the rate, so those of
all together are at most the time times the rate: no correction for many series is needed on top, and the price of a
thousand of them is the logarithm of a thousand in every one's delay.

Rules of this file: what a slice is called comes from clients, so slices are bounded, and a slice that was not seen for
long makes room; values become bins before they come here.

Sources: policies/shares.py; the sum is linearity of expectation, and holds however the series hang together, as Benjamini
& Hochberg's correction (JRSS B 57, 1995) would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from farthing.policies.mmd import Mean, Witness, distance
from farthing.policies.shares import Moved, Reference, Shares
from farthing.policies.topics import Topics
from farthing.policies.watch_series import SERIES, TOPICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ALL", "Alarm", "Board", "Rules"]

ALL = "all"
DISTANCE = "topic_distance"
_YEAR_S = 365.25 * 86_400
_IDLE_S = 7 * 86_400.0
_LONGEST = 100  # characters of a slice's name
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """`alarms_per_year`: false ones to be expected at most, of all series together. `tolerance`: how much the odds of
    anything may grow before it counts as drift; `distance`: the same for the mean embedding. `slices`: how many."""

    reference: Reference = Reference()
    alarms_per_year: float = 1.0
    tolerance: float = 1.25
    distance: float = 0.02
    slices: int = 30


@dataclass(frozen=True, slots=True)
class Alarm:
    """One series has moved. `what`: in words; `warns`: optimisers that it concerns."""

    series: str
    slice: str
    at_s: float
    what: str
    warns: tuple[str, ...]
    was: float
    limit: float
    now: float
    psi: float | None


class Board:
    """See the module. One thread at a time."""

    def __init__(self, rules: Rules, made_with: str = "") -> None:
        """`made_with`: the embedder's name; topics of another one mean nothing."""
        self.rules = rules
        self.made_with = made_with
        self.alarms = 0
        self.refused_slices = 0
        self._series: dict[tuple[str, str], Shares] = {}
        self._slices: dict[str, float] = {}
        self._budget = 0.0
        self._active = 0
        self._last_s: float | None = None
        self._new_topics()

    @property
    def standing(self) -> int:
        """Alarms that stand."""
        return sum(one.moved is not None for one in self._series.values()) + (self._far_s is not None)

    def add(self, series: str, place: int, slices: Sequence[str], at_s: float) -> list[Alarm]:
        """Take one observation, of all traffic and of these slices; the alarms that it raises, most often none.

        KeyError: no such series. IndexError: no such bin.
        """
        self._tick(at_s)
        found = []
        for name in (ALL, *slices):
            if name != ALL and not self._admit(name, at_s):
                continue
            one = self._at(series, name)
            before = one.ready
            moved = one.add(place, at_s, self._budget, 1.0 / self.rules.alarms_per_year)
            self._active += one.ready - before
            if moved is not None:
                self.alarms += 1
                found.append(_alarm(series, name, at_s, moved))
        return found

    def topic(self, vector: NDArray[np.float32], at_s: float) -> list[Alarm]:
        """Take a request's embedding, of length 1; the alarms that it raises."""
        self._tick(at_s)
        place = self._topics.place(vector)
        if place is None:
            return []
        raised = self.add("topic", place, (), at_s)
        wanted = self.rules.reference
        if self._witness is None:
            import numpy as np

            if self._mean is None:
                self._mean, self._mean_began_s = Mean(np.zeros(len(vector))), at_s
            self._mean.add(vector)
            if self._mean.n >= wanted.observations and at_s - self._mean_began_s >= wanted.span_s:
                self._witness = Witness(self._mean, self.rules.distance)
                self._witness_budget = self._budget
                self._active += 1
            return raised
        assert self._mean is not None
        step, self._witness_budget = self._budget - self._witness_budget, self._budget
        if self._witness.add(vector, step) * self.rules.alarms_per_year >= 1.0:
            self._witness.restart()
            if self._far_s is None:
                self._far_s = at_s
                self.alarms += 1
                now = distance(self._mean, self._witness.now)
                limit = self._witness.slack
                what = f"the mean embedding is {now:.2f} from the reference's; {limit:.2f} would be borne"
                raised.append(Alarm(DISTANCE, ALL, at_s, what, SERIES["topic"].warns, 0.0, limit, now, None))
        return raised

    def rebase(self, series: str = "", slice_name: str = "") -> int:
        """Learn references anew, of all series or of one, in all slices or in one; how many."""
        chosen = [
            one
            for (name, where), one in self._series.items()
            if (not series or series == name) and (not slice_name or slice_name == where)
        ]
        for one in chosen:
            self._active -= one.ready
            one.rebase()
        if series in ("", "topic", DISTANCE) and slice_name in ("", ALL):
            self._active -= self._witness is not None
            self._new_topics()
            self._series.pop(("topic", ALL), None)
        return len(chosen)

    def told(self) -> list[dict[str, Any]]:
        """Every series and slice as JSON values, standing alarms first, then by how far their evidence is."""
        patience = 1.0 / self.rules.alarms_per_year
        told = [_told(name, where, one, patience, self.rules) for (name, where), one in self._series.items()]
        if self._mean is not None or self._topics.waiting:
            told.append(self._distance_told())
        return sorted(told, key=lambda one: (one["state"] != "drifting", -one["evidence"], one["slice"] != ALL))

    def dump(self) -> dict[str, Any]:
        """As JSON values: counts, sums and means of many, nothing of a single request."""
        mean, witness = self._mean, self._witness
        return {
            "version": _VERSION,
            "made_with": self.made_with,
            "alarms": self.alarms,
            "slices": self._slices,
            "series": [[*key, one.dump()] for key, one in self._series.items()],
            "topics": self._topics.dump(),
            # A sum of few would tell too much of each.
            "mean": None if mean is None or witness is None else [mean.total.tolist(), mean.n],
            "witness": None if witness is None else witness.dump(),
            "far_s": self._far_s,
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what `dump` gave, into a new board. Raises ValueError, KeyError, TypeError where it is damaged.

        Series that are no more, and topics of another embedder, are left out.
        """
        import numpy as np

        if dumped["version"] != _VERSION:
            raise ValueError("another version")
        self.alarms = int(dumped["alarms"])
        self._slices = {str(name): float(at_s) for name, at_s in dumped["slices"].items()}
        same = dumped["made_with"] == self.made_with
        topics = dumped["topics"] if same else None
        for name, where, held in dumped["series"]:
            if name in SERIES and (name != "topic" or topics is not None):
                self._at(name, where).load(held, self._budget)
        if topics is not None:
            self._topics.load(topics)
        if topics is not None and dumped["mean"] is not None:
            self._mean = Mean(np.array(dumped["mean"][0], dtype=np.float64), float(dumped["mean"][1]))
            self._witness = Witness(self._mean, self.rules.distance)
            now, levels = dumped["witness"], self._witness.levels
            self._witness.now = Mean(np.array(now["total"], dtype=np.float64), float(now["n"]))
            levels[:] = np.array(now["levels"], dtype=np.float64)
            self._far_s = dumped["far_s"]
        self._active = sum(one.ready for one in self._series.values()) + (self._witness is not None)

    # -- inside

    def _new_topics(self) -> None:
        self._topics = Topics(TOPICS, self.rules.reference.observations // 2)
        self._mean: Mean | None = None
        self._mean_began_s = 0.0
        self._witness: Witness | None = None
        self._witness_budget = 0.0
        self._far_s: float | None = None

    def _tick(self, at_s: float) -> None:
        """Let the budget go by. A clock that goes back stands still; a pause without observations counts."""
        if self._last_s is not None and at_s > self._last_s:
            self._budget += (at_s - self._last_s) / _YEAR_S / max(1, self._active)
        self._last_s = at_s if self._last_s is None else max(at_s, self._last_s)

    def _admit(self, name: str, at_s: float) -> bool:
        if name not in self._slices and len(self._slices) >= self.rules.slices:
            idle, since_s = min(self._slices.items(), key=lambda one: one[1])
            if at_s - since_s < _IDLE_S:
                self.refused_slices += 1
                return False
            self._drop(idle)
        if len(name) > _LONGEST:
            return False
        self._slices[name] = at_s
        return True

    def _drop(self, name: str) -> None:
        del self._slices[name]
        for key in [key for key in self._series if key[1] == name]:
            self._active -= self._series.pop(key).ready

    def _at(self, series: str, where: str) -> Shares:
        key = series, where
        found = self._series.get(key)
        if found is None:
            about = SERIES[series]
            found = self._series[key] = Shares(about.bins, about.kind, self.rules.reference, self.rules.tolerance)
        return found

    def _distance_told(self) -> dict[str, Any]:
        mean, witness = self._mean, self._witness
        known = mean is not None and witness is not None and witness.now.n >= 2
        state = "drifting" if self._far_s is not None else "learning" if witness is None else "quiet"
        level = 0.0 if witness is None else float(witness.levels.mean()) * self.rules.alarms_per_year
        return {
            "series": DISTANCE,
            "slice": ALL,
            "of": "input",
            "meaning": "how far the mean embedding is from the reference's",
            "warns": list(SERIES["topic"].warns),
            "state": state,
            "evidence": 1.0 if state == "drifting" else min(1.0, level),
            "reference": self._topics.waiting if mean is None else int(mean.n),
            "wanted": self.rules.reference.observations,
            "since_s": self._far_s,
            "now": distance(mean, witness.now) if known and mean is not None and witness is not None else None,
            "limit": None if witness is None else witness.slack,
        }


def _alarm(series: str, where: str, at_s: float, moved: Moved) -> Alarm:
    about = SERIES[series]
    what = f"{about.meaning}: '{about.called(moved.first, moved.last)}' was {moved.was:.1%} of the reference"
    what += f" and is {moved.now:.1%} now; up to {moved.limit:.1%} would be borne"
    return Alarm(series, where, at_s, what, about.warns, moved.was, moved.limit, moved.now, moved.psi)


def _told(series: str, where: str, one: Shares, patience: float, rules: Rules) -> dict[str, Any]:
    about, index = SERIES[series], one.psi()
    state = "drifting" if one.moved is not None else "quiet" if one.ready else "learning"
    told: dict[str, Any] = {
        "series": series,
        "slice": where,
        "of": about.of,
        "meaning": about.meaning,
        "warns": list(about.warns),
        "state": state,
        "evidence": one.height(patience),
        "reference": one.n,
        "wanted": rules.reference.observations,
        "began_s": one.began_s,
        "seen": one.seen,
        "since_s": one.since_s,
        "psi": None if index is None else index[0],
        "psi_by_chance": None if index is None else index[1],
        "alarm": None if one.moved is None else _alarm(series, where, one.since_s or 0.0, one.moved).what,
    }
    if where == ALL or one.moved is not None:
        told["bins"] = list(_bins(series, one))
    return told


def _bins(series: str, one: Shares) -> Iterator[dict[str, Any]]:
    """Shares of the reference and of now, of the bins that ever came."""
    about, now = SERIES[series], one.now
    before, after = max(1, one.n), max(1e-9, sum(now))
    for at, (count, fading) in enumerate(zip(one.reference, now, strict=True)):
        if count or fading:
            label = about.labels[at] if about.labels else f"from {about.edge(at)}"
            yield {"label": label, "was": count / before, "now": fading / after}
