"""A judge beside people's labels, as a table and as values. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from farthing.policies.estimate import Interval
from farthing.policies.judge_agreement import Agreement

__all__ = ["as_json", "terminal"]


def as_json(found: Agreement, judge_pico: int | None, reasons: Mapping[str, int]) -> dict[str, Any]:
    """For a machine. `reasons`: why the judge said nothing, and how often."""
    return {
        "cases": found.cases,
        "groups": found.groups,
        "unsaid": found.unsaid,
        "unsaid_reasons": dict(reasons),
        "agreed": _values(found.agreed),
        "kappa": _values(found.kappa),
        "found": {word: _values(one) for word, one in found.found.items()},
        "matrix": [{"people": human, "judge": judge, "cases": n} for (human, judge), n in sorted(found.matrix.items())],
        "judge_usd": None if judge_pico is None else judge_pico / 1e12,
    }


def terminal(found: Agreement, judge: str, judge_pico: int | None, reasons: Mapping[str, int]) -> Table:
    """For a person."""
    groups = f" in {found.groups:,} groups" if found.groups != found.cases else ""
    table = Table(
        "", "", title=f"judge {judge}: {found.cases:,} cases{groups}", title_justify="left", show_header=False
    )
    table.add_row("agrees with people", _text(found.agreed, share=True))
    table.add_row("kappa (0: worth nothing, 1: perfect)", _text(found.kappa))
    for word, one in found.found.items():
        table.add_row(f"of what people call {word}, found", _text(one, share=True))
    table.add_row("says nothing", f"{found.unsaid:,} of {found.cases:,}")
    for reason, count in sorted(reasons.items(), key=lambda one: -one[1])[:5]:
        table.add_row("", f"{count:,} {reason}")
    table.add_row("cost of judging", "unknown" if judge_pico is None else f"${judge_pico / 1e12:.6f}")
    return table


def _values(one: Interval) -> dict[str, float | None]:
    return {"value": one.value if one.value == one.value else None, "low": one.low, "high": one.high}


def _text(one: Interval, *, share: bool = False) -> str:
    if one.value != one.value:
        return "can't be known from these cases"
    if share:
        return f"{one.value:.1%} (95 %: {one.low:.1%} to {one.high:.1%})"
    return f"{one.value:.2f} (95 %: {one.low:.2f} to {one.high:.2f})"
