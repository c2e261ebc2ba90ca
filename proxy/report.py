"""Figures as a person, a spreadsheet, a program or a browser wants them. No IO but in `report_on`.

Rules of this file: an amount that isn't zero never shows as zero; an unknown price is named, never shown as a number;
texts from the ledger are hostile (terminal escapes, markup, spreadsheet formulas) and are disarmed here.
"""

from __future__ import annotations

import csv as csv_format
import io
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from farthing.proxy.clock import Clock
from farthing.proxy.errors import ConfigFault
from farthing.proxy.figures import (
    CAUSES,
    STATUSES,
    Figures,
    Percentiles,
    Sums,
    farthing_since,
    open_ledger,
    summary,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "FORMATS",
    "csv",
    "dollars",
    "headline",
    "html",
    "json",
    "money",
    "notes",
    "plain",
    "render",
    "report_on",
    "table",
]

FORMATS = ("table", "json", "csv", "html")
CAUSE_NAMES: Mapping[str, str] = {
    "exact": "exact cache",
    "semantic": "semantic cache",
    "compress": "compression",
    "route": "routing",
    "prompt_cache": "provider's prompt cache",
}
PICO = Decimal(10) ** -12
EMPTY = (
    "No requests in {span}. Point an app's base_url at farthing (http://127.0.0.1:8080/v1 unless configured "
    "otherwise), send one, and ask again; or ask for a longer time with --since."
)


def render(figures: Figures, form: str, *, width: int = 100, colour: bool = False) -> str:
    """The figures as one of FORMATS. `width`: columns, for the table. Raises ValueError for another form."""
    if form == "json":
        return json(figures)
    if form == "csv":
        return csv(figures)
    if form == "html":
        return html(figures)
    if form != "table":
        raise ValueError(f"{form!r} is no format; known: {', '.join(FORMATS)}")
    from rich.console import Console

    out = io.StringIO()
    Console(
        file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None, legacy_windows=False
    ).print(table(figures))
    return out.getvalue()


def report_on(
    path: Path, since: str, by: Sequence[str], form: str, clock: Clock, *, width: int = 100
) -> RenderableType:
    """The report on the ledger at `path`, from `since` (`7d`, `24h`, a date) until now: a text, or a rich table.

    Raises ConfigFault for a span, a group or a format that isn't known, and for a ledger that can't be read.
    Effects: opens the ledger read-only.
    """
    now_s = clock.now_s()
    try:
        since_s = farthing_since(since, now_s)
        with closing(open_ledger(path)) as conn:
            # One second more: a row written within this very second belongs to the report.
            figures = summary(conn, since_s, now_s + 1, by)
        return table(figures) if form == "table" else render(figures, form, width=width)
    except ValueError as error:
        raise ConfigFault(str(error)) from None
    except sqlite3.Error as error:
        raise ConfigFault(f"can't read the ledger {path}: {error}") from None


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


def headline(figures: Figures) -> str:
    """The whole report in one sentence."""
    total = figures.total
    if not total.requests:
        return EMPTY.format(span=span(figures))
    if not total.has_prices:
        return f"No price is known for any of the {total.requests:,} requests in {span(figures)}."
    text = (
        f"You spent {money(total.spent)} in {span(figures)}; "
        f"without farthing it would have been {money(total.baseline)}."
    )
    return text + (f" That leaves out {counted(total.unpriced, 'request')} of unknown price." if total.unpriced else "")


def notes(figures: Figures) -> list[str]:
    """What a reader must know before believing the figures."""
    total, said = figures.total, []
    if total.unpriced:
        known = f" ({money(total.cost_unpriced)} of cost is known among them)" if total.cost_unpriced else ""
        said.append(
            f"{counted(total.unpriced, 'request')} of unknown price: in no amount above{known}. "
            "Prices of own models go under prices.models in the configuration."
        )
    if total.unproven:
        said.append(f"{counted(total.unproven, 'semantic hit')} served unproven: nothing bounds how many were wrong.")
    if total.modelled:
        said.append(f"{counted(total.modelled, 'request')} with a modelled baseline: estimated, not billed.")
    if total.has_prices and total.net_saving < 0:
        said.append(f"Optimising cost {money(-total.net_saving)} more than it saved.")
    if total.overhead_unknown:
        said.append(f"{counted(total.overhead_unknown, 'request')} whose overhead cost is unknown: in no amount above.")
    if total.unattributed:
        said.append(f"{money(total.unattributed)} of saving without a cause: some rows of the ledger are inconsistent.")
    if figures.left_out:
        said.append(f"{counted(figures.left_out, 'smaller group')} not shown.")
    return said


def counted(count: int, word: str) -> str:
    """A count with its noun."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def table(figures: Figures) -> RenderableType:
    """The report for a terminal, readable in 100 columns."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    total = figures.total
    parts: list[RenderableType] = [Text(headline(figures), style="bold")]
    if not total.requests:
        return parts[0]

    def grid(title: str, rows: Iterable[tuple[str, ...]], head: tuple[str, ...] = ()) -> Table:
        made = Table(title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        made.show_header = bool(head)
        for i in range(max(len(head), 2)):
            made.add_column(head[i] if head else "", justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
        for cells in rows:
            made.add_row(*(Text(cell, style="red" if is_loss(cell) else "") for cell in cells))
        return made

    saved = [(CAUSE_NAMES[cause], money(amount)) for cause, amount in total.saved.items() if amount]
    saved += [("farthing's own spending", money(-total.overhead))] if total.overhead else []
    saved += [("net saving", f"{group_money(total)[2]}{of_baseline(total)}")]
    left = grid("Saved by cause", saved)
    right = grid(
        "Requests",
        [
            ("all", f"{total.requests:,}"),
            *((label(status), f"{count:,}") for status, count in total.cache.items() if count),
            ("errors", f"{total.errors:,}"),
            ("abandoned", f"{total.abandoned:,}"),
        ],
    )
    middle = grid(
        "Rates and tokens",
        [
            ("hit rate, eligible", rate(total.hit_rate_eligible)),
            ("hit rate, all", rate(total.hit_rate_all)),
            ("tokens in, asked", f"{total.tokens_in_original:,}"),
            ("tokens in, sent", f"{total.tokens_in_sent:,}"),
            ("provider-cached", f"{total.tokens_in_cached:,}"),
            ("tokens out", f"{total.tokens_out:,}"),
        ],
    )
    side = Table.grid(padding=(0, 2, 0, 0))
    side.add_row(left, middle, right)
    parts.append(Padding(side, (1, 0)))
    parts.append(grid("Time", [(name, *percentile_cells(times)) for name, times in named_times(figures)], TIME_HEAD))
    if figures.groups:
        head = (", ".join(figures.by), "requests", "hit rate", "spent", "baseline", "net saved", "p95 ms", "unpriced")
        rows = [
            (
                group_name(group.key),
                f"{group.sums.requests:,}",
                rate(group.sums.hit_rate_eligible),
                *group_money(group.sums),
                milliseconds(group.times["latency"].p95),
                f"{group.sums.unpriced:,}" if group.sums.unpriced else "",
            )
            for group in figures.groups
        ]
        parts.append(Padding(grid(f"By {', '.join(figures.by)}", rows, head), (1, 0, 0, 0)))
    if said := notes(figures):
        parts.append(Padding(Group(*(Text(f"! {note}", style="yellow") for note in said)), (1, 0, 0, 0)))
    return Group(*parts)


TIME_HEAD = ("milliseconds", "p50", "p95", "p99", "requests")


def named_times(figures: Figures) -> list[tuple[str, Percentiles]]:
    """The percentiles that there are, each with its name for a reader."""
    names = {
        "latency": "whole request",
        "latency_miss": "  sent upstream",
        "latency_hit": "  answered from cache",
        "ttft": "to the first byte (streams)",
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


def group_name(key: tuple[str, ...]) -> str:
    """A group's name, with the empty one named and control characters made visible."""
    return " · ".join(disarmed(part) or "(none)" for part in key)


def disarmed(text: str) -> str:
    """The text with nothing that a terminal would obey, or that would turn a line around."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def plain_sums(sums: Sums, times: Mapping[str, Percentiles]) -> dict[str, Any]:
    """Sums and times as plain values; amounts are decimal texts of dollars, rates are shares of 1.

    Where every request is of unknown price the amounts are None.
    """
    amounts = {
        **{name: getattr(sums, name) for name in ("baseline", "cost", "overhead", "spent")},
        **{f"saved_{cause}": sums.saved[cause] for cause in CAUSES},
        "saved": sums.saved_total,
        "net_saving": sums.net_saving,
    }
    return {
        "requests": sums.requests,
        "cache": dict(sums.cache),
        "hit_rate_eligible": sums.hit_rate_eligible,
        "hit_rate_all": sums.hit_rate_all,
        **{name: getattr(sums, name) for name in PLAIN_COUNTS},
        **{f"{name}_usd": dollars(pico) if sums.has_prices else None for name, pico in amounts.items()},
        "cost_unpriced_usd": dollars(sums.cost_unpriced),
        **{f"{name}_ms": asdict(each) for name, each in times.items() if each.count},
    }


PLAIN_COUNTS = (
    "errors", "abandoned", "unproven", "modelled", "unpriced", "overhead_unknown",
    "tokens_in_original", "tokens_in_sent", "tokens_in_cached", "tokens_out",
    "tokens_saved_tidy", "tokens_saved_recode", "tokens_saved_squeeze",
)  # fmt: skip


def plain(figures: Figures) -> dict[str, Any]:
    """The figures as plain values, ready for JSON."""
    return {
        "since": iso(figures.since_s),
        "until": iso(figures.until_s),
        "headline": headline(figures),
        "notes": notes(figures),
        "total": plain_sums(figures.total, figures.times),
        "by": list(figures.by),
        "groups": [
            {"key": dict(zip(figures.by, group.key, strict=True)), **plain_sums(group.sums, group.times)}
            for group in figures.groups
        ],
        "groups_left_out": figures.left_out,
    }


def iso(moment_s: float) -> str:
    """The moment as ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def json(figures: Figures) -> str:
    """The figures as JSON; amounts are decimal texts of dollars, so that no digit is lost on the way."""
    return orjson.dumps(plain(figures), option=orjson.OPT_INDENT_2).decode() + "\n"


def csv(figures: Figures) -> str:
    """A line for each group, or one for all (RFC 4180); amounts in dollars with every digit."""
    flat = [(group.key, plain_sums(group.sums, group.times)) for group in figures.groups]
    flat = flat if figures.by else [((), plain_sums(figures.total, figures.times))]
    numbers = [name for name in plain_sums(figures.total, {}) if name != "cache"]
    times = ("latency_ms", "overhead_ms")
    out = io.StringIO()
    writer = csv_format.writer(out)
    writer.writerow(
        ["since", "until", *figures.by, *numbers, *(status.replace("-", "_") for status in STATUSES),
         *(f"{name.removesuffix('_ms')}_{p}_ms" for name in times for p in ("p50", "p95", "p99"))]
    )  # fmt: skip
    for key, values in flat:
        writer.writerow(
            [iso(figures.since_s), iso(figures.until_s), *(unformulated(part) for part in key),
             *("" if values[name] is None else values[name] for name in numbers),
             *(values["cache"].get(status, 0) for status in STATUSES),
             *(values.get(name, {}).get(p, "") for name in times for p in ("p50", "p95", "p99"))]
        )  # fmt: skip
    return out.getvalue()


def unformulated(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would run. Source: OWASP, "CSV Injection"."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def html(figures: Figures) -> str:
    """One self-contained page, no script, light and dark."""
    from farthing.proxy.report_page import page

    return page(figures)
