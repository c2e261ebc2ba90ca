"""Cost, latency and quality of each way in which requests were answered, with intervals: points for a picture.

Rules of this file: it looks at the latest answered requests of a span, MOST_ROWS at most, and says how far back they
reach; quality is what was said of these answers later (ratings, audits) and unknown where nothing was; runs
of `farthing eval run` are points beside those of traffic, and compared among themselves alone, for their requests and
their judge are others.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from farthing.policies.levels import wilson
from farthing.policies.pareto import Measure, Point, Verdict, judge
from farthing.proxy.figures_sql import CLIENTS
from farthing.proxy.levels_tally import WORDS

__all__ = [
    "BY",
    "MOST_ROWS",
    "RUNS",
    "Answers",
    "TradePoint",
    "Tradeoff",
    "kept_runs",
    "plain_tradeoff",
    "read_runs",
    "read_tradeoff",
]

MOST_ROWS = 20_000
BY: Mapping[str, str] = {
    "variant": "decisions",
    "model_served": "model_served",
    "policy": "policy",
    "cache": "cache",
}
"""What ways may be told apart by; the values are columns."""
RUNS = "evals"
"""The folder of the state directory in which files of `farthing eval run` are looked for."""
_MOST_POINTS = 40
_MOST_RUNS = 20
_IDS_AT_ONCE = 5_000
_FEWEST_FOR_A_MEAN, _FEWEST_FOR_A_MEDIAN = 30, 10
_Z = 1.96
_PICO = 10**12


@dataclass(slots=True)
class Answers:
    """What is known of one way's answers. Costs: dollars. `good`: how many of `judged` were; a score counts as part."""

    requests: int = 0
    costs_usd: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    judged: int = 0
    good: float = 0.0


class TradePoint(NamedTuple):
    """A way of answering. `source`: 'traffic', or the run's file name. `beaten_by`: '' where nobody dominates it."""

    name: str
    source: str
    requests: int
    judged: int
    cost_usd: Measure | None
    latency_ms: Measure | None
    latency_p95_ms: float | None
    quality: Measure | None
    verdict: Verdict
    beaten_by: str


class Tradeoff(NamedTuple):
    """`rows`: that were looked at; `reaches_s`: how far back, where there were more in the span."""

    by: str
    rows: int
    reaches_s: float | None
    points: tuple[TradePoint, ...]


def read_tradeoff(
    conn: sqlite3.Connection, state_dir: Path, since_s: float, until_s: float, by: str, most_rows: int = MOST_ROWS
) -> Tradeoff:
    """The ways of a span, most requests first. Raises ValueError: `by` is none of BY; sqlite3.Error."""
    if by not in BY:
        raise ValueError(f"can't tell ways apart by {by[:40]!r}; known: {', '.join(BY)}")
    query = f"""select id, ts, {BY[by]}, cost_usd + coalesce(overhead_usd, 0), latency_ms from requests
        where ts >= ? and ts < ? and {CLIENTS} and outcome = 'completed' and status < 400
        order by ts desc limit {int(most_rows)}"""
    found: dict[str, Answers] = {}
    ways: dict[str, str] = {}
    oldest_s = math.inf
    for id, at_s, told, pico, latency_ms in conn.execute(query, (since_s, until_s)):
        ways[id] = way = _variant(told) if by == "variant" else told or "(none)"
        oldest_s = min(oldest_s, at_s)
        one = found.setdefault(way, Answers())
        one.requests += 1
        one.latencies_ms.append(latency_ms)
        if pico is not None:
            one.costs_usd.append(pico / _PICO)
    for id, good in _judged(state_dir / "outcomes.db", [*ways]):
        found[ways[id]].judged += 1
        found[ways[id]].good += good
    order = sorted(found.items(), key=lambda each: (-each[1].requests, each[0]))[:_MOST_POINTS]
    rows = len(ways)
    return Tradeoff(by, rows, oldest_s if rows == most_rows else None, tuple(_points(order, "traffic")))


def read_runs(paths: Iterable[Path]) -> tuple[TradePoint, ...]:
    """Both arms of each run. Raises ConfigFault: a file is none of `farthing eval run`."""
    from farthing.proxy.eval_run import load_run

    found: list[TradePoint] = []
    for path in paths:
        run = load_run(path)
        real = [one for one in run.results if not one.source.startswith("generated:")]  # traps are no traffic
        arms = [("baseline: " + run.baseline, [one.baseline for one in real])]
        arms.append(("candidate: " + run.candidate, [one.candidate for one in real]))
        ways = []
        for name, results in arms:
            answers = Answers(len(results), judged=len(results), good=sum(one.counted for one in results))
            answers.costs_usd = [one.cost_pico / _PICO for one in results if one.cost_pico is not None]
            answers.latencies_ms = [one.latency_ms for one in results if one.status == 200]
            ways.append((name, answers))
        found += _points(ways, path.name)
    return tuple(found)


def kept_runs(state_dir: Path) -> tuple[TradePoint, ...]:
    """Of the latest runs in the state directory; files that are none are passed by."""
    from farthing.proxy.errors import ConfigFault

    files = sorted((state_dir / RUNS).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found: list[TradePoint] = []
    for path in files[:_MOST_RUNS]:
        try:
            found += read_runs([path])
        except ConfigFault:
            continue
    return tuple(found)


def plain_tradeoff(found: Tradeoff) -> dict[str, Any]:
    """As JSON values; ends that aren't known are null, and so is a measure of which nothing is."""
    points = [
        {
            **each._asdict(),
            **{name: _plain(getattr(each, name)) for name in ("cost_usd", "latency_ms", "quality")},
        }
        for each in found.points
    ]
    return {"by": found.by, "rows": found.rows, "reaches_s": found.reaches_s, "points": points}


def _plain(measure: Measure | None) -> dict[str, float | None] | None:
    if measure is None:
        return None
    return {name: end if math.isfinite(end) else None for name, end in measure._asdict().items()}


def _points(ways: Sequence[tuple[str, Answers]], source: str) -> list[TradePoint]:
    made = [
        (name, one, _mean(one.costs_usd), _median(one.latencies_ms), _share(one.good, one.judged)) for name, one in ways
    ]
    points = [
        Point(name, {"cost": cost, "latency": latency, "quality": quality}) for name, _, cost, latency, quality in made
    ]
    return [
        TradePoint(name, source, one.requests, one.judged, cost, latency, _p95(one.latencies_ms), quality, *verdict)
        for (name, one, cost, latency, quality), verdict in zip(made, judge(points), strict=True)
    ]


def _mean(values: Sequence[float]) -> Measure | None:
    """With the normal interval, which wants thirty values; below, nobody knows its ends."""
    count = len(values)
    if not count:
        return None
    mean = math.fsum(values) / count
    if count < _FEWEST_FOR_A_MEAN:
        return Measure(mean)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    reach = _Z * deviation / math.sqrt(count)
    return Measure(mean, max(0.0, mean - reach), mean + reach)


def _median(values: Sequence[float]) -> Measure | None:
    """With the interval by order statistics, which holds for any distribution (its ranks by the normal curve)."""
    count = len(values)
    if not count:
        return None
    ordered = sorted(values)
    middle = ordered[math.ceil(count / 2) - 1]
    if count < _FEWEST_FOR_A_MEDIAN:
        return Measure(middle)
    reach = _Z * math.sqrt(count) / 2
    low, high = math.floor(count / 2 - reach), math.ceil(count / 2 + 1 + reach)
    return Measure(middle, ordered[max(low, 1) - 1], ordered[min(high, count) - 1])


def _p95(values: Sequence[float]) -> float | None:
    return sorted(values)[math.ceil(len(values) * 0.95) - 1] if values else None


def _share(good: float, of: int) -> Measure | None:
    """With Wilson's interval; of scores between 0 and 1 it is rather too wide: nothing varies more than 0 and 1."""
    if not of:
        return None
    low, high = wilson(good, of)[1:]
    return Measure(good / of, low, high)


def _judged(path: Path, ids: Sequence[str]) -> Iterable[tuple[str, bool]]:
    """Each request of which something was said: whether all of it was good."""
    if not ids or not path.is_file():
        return
    query = f"""select request_id, min(value) >= 0.5 from outcomes
        where request_id in (select value from json_each(?)) and metric in ({", ".join("?" * len(WORDS))})
        and source <> 'implicit' group by request_id"""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)) as conn:
        for at in range(0, len(ids), _IDS_AT_ONCE):
            about = orjson.dumps(ids[at : at + _IDS_AT_ONCE]).decode()
            yield from ((id, bool(good)) for id, good in conn.execute(query, (about, *WORDS)))


def _variant(decisions: str) -> str:
    """The variant that a request was sent to first, out of `ROUTE: VARIANT, why`; where none was, who answered."""
    try:
        told = orjson.loads(decisions)
        reason = next(item[2] for item in told if item[0] == "route" and item[1] == "routed")
    except (ValueError, TypeError, LookupError, StopIteration):
        return "(not routed)"
    return str(reason).partition(", ")[0].rpartition(": ")[2]
