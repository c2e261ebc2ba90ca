"""A report for a terminal, from 80 columns on. No IO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from farthing.proxy.figures_values import Group as FiguresGroup
from farthing.proxy.figures_values import Sums
from farthing.proxy.report_compare import Change, changes
from farthing.proxy.report_sentence import forecast_text, headline, lacking_rows, mending, peak_lines, report_notes
from farthing.proxy.report_text import (
    CAUSE_NAMES,
    CHANGE_HEAD,
    PEAK_HEAD,
    TIME_HEAD,
    change_cells,
    disarmed,
    group_money,
    group_name,
    is_loss,
    label,
    milliseconds,
    money,
    named_times,
    of_baseline,
    percentile_cells,
    rate,
    span,
)
from farthing.proxy.report_values import Report
from farthing.proxy.report_worth_text import tradeoff_sections, worth_sections

__all__ = ["table"]

Cells = Sequence["str | Text"]
_MOST_REPEATED = 5
_WIDE = 120  # columns that intervals have room in


def table(report: Report, width: int) -> RenderableType:
    """The whole report, laid out for so many columns."""
    figures = report.figures
    total = figures.total
    parts: list[RenderableType] = [Text(headline(figures), style="bold")]
    if not total.requests:
        return parts[0]
    blocks = [
        _grid("Saved by cause", _causes(total)),
        _grid("Rates and tokens", _rates(total)),
        _grid("Requests", _requests(total)),
    ]
    parts += map(_spaced, _rows_of(blocks, 3 if width >= 96 else 2))
    parts.append(_spaced(_grid("Time", [(name, *percentile_cells(t)) for name, t in named_times(figures)], TIME_HEAD)))
    if report.before is not None:
        compared = [_compared(change) for change in changes(figures, report.before)]
        parts.append(_spaced(_grid(f"Against the {span(figures)} before", compared, CHANGE_HEAD)))
    if report.peaks:
        parts.append(_spaced(_grid("Peak hour against the average hour", peak_lines(report), PEAK_HEAD)))
    if report.forecast is not None:
        parts.append(_spaced(Group(Text("This month", style="bold"), Text(forecast_text(report.forecast)))))
    if figures.groups:
        parts.append(_spaced(_groups(report, width)))
    for title, head, rows in [
        *worth_sections(report.worth, brief=width < _WIDE),
        *tradeoff_sections(report.tradeoff, brief=width < _WIDE),
    ]:
        parts.append(_spaced(_grid(title, rows, head)))
    if report.lacking:
        parts.append(_spaced(_lacking(report)))
    if report.repeated:
        parts.append(_spaced(_repeated(report)))
    if said := report_notes(report):
        parts.append(_spaced(Group(*(Text(f"! {note}", style="yellow") for note in said))))
    return Group(*parts)


def _spaced(part: RenderableType) -> RenderableType:
    return Padding(part, (1, 0, 0, 0))


def _rows_of(blocks: Sequence[Table], across: int) -> Iterable[Table]:
    for at in range(0, len(blocks), across):
        side = Table.grid(padding=(0, 2, 0, 0))
        side.add_row(*blocks[at : at + across])
        yield side


def _grid(title: str, rows: Iterable[Cells], head: Sequence[str] = ()) -> Table:
    """A plain table; the first column to the left, numbers to the right and losses red."""
    made = Table(title=Text(title), title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    made.show_header = bool(head)
    for i in range(max(len(head), 2)):
        # Names give way and numbers don't: half a number would be another number.
        made.add_column(head[i] if head else "", justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for cells in rows:
        made.add_row(
            *(each if isinstance(each, Text) else Text(each, style="red" if is_loss(each) else "") for each in cells)
        )
    return made


def _causes(total: Sums) -> list[Cells]:
    if not total.has_prices:
        return [("no price is known", "")]
    saved: list[Cells] = [(CAUSE_NAMES[cause], money(amount)) for cause, amount in total.saved.items() if amount]
    saved += [("farthing's own spending", money(-total.overhead))] if total.overhead else []
    return [*saved, ("net saving", f"{group_money(total)[2]}{of_baseline(total)}")]


def _requests(total: Sums) -> list[Cells]:
    return [
        ("all", f"{total.requests:,}"),
        *((label(status), f"{count:,}") for status, count in total.cache.items() if count),
        ("errors", f"{total.errors:,}"),
        ("abandoned", f"{total.abandoned:,}"),
    ]


def _rates(total: Sums) -> list[Cells]:
    return [
        ("hit rate, eligible", rate(total.hit_rate_eligible)),
        ("hit rate, all", rate(total.hit_rate_all)),
        ("tokens in, asked", f"{total.tokens_in_original:,}"),
        ("tokens in, sent", f"{total.tokens_in_sent:,}"),
        ("provider-cached", f"{total.tokens_in_cached:,}"),
        ("tokens out", f"{total.tokens_out:,}"),
    ]


def _compared(change: Change) -> Cells:
    now, before, moved, share = change_cells(change)
    style = "red" if change.worse else "green" if change.better and change.delta else ""
    return change.name, now, before, Text(moved, style=style), Text(share, style=style)


def _groups(report: Report, width: int) -> Table:
    """A line for each group; what a narrow terminal has no room for is left out, never cut."""
    figures, before = report.figures, report.sums_before
    unpriced = figures.total.unpriced > 0
    by = ", ".join(figures.by)

    def cells(group: FiguresGroup) -> dict[str, str | Text]:
        spent, baseline, net = group_money(group.sums)
        old = before.get(group.key)
        return {
            by: group_name(group.key),
            "requests": f"{group.sums.requests:,}",
            "hit rate": rate(group.sums.hit_rate_eligible),
            "spent": spent,
            **({"spent before": group_money(old)[0] if old else "–"} if before and width >= 110 else {}),
            **({"baseline": baseline} if width >= 90 else {}),
            "net saved": net,
            **({"net saved before": group_money(old)[2] if old else "–"} if before and width >= 130 else {}),
            "p95 ms": milliseconds(group.times["latency"].p95),
            **({"unpriced": f"{group.sums.unpriced:,}" if group.sums.unpriced else ""} if unpriced else {}),
        }

    lines = [cells(group) for group in figures.groups]
    return _grid(f"By {by}", [[*line.values()] for line in lines], [*lines[0]])


def _lacking(report: Report) -> RenderableType:
    lines = (Text(f"  {line}" if at else line) for at, line in enumerate(mending(report.lacking)))
    return Group(_grid("Without a price", lacking_rows(report), ("model", "requests")), *lines)


def _repeated(report: Report) -> Table:
    rows = [
        (f"{disarmed(each.key_hash)[:12]}  {disarmed(each.model)[:40]}", f"{_least(each.at_least)}{each.requests:,}",
         f"{each.hits:,}", money(each.saved))
        for each in report.repeated[:_MOST_REPEATED]
    ]  # fmt: skip
    return _grid("Prompts that came most often", rows, ("key_hash and model", "requests", "answered here", "saved"))


def _least(at_least: bool) -> str:
    return ">= " if at_least else ""
