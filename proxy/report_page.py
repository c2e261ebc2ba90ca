"""The report as one self-contained HTML page: no script, no link, light and dark, fit to print. No IO.

Everything that came from the ledger goes through `text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from farthing.proxy.figures import Figures
from farthing.proxy.report_charts import CHART_STYLE, latency, savings, spending
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
    iso,
    label,
    milliseconds,
    money,
    named_times,
    percentile_cells,
    rate,
    span,
)
from farthing.proxy.report_tradeoff import TRADE_STYLE, tradeoff_chart
from farthing.proxy.report_values import Report
from farthing.proxy.report_worth_text import tradeoff_sections, worth_sections

__all__ = ["STYLE", "cells", "listed", "page", "section", "text"]

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #59616e; --paper: #fbfaf7; --card: #fff; --line: #e4e1d8;
  --good: #00684f; --warn: #8a4b00; --bar: #0072b2; --minus: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9e6df; --soft: #a3a8b1; --paper: #15171b; --card: #1d2026;
  --line: #31353d; --good: #4cc9a0; --warn: #f0b34c; --bar: #56b4e9; --minus: #f2867c; } }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.5rem; line-height: 1.3; text-wrap: balance; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
p.when, footer { color: var(--soft); } li { color: var(--warn); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .45rem .8rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.words :is(th, td) { text-align: left; } table.words td:last-child { width: 100%; white-space: normal; }
table.words :is(th, td):first-child { white-space: nowrap; overflow-wrap: normal; }
thead th { color: var(--soft); font-weight: 500; }
tr + tr td, tbody tr:first-child td { border-top: 1px solid var(--line); }
td.bar { width: 40%; } td.bar div { height: .7rem; border-radius: 3px; background: var(--bar); }
td.bar div.minus { background: var(--minus); }
.minus { color: var(--minus); } tr.sum td { font-weight: 600; } tr.good { color: var(--good); }
@media (max-width: 30rem) { td.bar { display: none; } th, td { padding: .4rem .5rem; }
  th:first-child, td:first-child { min-width: 7rem; } }
"""


REPEATED_HEAD = ("key_hash", "model", "requests", "answered here", "saved")
_MORE_STYLE = """
body { max-width: 64rem; } h1 { margin: .3rem 0 .6rem; } .brand { color: var(--soft); margin: 0; font-size: .85rem; }
.lead { font-size: 1.05rem; margin: .2rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; } .tile span { color: var(--soft); font-size: .85rem; }
.tile .change { display: block; min-height: 1.3em; } .change.minus { color: var(--minus); }
.change.good { color: var(--good); } pre { overflow-x: auto; padding: .7rem .9rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; } code { font-size: .9em; }
@media (max-width: 30rem) { .tiles { grid-template-columns: 1fr 1fr; } h1 { font-size: 1.25rem; } }
@media print { body { padding: 0; font-size: 11pt; } section, .tiles, .chart { break-inside: avoid; }
  .scroll { overflow: visible; border-radius: 0; } :root { color-scheme: light; } @page { margin: 15mm; } }
"""


def page(report: Report) -> str:
    """The whole document."""
    figures = report.figures
    said = headline(figures)
    first, _, rest = said.partition(". ") if figures.total.has_prices and figures.total.requests else (said, "", "")
    parts = [
        f'<p class="brand">farthing report · {day(figures.since_s)} to {day(figures.until_s)}, times in UTC</p>',
        f"<h1>{text(first + '.' * bool(rest))}</h1>",
        f'<p class="lead">{text(rest)}</p>' if rest else "",
    ]
    if figures.total.requests:
        parts += body(report)
    title = f"farthing: {span(figures)} to {iso(figures.until_s)[:10]}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{STYLE}{CHART_STYLE}{TRADE_STYLE}{_MORE_STYLE}</style></head><body>\n"
        + "\n".join(part for part in parts if part)
        + "\n<footer><p>Net saving is the sum of the savings less farthing's own spending. Hit rate: hits and joined "
        "requests as a share of the eligible ones. Spent and baseline cover the requests whose price is known.</p>"
        "</footer>\n</body></html>\n"
    )


def body(report: Report) -> Iterable[str]:
    """What follows the sentence."""
    figures = report.figures
    compared = changes(figures, report.before or figures)
    yield tiles(compared, known=report.before is not None)
    yield titled(f"Spent, and what it would have been, by {report.unit}", spending(report.stretches, report.unit))
    yield titled(f"Saved by cause, by {report.unit}", savings(report.stretches, report.unit))
    yield section("Saved by cause", (), causes(figures))
    yield titled("Before you rely on these figures", listed(report_notes(report)))
    if report.before is not None:
        yield section(f"Against the {span(figures)} before", CHANGE_HEAD, map(compared_line, compared))
    if report.forecast is not None:
        yield titled("This month", f"<p>{text(forecast_text(report.forecast))}</p>")
    yield section("Peak hour against the average hour", PEAK_HEAD, cells(peak_lines(report)))
    if figures.groups:
        by = ", ".join(figures.by)
        head = (by, "requests", "spent", "net saved", "baseline", "hit rate", "p95 ms", "unpriced")
        yield section(f"By {by}", head, cells(groups(figures)))
    for each in worth_sections(report.worth):
        yield section(each.title, each.head, cells(each.rows))
    yield titled("Cost, latency and quality", tradeoff_chart(report.tradeoff))
    for each in tradeoff_sections(report.tradeoff):
        yield section(each.title, each.head, cells(each.rows))
    yield section("Requests and hit rates", (), cells(requests(figures)))
    yield titled("Latency", latency(figures))
    yield section("Time", TIME_HEAD, cells((name, *percentile_cells(t)) for name, t in named_times(figures)))
    yield lacking(report)
    yield section("Prompts that came most often", REPEATED_HEAD, cells(repeated(report)))


def tiles(compared: Sequence[Change], *, known: bool) -> str:
    """The figures that a reader looks for first, each with its change where one is known."""
    shown = ("spent", "baseline", "net_saving", "hit_rate", "spent_per_1000", "latency_miss_p95")
    made = []
    for change in (each for each in compared if each.key in shown):
        now, before, moved, share = change_cells(change)
        kind = " minus" if is_loss(now) else ""
        told = f"{change.arrow} {share or moved.removeprefix(change.arrow).strip()}, was {before}"
        made.append(
            f'<div class="tile"><span>{text(change.name)}</span><b class="{kind.strip()}">{text(now)}</b>'
            + (f'<span class="change {better(change)}">{text(told)}</span>' if known else "")
            + "</div>"
        )
    return f'<div class="tiles">{"".join(made)}</div>'


def compared_line(change: Change) -> str:
    """A line of the comparison; what got worse in the colour of losses."""
    now, before, moved, share = change_cells(change)
    coloured = "".join(f'<td class="change {better(change)}">{text(each)}</td>' for each in (moved, share))
    return f"<tr><td>{text(change.name)}</td>{cell(now)}{cell(before)}{coloured}</tr>"


def better(change: Change) -> str:
    """The class of a change."""
    return "minus" if change.worse else "good" if change.better and change.delta else ""


def lacking(report: Report) -> str:
    """The models without a price, and how to give them one."""
    if not report.lacking:
        return ""
    told, *toml = mending(report.lacking)
    table = section("Without a price", ("model", "requests"), cells(lacking_rows(report)))
    marked = re.sub("`(.+?)`", r"<code>\1</code>", text(told))
    return f"{table}<p>{marked}</p><pre><code>{chr(10).join(map(text, toml))}</code></pre>"


def repeated(report: Report) -> Iterable[Sequence[str]]:
    """A line for each prompt that came again."""
    for each in report.repeated:
        least = "≥ " if each.at_least else ""
        yield each.key_hash[:12], each.model, f"{least}{each.requests:,}", f"{each.hits:,}", money(each.saved)


def titled(title: str, inside: str) -> str:
    """A heading, and what stands under it, where there is anything."""
    return f"<section><h2>{text(title)}</h2>{inside}</section>" if inside else ""


def day(moment_s: float) -> str:
    """The moment to the minute."""
    return iso(moment_s)[:16].replace("T", " ")


def causes(figures: Figures) -> Iterable[str]:
    """A line for each cause, with a bar from a common zero: savings to its right, losses to its left."""
    total = figures.total
    if not total.has_prices:
        return
    amounts = [(CAUSE_NAMES[cause], pico) for cause, pico in total.saved.items()]
    amounts.append(("farthing's own spending", -total.overhead))
    low = min(0, *(pico for _, pico in amounts))
    whole = max(0, *(pico for _, pico in amounts)) - low or 1
    for name, pico in amounts:
        left, width = 100 * (min(0, pico) - low) / whole, 100 * abs(pico) / whole
        bar = f'<div class="{sign(pico)}" style="margin-left:{left:.2f}%;width:{width:.2f}%"></div>'
        yield f'<tr><td>{text(name)}</td><td class="bar">{bar}</td><td class="{sign(pico)}">{money(pico)}</td></tr>'
    net = total.net_saving
    yield f'<tr class="sum {sign(net)}"><td>net saving</td><td class="bar"></td><td>{money(net)}</td></tr>'


def sign(pico: int) -> str:
    """The class of an amount: a loss must not look like a saving."""
    return "minus" if pico < 0 else "good" if pico > 0 else ""


def requests(figures: Figures) -> Iterable[tuple[str, str]]:
    """Counts, rates and tokens, each with its name."""
    total = figures.total
    yield "requests", f"{total.requests:,}"
    for status, count in total.cache.items():
        if count:
            yield label(status), f"{count:,}"
    yield "hit rate over eligible requests", rate(total.hit_rate_eligible)
    yield "hit rate over all requests", rate(total.hit_rate_all)
    yield "errors", f"{total.errors:,}"
    yield "abandoned", f"{total.abandoned:,}"
    yield "requests of unknown price", f"{total.unpriced:,}"
    yield "tokens in, as asked", f"{total.tokens_in_original:,}"
    yield "tokens in, as sent", f"{total.tokens_in_sent:,}"
    yield "tokens out", f"{total.tokens_out:,}"


def groups(figures: Figures) -> Iterable[Sequence[str]]:
    """A line for each group; what a phone shows without scrolling comes first."""
    for group in figures.groups:
        spent, baseline, net = group_money(group.sums)
        yield (
            group_name(group.key),
            f"{group.sums.requests:,}",
            spent,
            net,
            baseline,
            rate(group.sums.hit_rate_eligible),
            milliseconds(group.times["latency"].p95),
            f"{group.sums.unpriced:,}",
        )


def section(title: str, head: Sequence[str], rows: Iterable[str], *, kind: str = "") -> str:
    """A heading and a table. `kind`: `words`, where all its columns are texts."""
    top = f"<thead><tr>{''.join(f'<th>{text(name)}</th>' for name in head)}</tr></thead>" if head else ""
    body = "".join(rows)
    shown = f' class="{kind}"' if kind else ""
    table = f'<div class="scroll"><table{shown}>{top}<tbody>{body}</tbody></table></div>'
    return f"<section><h2>{text(title)}</h2>{table}</section>" if body else ""


def cells(rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Rows of plain cells."""
    for row in rows:
        yield f"<tr>{''.join(cell(shown) for shown in row)}</tr>"


def cell(shown: str) -> str:
    """A plain cell; an amount below nothing in its own colour."""
    return f'<td class="minus">{text(shown)}</td>' if is_loss(shown) else f"<td>{text(shown)}</td>"


def listed(said: Sequence[str]) -> str:
    """The notes, if any."""
    return f"<ul>{''.join(f'<li>{text(note)}</li>' for note in said)}</ul>" if said else ""


def text(value: str) -> str:
    """A text as HTML that means nothing but itself."""
    return escape(disarmed(value))
