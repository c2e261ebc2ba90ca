"""The last act of `farthing demo --evals`: each alarm on made data, where something is wrong and where nothing is.
Pure.

Every row is a simulation with the seed that it is given: how many of the streams with a fault were caught, and how many
of those without one raised an alarm, beside the rate at which that may happen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from farthing.policies.confidence import Sums, difference
from farthing.policies.novelty import Period, novelty
from farthing.policies.shares import Kind, Reference, Shares
from farthing.policies.srm import mismatch_p

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Shown", "simulated"]

_LEVEL = 0.05


class Shown(NamedTuple):
    """One alarm: `caught` of `faulty` streams, `false` of `sound` ones. `promised`: the rate that `false` may reach."""

    name: str
    faulty: int
    caught: int
    sound: int
    false: int
    promised: float


def simulated(rng: np.random.Generator, runs: int = 60) -> list[Shown]:
    """Peeking, sample ratio, drift and novelty. Some seconds."""
    alarms: tuple[tuple[str, Callable[[np.random.Generator, bool], bool]], ...] = (
        ("a difference, looked at 20 times", _difference),
        ("arms that didn't get their shares", _ratio),
        ("traffic that changed", _drift),
        ("an effect that wears off", _novelty),
    )
    found = []
    for name, alarm in alarms:
        caught = sum(alarm(rng, True) for _ in range(runs))
        false = sum(alarm(rng, False) for _ in range(runs))
        found.append(Shown(name, runs, caught, runs, false, _LEVEL))
    return found


def _difference(rng: np.random.Generator, wrong: bool) -> bool:
    """Two arms of 3,000; the second costs a tenth more."""
    one, other = rng.exponential(1.1 if wrong else 1.0, 3_000), rng.exponential(1.0, 3_000)
    for size in range(150, 3_001, 150):
        a, b = (Sums(size, float(x[:size].mean()), float(x[:size].var() * size)) for x in (one, other))
        found = difference(a, b, _LEVEL)
        if not found.low <= 0 <= found.high:
            return True
    return False


def _ratio(rng: np.random.Generator, wrong: bool) -> bool:
    """Half and half were declared; with the fault the first arm gets 55 %."""
    first = (rng.random(4_000) < (0.55 if wrong else 0.5)).cumsum()
    return any(
        mismatch_p([int(first[size - 1]), int(size - first[size - 1])], [0.5, 0.5]) < _LEVEL
        for size in range(100, 4_001, 100)
    )


def _drift(rng: np.random.Generator, wrong: bool) -> bool:
    """Of 40 % hits, half go after 1,000 requests. One false alarm in 20 series of 2,000 is allowed."""
    series = Shares(2, Kind.NAMED, Reference(500, 0.0), 1.25)
    hits = rng.random(2_500) < 0.4
    if wrong:
        hits[1_500:] &= rng.random(1_000) < 0.5
    patience = 2_000 / _LEVEL
    return any(series.add(int(hit), at, float(at), patience) is not None for at, hit in enumerate(hits))


def _novelty(rng: np.random.Generator, wrong: bool) -> bool:
    """Fourteen days; an effect that lasts, or one that falls by a fifth each day."""
    periods = []
    for day in range(14):
        effect = 0.6 * 0.8**day if wrong else 0.3
        arms = (rng.normal(shift, 1, 200) for shift in (effect, 0.0))
        periods.append(Period(day, *(Sums(200, float(x.mean()), float(x.var() * 200)) for x in arms)))
    return novelty(periods, _LEVEL).word in ("decays", "grows")
