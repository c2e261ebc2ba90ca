"""The board: every watched series, for all traffic and for slices of it, under one budget of false alarms. Pure.

The budget is shared by a clock. While `a` series are on the watch, each of them has 1/a of the time that goes by,
however often it is observed. Expected false alarms of one series are at most its part of the time times the rate, so
those of all together are at most the time times the rate: no correction for many series is needed on top, and the
price of a thousand of them is the logarithm of a thousand in every one's delay.

Rules of this file: what a slice is called comes from clients, so slices are bounded, and a slice that was not seen for
long makes room; values become bins before they come here.

Sources: policies/shares.py; the sum is linearity of expectation, and holds however the series hang together, as
Benjamini & Hochberg's correction (JRSS B 57, 1995) would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from farthing.policies.association import gamma
from farthing.policies.mmd import Distance
from farthing.policies.shares import Moved, Reference, Shares, height
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
_OWN = {"language": "language:", "tools": "tools:", "input_tokens": "length:"}


@dataclass(frozen=True, slots=True)
class Rules:
    """`alarms_per_year`: false ones to be expected at most, of all series together. `tolerance`: how much the odds of
    anything may grow before it counts as drift; `distance`: the same for the mean embedding. `slices`: how many."""

    reference: Reference = field(default_factory=Reference)
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
        self._topics, self._distance = self._new_topics()

    @property
    def standing(self) -> int:
        """Alarms that stand."""
        return sum(one.moved is not None for one in self._series.values()) + (self._distance.since_s is not None)

    def add(self, series: str, place: int, slices: Sequence[str], at_s: float) -> list[Alarm]:
        """Take one observation, of these slices (`ALL` is one of them); the alarms that it raises, most often none.

        A series isn't watched in slices of itself. KeyError: no such series. IndexError: no such bin.
        """
        self._tick(at_s)
        found = []
        for name in slices:
            if name != ALL and (name.startswith(_OWN.get(series, " ")) or not self._admit(name, at_s)):
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
        raised = self.add("topic", place, (ALL,), at_s)
        one = self._distance
        before = one.ready
        alarmed = one.add(vector, at_s, self._budget, 1.0 / self.rules.alarms_per_year)
        self._active += one.ready - before
        if alarmed:
            self.alarms += 1
            now = one.value or 0.0
            what = f"the mean embedding is {now:.2f} from the reference's; {one.limit:.2f} would be borne"
            raised.append(Alarm(DISTANCE, ALL, at_s, what, SERIES["topic"].warns, 0.0, one.limit, now, None))
        return raised

    def rebase(self, series: str = "", slice_name: str = "") -> int:
        """Learn references anew, of all series or of one, in all slices or in one; how many."""
        series = "topic" if series == DISTANCE else series  # both rest on the same groups
        chosen = [key for key in self._series if series in ("", key[0]) and slice_name in ("", key[1])]
        for key in chosen:
            self._active -= self._series[key].ready
            self._series[key] = self._new(key[0])
        if series in ("", "topic") and slice_name in ("", ALL):
            self._active -= self._distance.ready
            self._topics, self._distance = self._new_topics()
        return len(chosen)

    def told(self) -> list[dict[str, Any]]:
        """Every series and slice as JSON values, standing alarms first, then by how far their evidence is."""
        patience = 1.0 / self.rules.alarms_per_year
        told = [_told(name, where, one, patience, self.rules) for (name, where), one in self._series.items()]
        if self._distance.reference is not None or self._topics.waiting:
            told.append(self._distance_told())
        return sorted(told, key=lambda one: (one["state"] != "drifting", -one["evidence"], one["slice"] != ALL))

    def dump(self) -> dict[str, Any]:
        """As JSON values: counts, sums and means of many, nothing of a single request."""
        return {
            "version": _VERSION,
            "made_with": self.made_with,
            "alarms": self.alarms,
            "slices": self._slices,
            "series": [[*key, one.dump()] for key, one in self._series.items()],
            "topics": self._topics.dump(),
            "distance": self._distance.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Take over what `dump` gave, into a new board. Raises ValueError, KeyError, TypeError where it is damaged.

        Series that are no more, and topics of another embedder, are left out.
        """
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
        if topics is not None and dumped["distance"] is not None:
            self._distance.load(dumped["distance"], self._budget)
        self._active = sum(one.ready for one in self._series.values()) + self._distance.ready

    # -- inside

    def _new_topics(self) -> tuple[Topics, Distance]:
        wanted = self.rules.reference
        return Topics(TOPICS, wanted.observations // 2), Distance(wanted, self.rules.distance)

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
            found = self._series[key] = self._new(series)
        return found

    def _new(self, series: str) -> Shares:
        about = SERIES[series]
        return Shares(about.bins, about.kind, self.rules.reference, self.rules.tolerance)

    def _distance_told(self) -> dict[str, Any]:
        one = self._distance
        state = "drifting" if one.since_s is not None else "quiet" if one.ready else "learning"
        return {
            "series": DISTANCE,
            "slice": ALL,
            "of": "input",
            "meaning": "how far the mean embedding is from the reference's",
            "warns": list(SERIES["topic"].warns),
            "state": state,
            "evidence": 1.0 if state == "drifting" else height(one.level * self.rules.alarms_per_year),
            "reference": self._topics.waiting if one.reference is None else int(one.reference.n),
            "wanted": self.rules.reference.observations,
            "since_s": one.since_s,
            "now": one.value,
            "limit": one.limit if one.ready else None,
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
    if about.of == "association":
        now = one.now
        fading = sum(now)
        told["gamma"] = {
            "was": gamma(one.reference[1] / one.n) if one.n else None,
            "now": gamma(now[1] / fading) if one.ready and fading else None,
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
            yield {"label": label, "was": count / before, "now": fading / after if one.ready else None}
