"""An experiment as one self-contained HTML page: the effect over time with its confidence sequence, and the record.

No script, no link, light and dark. Everything that came from traffic goes through `text`. No IO.
"""

from __future__ import annotations

from datetime import UTC, datetime

from farthing.proxy.experiment_book import Record
from farthing.proxy.experiment_text import ARM_HEAD, SLICE_HEAD, arm_rows, headline, moment, notes, slice_rows
from farthing.proxy.report_page import STYLE, cells, listed, section, text

__all__ = ["page"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 260, 84, 12, 30
_STYLE = """
svg { width: 100%; min-width: 34rem; height: auto; } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .zero { stroke: var(--soft); } svg .grid { stroke: var(--line); } svg .reach { fill: var(--bar); opacity: .22; }
svg .line { fill: none; stroke: var(--bar); stroke-width: 2; }
.verdict { border-left: 6px solid var(--warn); padding-left: .8rem; }
th:first-child, td:first-child { min-width: 5rem; } td:last-child { white-space: normal; min-width: 5rem; }
"""


def page(record: Record) -> bytes:
    """The whole document, UTF-8."""
    title = f"Experiment {record.name}"
    said = record.declaration
    metric = str(said.get("metric", "cost_usd"))
    parts = [
        f"<p class=when>{text(title)} ({text(record.id)}), {text(moment(record.since_s))} to "
        f"{text(moment(record.ended_s))}</p>",
        f"<h1 class=verdict>{text(headline(record))}</h1>",
    ]
    for arm in record.arms[1:]:
        chart = _chart(record, arm.name)
        if chart:
            parts.append(f"<section><h2>{text(f'{metric}: {arm.name} minus {record.arms[0].name}')}</h2>")
            parts.append(f'<div class="scroll">{chart}</div></section>')
    parts.append(section("Metrics", ARM_HEAD, cells(arm_rows(record))))
    parts.append(section("Slices (p-values adjusted for their number)", SLICE_HEAD, cells(slice_rows(record))))
    parts.append(listed(notes(record)))
    arms = [(arm.name, arm.version, f"{arm.share:.1%}", _units(record, arm.name)) for arm in record.arms]
    parts.append(section("Arms", ("arm", "policy", "share", "units"), cells(arms)))
    shown = [(name, str(value)) for name, value in said.items() if name not in ("arms", "name")]
    parts.append(section("Declared before the start", ("", ""), cells(shown), kind="words"))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
    style = f"<style>{STYLE}{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}{style}</head><body>{"".join(parts)}</body></html>'.encode()


def _units(record: Record, arm: str) -> str:
    return "-" if record.reading is None else f"{record.reading['shares']['units'].get(arm, 0):,}"


def _chart(record: Record, arm: str) -> str:
    """The difference over time as a line within its confidence sequence."""
    found = [(at, *apart[arm]) for at, apart in record.points if arm in apart]
    points: list[tuple[float, float, float, float]] = [one for one in found if None not in one]
    if len(points) < 2:
        return ""
    # The first intervals are very wide: the picture shows what the second half needs, and cuts the rest.
    late = points[len(points) // 2 :]
    bottom, top = min(0.0, *(one[2] for one in late)), max(0.0, *(one[3] for one in late))
    room = (top - bottom) * 0.1 or 1.0
    bottom, top = bottom - room, top + room
    begin, end = points[0][0], points[-1][0]

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 12) * (at - begin) / ((end - begin) or 1.0)

    def y(value: float) -> float:
        inside = min(top, max(bottom, value))
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (top - inside) / (top - bottom)

    band = [f"{x(at):.1f},{y(high):.1f}" for at, _, _, high in points]
    band += [f"{x(at):.1f},{y(low):.1f}" for at, _, low, _ in reversed(points)]
    line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value, _, _ in points)
    marks = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = bottom + (top - bottom) * share
        marks.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        marks.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:+.3g}</text>')
    for at, anchor in ((begin, "start"), (end, "end")):
        said = datetime.fromtimestamp(at, UTC).strftime("%b %d %H:%M")
        marks.append(f'<text x="{x(at):.1f}" y="{_HEIGHT - 8}" text-anchor="{anchor}">{said}</text>')
    zero = f'<line class="zero" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>'
    drawn = f'<polygon class="reach" points="{" ".join(band)}"/>{zero}<polyline class="line" points="{line}"/>'
    label = "The difference over time, and its confidence sequence."
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(marks)}{drawn}</svg>'
