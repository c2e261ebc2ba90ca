"""What it was worth, and the trade-off, as tables for readers: for a terminal and for a page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from farthing.policies.levels import Standing
from farthing.policies.pareto import Measure
from farthing.proxy.report_text import disarmed, group_money, group_name, milliseconds, money, rate
from farthing.proxy.report_worth import Kept, Worth, WorthLine
from farthing.proxy.tradeoff import Tradeoff, TradePoint

__all__ = ["Section", "tradeoff_sections", "worth_sections"]

_PICO = 10**12
_Shown = Callable[[float], str]
_KINDS = {"latency": "latency", "availability": "availability", "wrong": "right answers", "cost": "cost per request"}


class Section(NamedTuple):
    """A table. `head`: a name for each column, the first one of words."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def worth_sections(worth: Worth | None, *, brief: bool = False) -> list[Section]:
    """By month: money beside ratings; every other metric; every service level. Nothing where nobody said anything.

    `brief`: without intervals, for a narrow terminal.
    """
    if worth is None:
        return []
    found = []
    if worth.metrics:
        title = "What it was worth, by month"
        if worth.cut:
            title += " (of what was said, the latest 200,000 words)"
        head = (_by("month", worth), "requests", "spent", "saved", "rated", "good", "per good answer")
        found.append(Section(title, head, tuple(_money(line, brief=brief) for line in worth.lines)))
        rows = tuple(row for line in worth.lines for row in _metrics(line))
        found.append(
            Section(
                "What was said of the answers",
                (_by("month", worth), "metric", "words", "sum", "mean", "cost per 1"),
                rows,
            )
        )
    if worth.levels:
        rows = tuple(map(_kept, worth.levels))
        found.append(
            Section("Service levels", ("month and level", "target", "attained", "budget left", "events", ""), rows)
        )
    return found


def tradeoff_sections(found: Tradeoff | None, *, brief: bool = False) -> list[Section]:
    """A line for each way; nothing with less than two. `brief`: without intervals."""
    if found is None or len(found.points) < 2:
        return []
    head = ("way", "requests", "cost" if brief else "cost per request", "median ms", "p95 ms", "good", "judged", "")
    rows = tuple(_way(point, brief=brief) for point in found.points)
    return [Section("Cost, latency and quality of each way", head, rows)]


def _by(first: str, worth: Worth) -> str:
    return ", ".join([first, *worth.by])


def _named(line: WorthLine) -> str:
    name = line.month.name + ("" if line.month.whole else " (part)")
    return f"{name} · {group_name(line.key)}" if line.key else name


def _money(line: WorthLine, *, brief: bool) -> tuple[str, ...]:
    spent, _, saved = group_money(line.sums)
    good, each = line.good, line.cost_per_good
    rated = "–" if good is None else f"{line.metrics['rating'].words:,}"
    share = "–" if good is None else rate(good.value) if brief else _between(Measure(*good), rate)
    return _named(line), f"{line.sums.requests:,}", spent, saved, rated, share, "–" if each is None else money(each)


def _metrics(line: WorthLine) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, said in sorted(line.metrics.items()):
        if name != "rating":
            each = line.cost_per(name)
            shown = (f"{said.words:,}", f"{said.total:,.6g}", f"{said.mean:.4g}", "–" if each is None else money(each))
            rows.append((_named(line), disarmed(name), *shown))
    return rows


def _kept(kept: Kept) -> tuple[str, ...]:
    standing = kept.standing
    part = "" if kept.month.whole else " (part)"
    left = "–" if standing.left is None else f"{standing.left:.0%}"
    return (
        f"{kept.month.name}{part} · {disarmed(kept.level)}",
        _promised(standing),
        _attained(standing),
        left,
        f"{standing.tally.events:,}",
        standing.verdict,
    )


def _promised(standing: Standing) -> str:
    target = standing.target
    if target.kind == "cost":
        return f"{money(round(target.limit * _PICO))} a request"
    within = f" in {milliseconds(target.limit)} ms" if target.kind == "latency" else ""
    return f"{_KINDS[target.kind]}: {_share(target.share)}{within}"


def _attained(standing: Standing) -> str:
    if standing.mean_usd is not None:
        return money(round(standing.mean_usd * _PICO))
    return "–" if standing.attained is None else _share(standing.attained.value)


def _share(share: float) -> str:
    """With as many digits as it needs: 99.95 % isn't 100 %."""
    return f"{100 * share:.4f}".rstrip("0").rstrip(".") + "%"


def _way(point: TradePoint, *, brief: bool) -> tuple[str, ...]:
    where = "" if point.source == "traffic" else f" ({disarmed(point.source)})"
    cost = _between(point.cost_usd, lambda usd: money(round(usd * _PICO)), brief=brief)
    latency = _between(point.latency_ms, milliseconds, brief=brief)
    quality = "unknown" if point.quality is None else _between(point.quality, rate, brief=brief)
    verdict = point.verdict + (f" by {disarmed(point.beaten_by)}" if point.beaten_by and not brief else "")
    return (
        disarmed(point.name) + where, f"{point.requests:,}", cost, latency, milliseconds(point.latency_p95_ms), quality,
        f"{point.judged:,}", "on the front" if verdict == "front" else verdict,
    )  # fmt: skip


def _between(measure: Measure | None, shown: _Shown, *, brief: bool = False) -> str:
    if measure is None:
        return "?"
    if brief:
        return shown(measure.value)
    ends: Sequence[float] = measure[1:]
    if any(abs(end) == float("inf") for end in ends):
        return f"{shown(measure.value)} (few)"
    return f"{shown(measure.value)} ({shown(ends[0])} to {shown(ends[1])})"
