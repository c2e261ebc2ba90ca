"""A comparison in words and tables: for a terminal, for a page, for a machine. No IO.

Slices' values come from traffic: nothing in them reaches a terminal as markup or escapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from farthing.policies.compare import Comparison, SliceResult
from farthing.policies.estimate import Interval
from farthing.proxy.report import disarmed

__all__ = ["SLICE_HEAD", "TRAP_HEAD", "as_json", "facts", "headline", "notes", "slice_rows", "terminal", "trap_rows"]

SLICE_HEAD = ("slice", "cases", "baseline", "candidate", "difference", "95 %", "")
TRAP_HEAD = ("trap", "cases", "baseline", "candidate", "reused wrongly")
_SHOWN = 20
_STYLES = {"not worse": "bold green", "worse": "bold red", "inconclusive": "bold yellow"}


def headline(found: Comparison) -> str:
    """The verdict in a sentence."""
    verdict = found.verdict
    margin = f"{verdict.margin:.1%}"
    loss = f"{found.baseline:.1%} → {found.candidate:.1%}"
    if verdict.word == "not worse":
        return f"Not worse than the baseline by {margin} or more: {loss} of {found.cases:,} cases good{_saving(found)}."
    if verdict.word == "worse":
        return f"Worse than the baseline by more than {margin}: {loss} of {found.cases:,} cases good{_saving(found)}."
    if found.unpaid:
        return f"Not decided: the run's money was used up before {found.unpaid:,} cases were asked of both arms."
    if verdict.needed is None:
        return f"Not shown to be as good: {loss}, and the loss itself lies beyond {margin}; more cases would not help."
    return f"Not decided: {loss}. A verdict at a margin of {margin} needs about {verdict.needed:,} cases in all."


def _saving(found: Comparison) -> str:
    if found.cost is None:
        return ""
    change = 1 - found.cost.value
    return f", at {abs(change):.0%} {'lower' if change >= 0 else 'higher'} cost"


def notes(found: Comparison) -> list[str]:
    """What must be known to read the figures."""
    told = []
    if found.undecided:
        told.append(f"the judge couldn't say in {found.undecided:,} cases: they count as bad")
    if found.unpaid:
        told.append("what was refused for want of the run's own money says nothing of an arm: raise --max-usd")
    if found.lost:
        told.append(f"{found.lost:,} cases were answered by neither arm: they say nothing of how these differ")
    if found.failed:
        told.append(f"{found.failed:,} cases got no answer from the candidate: they count as bad")
    if found.noise is not None and found.noise < 0.999:
        told.append(
            f"the baseline's own second answers are good in {found.noise:.1%}: what differs beyond is the candidate's"
        )
    if found.cost is None:
        told.append("a price is unknown, so costs can't be compared (farthing prices check MODEL)")
    if 0.0005 < found.detectable < 1:
        told.append(f"this many cases would show a loss of {found.detectable:.1%} (power 80 %)")
    return told


def facts(found: Comparison) -> list[tuple[str, str, str]]:
    """Rows of (what, baseline, candidate)."""
    rows = [("good answers", f"{found.baseline:.2%}", f"{found.candidate:.2%}")]
    if found.baseline_usd is not None and found.candidate_usd is not None:
        rows.append(("cost", f"${found.baseline_usd:,.6f}", f"${found.candidate_usd:,.6f}"))
    if found.cost is not None:
        rows.append(("share of cost", "100 %", f"{found.cost.value:.1%}  ({_span(found.cost, '.1%')})"))
    for name, (one, other) in found.latency_ms.items():
        rows.append((f"latency {name}", f"{one.value:,.0f} ms", f"{other.value:,.0f} ms"))
    hits = ", ".join(f"{name} {count:,}" for name, count in found.hits.items())
    rows.append(("answered by", "", hits))
    return rows


def slice_rows(found: Comparison) -> list[tuple[str, ...]]:
    """Those that differ surely, then the largest losses."""
    order = sorted(found.slices, key=lambda one: (not one.word, one.difference.value))
    return [_slice(one) for one in order]


def _slice(one: SliceResult) -> tuple[str, ...]:
    return (
        disarmed(f"{one.name} = {one.value}"[:60]), f"{one.cases:,}", f"{one.baseline:.1%}", f"{one.candidate:.1%}",
        f"{one.difference.value:+.1%}", _span(one.difference, "+.1%"), one.word,
    )  # fmt: skip


def trap_rows(found: Comparison) -> list[tuple[str, ...]]:
    """Each kind of hard prompts."""
    return [
        (disarmed(one.kind), f"{one.cases:,}", f"{one.baseline:.1%}", f"{one.candidate:.1%}", f"{one.reused:,}")
        for one in found.traps
    ]


def terminal(found: Comparison) -> RenderableType:
    """All of it, for a terminal."""
    parts: list[RenderableType] = [Text(headline(found), style=_STYLES[found.verdict.word]), Text()]
    parts.append(_table(("", "baseline", "candidate"), facts(found)))
    rows = slice_rows(found)
    if rows:
        parts.append(_titled("By slice (p-values adjusted for their number)", _table(SLICE_HEAD, rows[:_SHOWN])))
        if len(rows) > _SHOWN:
            parts.append(Text(f"  and {len(rows) - _SHOWN} more: --json, --html", style="dim"))
    if found.traps:
        parts.append(_titled("Prompts that are hard on purpose", _table(TRAP_HEAD, trap_rows(found))))
    parts += [Text(f"  {note}", style="dim") for note in notes(found)]
    return Group(*parts)


def as_json(found: Comparison) -> dict[str, Any]:
    """As plain values; what isn't finite is null."""
    return {
        "verdict": found.verdict.word,
        "headline": headline(found),
        "cases": found.cases,
        "needed": found.verdict.needed,
        "margin": found.verdict.margin,
        "baseline": found.baseline,
        "candidate": found.candidate,
        "difference": _interval(found.verdict.difference),
        "cost": None if found.cost is None else _interval(found.cost),
        "baseline_usd": found.baseline_usd,
        "candidate_usd": found.candidate_usd,
        "latency_ms": {name: list(map(_interval, pair)) for name, pair in found.latency_ms.items()},
        "undecided": found.undecided,
        "failed": found.failed,
        "unpaid": found.unpaid,
        "lost": found.lost,
        "noise": found.noise,
        "detectable": _finite(found.detectable),
        "hits": dict(found.hits),
        "slices": [
            {**one._asdict(), "difference": _interval(one.difference)} for one in found.slices
        ],
        "traps": [one._asdict() for one in found.traps],
        "notes": notes(found),
    }  # fmt: skip


def _interval(one: Interval) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in one._asdict().items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _span(one: Interval, form: str) -> str:
    return f"{one.low:{form}} to {one.high:{form}}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*head, box=None, pad_edge=False, header_style="dim")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for row in rows:
        style = {"worse": "red", "better": "green"}.get(row[-1], "")
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def _titled(title: str, table: Table) -> RenderableType:
    return Group(Text(), Text(title, style="bold"), Padding(table, (0, 0, 0, 2)))
