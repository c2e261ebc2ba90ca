"""Is a promise kept, and how fast is what it allows being used up? Error budgets and burn rates. Pure.

Rules of this file:
1. An event is good or bad. Of `events` a share of 1 - `share` may be bad: that is the budget. Money has a budget too:
   the promised mean times the requests.
2. The burn rate of a window is what was used over what was allowed: 1 uses exactly the budget up.
3. An alarm needs both windows of a pair to burn at its rate: the long one says that it matters, the short one that it
   still goes on. And it needs evidence: what chance alone might do to a promise that is kept is no alarm.

Sources: The Site Reliability Workbook (Beyer and others, 2018), chapter 5, 'Alerting on SLOs', method 6 for the pairs
(they use up 2 %, 5 %, 10 % and 10 % of a budget of 30 days); Mitzenmacher & Upfal, Probability and Computing, theorem
5.4, for the bound on chance; Wilson (JASA 1927) for intervals of shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = [
    "LENGTHS_S", "PAIRS", "Burning", "Kind", "Pair", "Range", "Standing", "Tally", "Target", "assess", "wilson",
]  # fmt: skip

Kind = Literal["latency", "availability", "wrong", "cost"]
State = Literal["burning", "calm", "not enough data"]
Verdict = Literal["kept", "missed", "not enough data"]

_CHANCE = 0.01
_FEWEST_BAD = 2
_FEWEST_COSTS = 30
_PICO = 10**12


class Pair(NamedTuple):
    """Two windows and the burn rate that both must reach. `speed`: 'fast' wants somebody now, 'slow' some day soon."""

    speed: Literal["fast", "slow"]
    short_s: int
    long_s: int
    rate: float


PAIRS = (
    Pair("fast", 300, 3_600, 14.4),
    Pair("fast", 1_800, 21_600, 6.0),
    Pair("slow", 7_200, 86_400, 3.0),
    Pair("slow", 21_600, 259_200, 1.0),
)
LENGTHS_S = tuple(sorted({length for pair in PAIRS for length in (pair.short_s, pair.long_s)}))
"""Of all windows, shortest first."""


class Target(NamedTuple):
    """One promise. `share`: of events that must be good, below 1. `limit`: milliseconds within which an answer is good;
    for cost, the dollars of a request on average (and no share)."""

    kind: Kind
    share: float
    limit: float = 0.0

    @property
    def allowed(self) -> float:
        """The share that may be bad. Rounded, so that a thousandth is one."""
        return round(1 - self.share, 12)


class Tally(NamedTuple):
    """What happened in a window. `pico`: what the events cost, in pico-dollars."""

    events: int = 0
    bad: int = 0
    pico: int = 0


class Range(NamedTuple):
    """A share with its interval."""

    value: float
    low: float
    high: float


class Burning(NamedTuple):
    """How a pair of windows stands. Rates: None where nothing happened."""

    pair: Pair
    short: float | None
    long: float | None
    state: State


@dataclass(frozen=True, slots=True)
class Standing:
    """How a target stands over its whole window.

    `attained`: the share of good events with its 95 % interval, None without events and for cost. `mean_usd`: of cost.
    `allowed`, `used`: of the budget, in events, or dollars for cost; `left`: what is left of it as a share, below 0
    where it is overdrawn, None without events. `rates`: by the window's length in seconds.
    """

    target: Target
    tally: Tally
    attained: Range | None
    mean_usd: float | None
    allowed: float
    used: float
    left: float | None
    verdict: Verdict
    rates: dict[int, float | None]
    pairs: tuple[Burning, ...]

    @property
    def burning(self) -> tuple[Pair, ...]:
        """The pairs that alarm."""
        return tuple(each.pair for each in self.pairs if each.state == "burning")


def assess(target: Target, window: Tally, tally_of: Callable[[int], Tally]) -> Standing:
    """How the target stands. `window`: of its whole window; `tally_of`: of the latest so many seconds (LENGTHS_S)."""
    tallies = {length_s: tally_of(length_s) for length_s in LENGTHS_S}
    rates = {length_s: rate(target, tally) for length_s, tally in tallies.items()}
    cost = target.kind == "cost"
    used = rate(target, window)
    return Standing(
        target,
        window,
        None if cost or not window.events else wilson(window.events - window.bad, window.events),
        window.pico / _PICO / window.events if cost and window.events else None,
        window.events * (target.limit if cost else target.allowed),
        window.pico / _PICO if cost else float(window.bad),
        None if used is None else 1 - used,
        _verdict(target, window, used),
        rates,
        tuple(_pair(target, pair, tallies) for pair in PAIRS),
    )


def rate(target: Target, tally: Tally) -> float | None:
    """What was used of what was allowed; None where nothing happened."""
    if not tally.events:
        return None
    if target.kind == "cost":
        return tally.pico / _PICO / (tally.events * target.limit)
    return tally.bad / (tally.events * target.allowed)


def shown(target: Target, tally: Tally) -> bool:
    """Whether what was used is more than chance does to a promise that is exactly kept, in one window of a hundred.

    Bad events that come one by one at an allowed mean of m are at least k with probability e^-m (em/k)^k at most. One
    bad event never shows anything. Of costs, which have no such bound, thirty requests are asked for.
    """
    if target.kind == "cost":
        return tally.events >= _FEWEST_COSTS
    mean, bad = tally.events * target.allowed, tally.bad
    if bad < _FEWEST_BAD or bad <= mean:
        return False
    return bad * math.log(bad / mean) - bad + mean >= -math.log(_CHANCE)


def wilson(count: float, of: int, z: float = 1.96) -> Range:
    """A share with Wilson's score interval, 95 % by default. Nothing seen: anything may be."""
    if not of:
        return Range(math.nan, 0.0, 1.0)
    share, weight = count / of, z * z / of
    middle = (share + weight / 2) / (1 + weight)
    reach = z * math.sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    return Range(share, max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach)))


def _pair(target: Target, pair: Pair, tallies: dict[int, Tally]) -> Burning:
    both: Sequence[Tally] = (tallies[pair.short_s], tallies[pair.long_s])
    short, long = (rate(target, tally) for tally in both)
    state: State = "calm"
    if long is None:
        state = "not enough data"
    elif short is not None and min(short, long) >= pair.rate and short > 1:
        state = "burning" if all(shown(target, tally) for tally in both) else "not enough data"
    return Burning(pair, short, long, state)


def _verdict(target: Target, window: Tally, used: float | None) -> Verdict:
    if used is None:
        return "not enough data"
    if used > 1:
        return "missed" if shown(target, window) else "not enough data"
    # Where a single bad event would be more than is allowed, none says little.
    few = window.events < _FEWEST_COSTS if target.kind == "cost" else window.events * target.allowed < 1
    return "not enough data" if few else "kept"
