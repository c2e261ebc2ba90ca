"""What a report is made of beside its figures. Pure, no IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from farthing.proxy.figures_time import Stretch
from farthing.proxy.figures_values import Figures, Key, Sums
from farthing.proxy.forecast import Forecast
from farthing.proxy.report_worth import Worth
from farthing.proxy.tradeoff import Tradeoff

__all__ = ["Lacking", "Peak", "Repeat", "Report", "peak"]


class Lacking(NamedTuple):
    """A model some of whose rows have no price. `known`: pico-dollars of cost that are known among them."""

    model: str
    rows: int
    known: int


class Repeat(NamedTuple):
    """A prompt that came again. `saved`: pico-dollars. `at_least`: the counts are lower bounds."""

    key_hash: str
    model: str
    requests: int
    hits: int
    saved: int
    at_least: bool


class Peak(NamedTuple):
    """The busiest hour of a span against its average hour. `value`: requests, or pico-dollars."""

    start_s: float
    value: int
    mean: float

    @property
    def times(self) -> float:
        """How many average hours the peak is worth."""
        return self.value / self.mean


@dataclass(frozen=True, slots=True)
class Report:
    """Figures, and what stands around them.

    `before`: the same of the span of the same length before, None where the ledger doesn't reach back as far;
    `before_missing` says so. `stretches`: the span by `unit`, for charts. `peaks`: by `requests` and `spent`; one
    that would be of nothing is missing. `worth`, `tradeoff`: None where only the ledger was at hand.
    `later`: requests dated after the span, because a clock was ahead; they are in no figure.
    `aside`: damaged ledgers that nobody has salvaged (ledger_aside.py).
    """

    figures: Figures
    before: Figures | None = None
    before_missing: str = ""
    unit: str = "day"
    stretches: Sequence[Stretch] = ()
    forecast: Forecast | None = None
    peaks: Mapping[str, Peak] | None = None
    lacking: Sequence[Lacking] = ()
    lacking_left_out: int = 0
    repeated: Sequence[Repeat] = ()
    worth: Worth | None = None
    tradeoff: Tradeoff | None = None
    later: int = 0
    aside: Sequence[str] = ()

    @property
    def sums_before(self) -> Mapping[Key, Sums]:
        """Of each group, its sums in the span before."""
        return {group.key: group.sums for group in self.before.groups} if self.before is not None else {}


def peak(hours: Sequence[Stretch], name: str) -> Peak | None:
    """The hour with the most `requests` or `spent`; None with less than two hours, or where there was nothing."""
    length_h = (hours[-1].end_s - hours[0].start_s) / 3600 if hours else 0.0
    total = sum(getattr(hour.sums, name) for hour in hours)
    if length_h < 2 or total <= 0:
        return None
    best = max(hours, key=lambda hour: getattr(hour.sums, name))
    return Peak(best.start_s, getattr(best.sums, name), total / length_h)
