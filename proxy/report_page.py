"""The report as one self-contained HTML page: no script, no link, light and dark. No IO.

Everything that came from the ledger goes through `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from farthing.proxy.figures import Figures
from farthing.proxy.report import (
    CAUSE_NAMES,
    TIME_HEAD,
    disarmed,
    group_money,
    group_name,
    headline,
    is_loss,
    iso,
    label,
    milliseconds,
    money,
    named_times,
    notes,
    percentile_cells,
    rate,
    span,
)

__all__ = ["page"]

# The causes' colours are Okabe and Ito's, which colour-blind readers can tell apart.
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
thead th { color: var(--soft); font-weight: 500; }
tr + tr td, tbody tr:first-child td { border-top: 1px solid var(--line); }
td.bar { width: 40%; } td.bar div { height: .7rem; border-radius: 3px; background: var(--bar); }
td.bar div.minus { background: var(--minus); }
.minus { color: var(--minus); } tr.sum td { font-weight: 600; } tr.good { color: var(--good); }
@media (max-width: 30rem) { td.bar { display: none; } th, td { padding: .4rem .5rem; }
  th:first-child, td:first-child { min-width: 7rem; } }
"""


def page(figures: Figures) -> str:
    """The whole document."""
    total = figures.total
    parts = [f"<h1>{text(headline(figures))}</h1>"]
    parts.append(f'<p class="when">{iso(figures.since_s)} to {iso(figures.until_s)}, times in UTC</p>')
    if total.requests:
        parts.append(listed(notes(figures)))
        parts.append(section("Saved by cause", (), causes(figures)))
        parts.append(section("Requests and hit rates", (), cells(requests(figures))))
        parts.append(
            section("Time", TIME_HEAD, cells((name, *percentile_cells(t)) for name, t in named_times(figures)))
        )
    if figures.groups:
        head = (", ".join(figures.by), "requests", "spent", "net saved", "baseline", "hit rate", "p95 ms", "unpriced")
        parts.append(section(f"By {', '.join(figures.by)}", head, cells(groups(figures))))
    title = f"farthing: {span(figures)} to {iso(figures.until_s)[:10]}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n<footer><p>Net saving is the sum of the savings less farthing's own spending. Hit rate: hits and joined "
        "requests as a share of the eligible ones.</p></footer>\n</body></html>\n"
    )


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


def section(title: str, head: Sequence[str], rows: Iterable[str]) -> str:
    """A heading and a table."""
    top = f"<thead><tr>{''.join(f'<th>{text(name)}</th>' for name in head)}</tr></thead>" if head else ""
    body = "".join(rows)
    table = f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'
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
