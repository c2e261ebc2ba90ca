"""A replay as one self-contained HTML page: no script, no link, light and dark; its pictures are SVG. No IO.

Everything that came from a trace goes through `text`.
"""

from __future__ import annotations

from collections.abc import Sequence

from farthing.proxy.replay_plot import COLOURS, Line, Point, lines_of
from farthing.proxy.replay_run import Run
from farthing.proxy.replay_sweep import Settings
from farthing.proxy.replay_table import headline, notes, sweep_columns, sweep_rows
from farthing.proxy.report import disarmed
from farthing.proxy.report_charts import ticks
from farthing.proxy.report_page import STYLE, cells, listed, section, text

__all__ = ["page"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 300, 52, 40, 14, 28
_MORE_STYLE = """
svg { width: 100%; height: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; } svg .grid { stroke: var(--line); }
"""


def page(run: Run, settings: Sequence[Settings], confidence: float) -> bytes:
    """The whole document, UTF-8."""
    parts = [f"<h1>{text(headline(run, settings, confidence))}</h1>", listed(notes(run))]
    key, lines = lines_of(run, settings, confidence)
    if len(run.lanes) > 1:
        parts.append("<section><h2>Hit rate (solid) and money saved (dashed), percent</h2>")
        parts.append(_chart(key, lines, wrong=False) + "</section>")
        if any(point.wrong is not None for line in lines for point in line.points):
            parts.append(f"<section><h2>Wrong near-duplicates, percent, {confidence:.0%} interval</h2>")
            parts.append(_chart(key, lines, wrong=True) + "</section>")
    parts.append(section("Replayed", sweep_columns(settings), cells(sweep_rows(run, settings, confidence))))
    broken = [(f"{line:,}", reason) for line, reason in run.broken.told]
    parts.append(section("Lines that could not be used", ("line", "why"), cells(broken), kind="words"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>farthing: replay</title><style>{STYLE}{_MORE_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n<footer><p>Hit rate: hits and joined requests as a share of the eligible ones. Money saved: of the "
        "baseline, less farthing's own calls. Nothing was sent upstream.</p></footer>\n</body></html>\n"
    ).encode()


def _chart(key: str, lines: Sequence[Line], *, wrong: bool) -> str:
    """A line chart: shares up, the setting to the right; a mark for each configuration, with its figures as a title."""
    points = [point for line in lines for point in line.points]
    low, high = min(point.at for point in points), max(point.at for point in points)
    marks = ticks(
        min(0.0, *(0.0 if wrong else point.saved or 0.0 for point in points)),
        max([1.0, *(_highest(point, wrong) for point in points)]),
    )
    bottom, top = marks[0], marks[-1]

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((at - low) / (high - low) if high > low else 0.5)

    def y(share: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (share - bottom) / (top - bottom))

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text(key)}">']
    for share in marks:
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.3g}</text>')
    shown = list({point.at: point.name for point in points}.items())
    for at, name in shown[:: -(-len(shown) // 10)]:
        parts.append(f'<text x="{x(at):.1f}" y="{_HEIGHT - 20}" text-anchor="middle">{text(name)}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{text(key)}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        if wrong:
            judged = [(x(p.at), y(100 * p.wrong.share), p) for p in line.points if p.wrong is not None]
            for point in line.points:
                if point.wrong is not None:
                    up, down = y(100 * point.wrong.high), y(100 * point.wrong.low)
                    where = f"{x(point.at):.1f}"
                    parts.append(f'<line x1="{where}" x2="{where}" y1="{up:.1f}" y2="{down:.1f}" stroke="{colour}"/>')
            parts.append(_path(judged, colour, "", line.name))
        else:
            parts.append(_path([(x(p.at), y(p.hits), p) for p in line.points], colour, "", line.name))
            saved = [(x(p.at), y(p.saved), p) for p in line.points if p.saved is not None]
            parts.append(_path(saved, colour, "5 4", line.name))
    return "".join(parts) + "</svg>" + _legend(lines)


def _highest(point: Point, wrong: bool) -> float:
    if wrong:
        return 100 * point.wrong.high if point.wrong is not None else 0.0
    return max(point.hits, point.saved or 0.0)


def _path(points: Sequence[tuple[float, float, Point]], colour: str, dashes: str, name: str) -> str:
    if not points:
        return ""
    route = " ".join(f"{left:.1f},{up:.1f}" for left, up, _ in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    found = f'<polyline points="{route}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'
    for left, up, point in points:
        saved = "" if point.saved is None else f", saved {point.saved:.1f} %"
        told = f"{point.name} {name}: hits {point.hits:.1f} %{saved}"
        if point.wrong is not None:
            told += f", wrong {100 * point.wrong.share:.2f} %"
        found += f'<circle cx="{left:.1f}" cy="{up:.1f}" r="4" fill="{colour}"><title>{text(told)}</title></circle>'
    return found


def _legend(lines: Sequence[Line]) -> str:
    if not any(line.name for line in lines):
        return ""
    shown = (
        f'<span style="color:{COLOURS[number % len(COLOURS)]}">■ {text(disarmed(line.name))}</span>'
        for number, line in enumerate(lines)
    )
    return f"<p>{' &nbsp; '.join(shown)}</p>"
