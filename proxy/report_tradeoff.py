"""The trade-off as SVG: cost to the right, quality and below it latency upwards, intervals as bars, the front a line.

Pure. Ways are told apart by a number in their mark, which stands in the list below too, and by the mark's form: a
filled circle on the front, a hollow one beaten within the intervals, a cross beaten for sure, a square unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from html import escape

from farthing.policies.pareto import Measure
from farthing.proxy.report_charts import ticks
from farthing.proxy.report_text import disarmed, milliseconds, money, rate
from farthing.proxy.tradeoff import Tradeoff, TradePoint

__all__ = ["TRADE_STYLE", "tradeoff_chart"]

TRADE_STYLE = """
.trade .whisker { stroke: var(--soft); stroke-width: 1.5; } .trade .edge { stroke: var(--spent); stroke-width: 2;
  fill: none; stroke-dasharray: 6 4; } .trade .on { fill: var(--spent); } .trade .off { fill: var(--card);
  stroke: var(--spent); stroke-width: 2; } .trade .cross { stroke: var(--minus); stroke-width: 2.5; }
.trade text.number { fill: var(--ink); font-weight: 600; paint-order: stroke; stroke: var(--card);
  stroke-width: 4px; stroke-linejoin: round; } .trade li { color: var(--soft); } .trade li b { color: var(--ink); }
.trade ol { margin: .3rem 0 .3rem 1.2rem; padding: 0 1rem; font-size: .88rem; }
th:first-child, td:first-child { min-width: 6rem; }
"""
_HEIGHT, _SMALL, _LEFT, _RIGHT, _TOP, _BOTTOM = 300, 200, 66, 30, 26, 40
_PICO = 10**12
_WORDS = {"front": "on the front", "unknown": "quality unknown"}


def tradeoff_chart(found: Tradeoff | None) -> str:
    """The picture with its legend; empty with less than two ways whose cost is known."""
    if found is None:
        return ""
    quality = any(point.quality is not None for point in found.points)
    drawn = [point for point in found.points if point.cost_usd and (point.quality if quality else point.latency_ms)]
    if len(drawn) < 2:
        return ""
    numbered = list(enumerate(drawn, 1))
    pictures = _pictures(numbered, "quality") if quality else ""
    pictures += _pictures([one for one in numbered if one[1].latency_ms], "latency_ms", beside=quality)
    items = "".join(f"<li><b>{escape(disarmed(point.name))}</b>: {escape(_told(point))}</li>" for point in drawn)
    key = "filled: on the front (the dashed line); hollow: beaten, but intervals overlap; cross: surely beaten"
    return f'<div class="chart trade"><p class="legend"><span>{key}</span></p>{pictures}<ol>{items}</ol></div>'


def _pictures(numbered: Sequence[tuple[int, TradePoint]], upward: str, *, beside: bool = False) -> str:
    """For wide and narrow screens. `beside`: it stands below another one, and is smaller."""
    if not numbered:
        return ""
    height, what = (_SMALL if beside else _HEIGHT), ("quality" if upward == "quality" else "latency")
    return "".join(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="Cost against {what} of each way">'
        f"{_picture(numbered, upward, width, height, front=not beside)}</svg>"
        for kind, width in (("wide", 920), ("narrow", 390))
    )


def _picture(numbered: Sequence[tuple[int, TradePoint]], upward: str, width: int, height: int, *, front: bool) -> str:
    """`front`: with the line of the front, which is one of all three counts, so that it is drawn once."""
    points = [point for _, point in numbered]
    costs = [measure for point in points if (measure := point.cost_usd) is not None]
    heights = [measure for point in points if (measure := getattr(point, upward)) is not None]
    across, up = _Scale(costs, _LEFT, width - _RIGHT), _Scale(heights, height - _BOTTOM, _TOP)
    parts = []
    for tick in up.ticks:
        y = up.at(tick)
        label = rate(tick) if upward == "quality" else f"{milliseconds(tick)} ms"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    every = 1 if width > 500 else 2
    for tick in across.ticks[::every]:
        x = across.at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - _BOTTOM + 16}" text-anchor="middle">{_dollars(tick)}</text>')
    parts.append(f'<text x="{width - _RIGHT}" y="{height - 6}" text-anchor="end">cost per request</text>')
    parts.append(f'<text x="4" y="{_TOP - 13}">{"good answers" if upward == "quality" else "median latency"}</text>')
    edge = sorted(
        (across.at(point.cost_usd.value), up.at(getattr(point, upward).value))
        for point in points
        if point.verdict == "front" and point.source == "traffic" and point.cost_usd is not None
    )
    if front and len(edge) > 1:
        parts.append(f'<polyline class="edge" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in edge)}"/>')
    for number, point in numbered:
        assert point.cost_usd is not None
        parts.append(_mark(number, point, across, up, point.cost_usd, getattr(point, upward)))
    return "".join(parts)


def _mark(number: int, point: TradePoint, across: _Scale, up: _Scale, cost: Measure, height: Measure) -> str:
    x, y = across.at(cost.value), up.at(height.value)
    left, right, low, high = across.at(cost.low), across.at(cost.high), up.at(height.low), up.at(height.high)
    bars = (
        f'<line class="whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
    )
    mark = {
        "front": f'<circle class="on" cx="{x:.1f}" cy="{y:.1f}" r="6"/>',
        "dominated": f'<circle class="off" cx="{x:.1f}" cy="{y:.1f}" r="5"/>',
        "surely dominated": f'<path class="cross" d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"/>',
    }.get(point.verdict, f'<rect class="off" x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/>')
    label = f'<text class="number" x="{x + 9:.1f}" y="{y - 8:.1f}">{number}</text>'
    return f"<g><title>{escape(disarmed(point.name))}: {escape(_told(point))}</title>{bars}{mark}{label}</g>"


class _Scale:
    """From values to places; ends that aren't known, or lie far out, stop at the picture's edge."""

    def __init__(self, measures: Sequence[Measure], first: float, last: float) -> None:
        values = [measure.value for measure in measures]
        reach = max(values) - min(values) or abs(max(values)) or 1.0
        ends = [end for measure in measures for end in measure[1:] if math.isfinite(end)]
        low = min([*values, *(end for end in ends if end >= min(values) - reach)])
        high = max([*values, *(end for end in ends if end <= max(values) + reach)])
        if high <= low:
            low, high = low - reach / 2, high + reach / 2
        self.ticks = ticks(max(0.0, low) if min(values) >= 0 else low, high)
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return self._first + (self._last - self._first) * (min(max(value, low), high) - low) / (high - low)


def _told(point: TradePoint) -> str:
    cost = "?" if point.cost_usd is None else money(round(point.cost_usd.value * _PICO))
    latency = "?" if point.latency_ms is None else f"{milliseconds(point.latency_ms.value)} ms"
    quality = "unknown quality" if point.quality is None else f"{rate(point.quality.value)} good"
    verdict = _WORDS.get(point.verdict, f"{point.verdict} by {disarmed(point.beaten_by)}")
    return f"{cost} a request, {latency}, {quality}; {verdict}"


def _dollars(usd: float) -> str:
    return f"${Decimal(repr(round(usd, 12))).normalize():f}"
