"""Amounts, shares, times and names as a person reads them. Pure.

Rules of this file: an amount that isn't zero never shows as zero; texts from the ledger are hostile (terminal escapes,
spreadsheet formulas) and are disarmed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from farthing.proxy.figures_values import Figures, Percentiles, Sums
from farthing.proxy.report_compare import Change

__all__ = [
    "CAUSE_NAMES",
    "CHANGE_HEAD",
    "PEAK_HEAD",
    "TIME_HEAD",
    "change_cells",
    "counted",
    "disarmed",
    "dollars",
    "group_money",
    "group_name",
    "is_loss",
    "iso",
    "label",
    "milliseconds",
    "money",
    "named_times",
    "of_baseline",
    "percentile_cells",
    "rate",
    "span",
    "unformulated",
]

CAUSE_NAMES: Mapping[str, str] = {
    "exact": "exact cache",
    "semantic": "semantic cache",
    "compress": "compression",
    "route": "routing",
    "prompt_cache": "provider's prompt cache",
}
PICO = Decimal(10) ** -12
CHANGE_HEAD = ("", "now", "before", "change", "")
PEAK_HEAD = ("", "peak", "at (UTC)", "average", "")
TIME_HEAD = ("milliseconds", "p50", "p95", "p99", "requests")


def money(pico: int) -> str:
    """Dollars to read: cents from a dollar on, three significant digits below a cent, `$0` only for exactly nothing."""
    amount = abs(Decimal(pico)) * PICO
    sign = "-" if pico < 0 else ""
    if amount == 0:
        return "$0"
    if amount >= 1:
        return f"{sign}${amount:,.2f}"
    if amount >= Decimal("0.01"):
        return f"{sign}${amount:.4f}"
    return f"{sign}${amount:.{2 - amount.adjusted()}f}"


def is_loss(shown: str) -> bool:
    """Whether a cell shows an amount below nothing, which must not look like a saving."""
    return shown.startswith("-$")


def dollars(pico: int) -> str:
    """Dollars to compute with: every digit, no exponent."""
    text = f"{Decimal(pico) * PICO:.12f}".rstrip("0").rstrip(".")
    return text if text not in ("", "-0") else "0"


def span(figures: Figures) -> str:
    """How long the figures' span is, in words."""
    length_s = round(figures.until_s - figures.since_s)
    for unit_s, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if length_s >= 2 * unit_s or (length_s >= unit_s and unit_s == 60):
            count = length_s / unit_s
            return f"{count:.0f} {name}" if abs(count - round(count)) < 0.05 else f"{count:.1f} {name}"
    return f"{length_s} seconds"


def counted(count: int, word: str) -> str:
    """A count with its noun."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def named_times(figures: Figures) -> list[tuple[str, Percentiles]]:
    """The percentiles that there are, each with its name for a reader."""
    names = {
        "latency": "whole request",
        "latency_miss": "  sent upstream",
        "latency_hit": "  answered from cache",
        "ttft": "to the first byte",
        "overhead": "farthing's own overhead",
    }
    return [(name, figures.times[key]) for key, name in names.items() if figures.times[key].count]


def percentile_cells(times: Percentiles) -> tuple[str, str, str, str]:
    """A line of the time table."""
    return milliseconds(times.p50), milliseconds(times.p95), milliseconds(times.p99), f"{times.count:,}"


def group_money(sums: Sums) -> tuple[str, str, str]:
    """Spent, baseline and net saving; question marks where every price is unknown."""
    if not sums.has_prices:
        return "?", "?", "?"
    return money(sums.spent), money(sums.baseline), money(sums.net_saving)


def label(status: str) -> str:
    """A cache status in words."""
    return {"hit-exact": "exact hits", "hit-semantic": "semantic hits", "miss": "misses", "bypass": "bypassed"}.get(
        status, status
    )


def rate(share: float | None) -> str:
    """A share as per cent; a dash where there is none."""
    return "–" if share is None else f"{share:.1%}"


def of_baseline(total: Sums) -> str:
    """The net saving as a share of the baseline, in brackets."""
    return f" ({total.net_saving / total.baseline:.1%})" if total.baseline else ""


def milliseconds(value: float | None) -> str:
    """Three digits that matter; a dash where there is no value."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def change_cells(change: Change) -> tuple[str, str, str, str]:
    """Now, before, the change with its arrow, and the change in per cent; `new` for the per cent of nothing."""
    now, before = (_measure(change, value) for value in (change.now, change.before))
    if change.delta is None:
        return now, before, "", ""
    if change.delta == 0:
        return now, before, "=", ""
    sign = "+" if change.delta > 0 else "-"
    if change.kind == "share":
        moved = f"{sign}{abs(change.delta) * 100:.1f} points"
    else:
        moved = sign + _measure(change, abs(change.delta))
    return now, before, f"{change.arrow} {moved}", _per_cent(change)


def _per_cent(change: Change) -> str:
    if change.share is None:
        return "" if change.kind == "share" else "new"
    return f"{change.share:+.1%}" if abs(change.share) < 10 else f"{change.share:+,.0%}"


def _measure(change: Change, value: float | int | None) -> str:
    if value is None:
        return "–"
    if change.kind == "money":
        return money(int(value))
    if change.kind == "share":
        return rate(value)
    return milliseconds(value) if change.kind == "ms" else f"{value:,.0f}"


def group_name(key: tuple[str, ...]) -> str:
    """A group's name, with the empty one named and control characters made visible."""
    return " · ".join(disarmed(part) or "(none)" for part in key)


def disarmed(text: str) -> str:
    """The text with nothing that a terminal would obey, or that would turn a line around."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def unformulated(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would run. Source: OWASP, "CSV Injection"."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def iso(moment_s: float) -> str:
    """The moment as ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
