"""What the month will have cost when it is over. Pure: days and amounts in, an estimate out.

Method: spent so far, and for each day that is left the mean of the past whole days; of those of the same weekday, where
WEEKS_FROM days are known. Of today the part that is left counts. The interval is Student's: the spread of past days
around those means, for the days that are left and for the means themselves. It takes days for independent, and knows
nothing of a launch, a holiday or a trend: the last LOOK_BACK days are believed to go on.
"""

from __future__ import annotations

import calendar
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from statistics import NormalDist

__all__ = ["CONFIDENCE", "LEAST_DAYS", "LOOK_BACK", "WEEKS_FROM", "Forecast", "forecast", "student"]

LEAST_DAYS = 3
WEEKS_FROM = 14
LOOK_BACK = 28
CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one calendar month (UTC), in pico-dollars. `low` to `high` holds it with CONFIDENCE.

    `expected`, `low` and `high` are None with fewer than LEAST_DAYS whole days. `days`: those that it rests on.
    `weekdays`: whether weekdays were told apart. `days_left`: of the month, today's rest included.
    """

    month: str
    so_far: int
    days: int
    days_left: float
    weekdays: bool = False
    expected: int | None = None
    low: int | None = None
    high: int | None = None


def forecast(by_day: Mapping[date, int], first: date, now: datetime) -> Forecast:
    """The month of `now` (UTC). `by_day`: pico-dollars of each day, absent ones are zero; `first`: the first whole day
    of which the ledger knows."""
    now = now.astimezone(UTC)
    today = now.date()
    so_far = sum(amount for day, amount in by_day.items() if (day.year, day.month) == (today.year, today.month))
    known = [day for back in range(LOOK_BACK, 0, -1) if (day := today - timedelta(days=back)) >= first]
    left = _days_left(now)
    weekly = len(known) >= WEEKS_FROM
    made = Forecast(today.strftime("%Y-%m"), so_far, len(known), math.fsum(left.values()), weekly)
    if len(known) < LEAST_DAYS:
        return made

    def kind(day: date) -> int:
        return day.weekday() if weekly else 0

    counts = Counter(kind(day) for day in known)
    sums: Counter[int] = Counter()
    for day in known:
        sums[kind(day)] += by_day.get(day, 0)
    means = {each: sums[each] / counts[each] for each in counts}
    weights = dict.fromkeys(means, 0.0)
    for day, share in left.items():
        weights[kind(day)] += share
    rest = math.fsum(weight * means[each] for each, weight in weights.items())
    freedom = len(known) - len(counts)
    spread = math.fsum((by_day.get(day, 0) - means[kind(day)]) ** 2 for day in known) / freedom
    of_means = math.fsum(weight**2 / counts[each] for each, weight in weights.items())
    reach = student((1 + CONFIDENCE) / 2, freedom) * math.sqrt(spread * (made.days_left + of_means))
    # What is spent is spent: a month never ends below it.
    low, expected, high = (so_far + round(max(0.0, amount)) for amount in (rest - reach, rest, rest + reach))
    return Forecast(made.month, so_far, made.days, made.days_left, weekly, expected, low, high)


def _days_left(now: datetime) -> dict[date, float]:
    """The days of the month that aren't over, with the share of each that is left."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    last = calendar.monthrange(now.year, now.month)[1]
    left = {now.date() + timedelta(days=more): 1.0 for more in range(last - now.day + 1)}
    left[now.date()] = 1 - (now - midnight) / timedelta(days=1)
    return left


def student(probability: float, freedom: int) -> float:
    """The quantile of Student's t, within 2 % from two degrees of freedom on for probabilities of 0.75 to 0.975.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    z: float = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))
