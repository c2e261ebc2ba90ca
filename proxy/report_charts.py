"""A report's charts as SVG: no script, colours by class, each drawn for a wide and for a narrow screen. Pure.

Letters don't shrink with a picture that is drawn for the width it has. What a chart shows stands in a table too, or in
the marks' titles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape

from farthing.proxy.figures_time import Stretch
from farthing.proxy.figures_values import CAUSES, Figures
from farthing.proxy.report_text import CAUSE_NAMES, milliseconds, money, named_times

__all__ = ["CHART_STYLE", "latency", "legend", "savings", "spending", "ticks"]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
CHART_STYLE = """
:root { --exact: #0072b2; --semantic: #56b4e9; --compress: #009e73; --route: #e69f00; --prompt-cache: #cc79a7;
  --own: #8a8f98; --spent: #0072b2; --baseline: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --exact: #3f9fe0; --compress: #2fc79b; --baseline: #ff8a3d;
  --spent: #3f9fe0; } }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem .6rem .4rem; }
.chart svg { display: block; width: 100%; height: auto; } .chart svg.narrow { display: none; }
.chart text { fill: var(--soft); font: 12px system-ui, sans-serif; } .chart text.name { fill: var(--ink); }
.chart .grid { stroke: var(--line); } .chart .zero { stroke: var(--soft); }
.exact { fill: var(--exact); } .semantic { fill: var(--semantic); } .compress { fill: var(--compress); }
.route { fill: var(--route); } .prompt-cache { fill: var(--prompt-cache); } .own { fill: var(--own); }
.spent { fill: var(--spent); } .baseline { fill: none; stroke: var(--baseline); stroke-width: 2; }
.reach { stroke: var(--spent); stroke-width: 5; stroke-linecap: round; opacity: .45; }
.tail { stroke: var(--spent); stroke-width: 2; opacity: .45; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 .5rem .4rem; color: var(--soft);
  font-size: .85rem; }
.legend svg { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; vertical-align: -.05rem; }
@media (max-width: 40rem) { .chart svg.wide { display: none; } .chart svg.narrow { display: block; } }
@media print { .chart svg.wide { display: block; } .chart svg.narrow { display: none; } }
"""
_WIDE, _NARROW, _HEIGHT = 920, 390, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 8, 24
_LABELS = {"hour": 92.0, "day": 56.0, "week": 56.0}  # units of width that a label on the time axis wants


def spending(stretches: Sequence[Stretch], unit: str) -> str:
    """What was spent, as bars, against what it would have been without farthing, as a line."""
    if not any(each.sums.spent or each.sums.baseline for each in stretches):
        return ""
    high = max(max(each.sums.spent, each.sums.baseline) for each in stretches)
    low = min(min(each.sums.spent, each.sums.baseline) for each in stretches)

    def draw(width: int) -> str:
        frame = _Frame(stretches, unit, width, low, high)
        bars, line = [], []
        for i, each in enumerate(stretches):
            told = f"{frame.name(i)}: spent {money(each.sums.spent)}, without farthing {money(each.sums.baseline)}"
            bars.append(_titled(told, frame.bar(i, 0, each.sums.spent, "spent"), frame.hover(i)))
            left, right = frame.edges(i)
            line += [f"{left:.1f},{frame.y(each.sums.baseline):.1f}", f"{right:.1f},{frame.y(each.sums.baseline):.1f}"]
        return f'{frame.axes()}{"".join(bars)}<polyline class="baseline" points="{" ".join(line)}"/>'

    key = legend([("spent", "spent"), ("baseline", "without farthing")])
    return _both(f"Spending against the baseline by {unit}", _HEIGHT, draw, key)


def savings(stretches: Sequence[Stretch], unit: str) -> str:
    """What was saved, stacked by cause; losses and farthing's own spending below the line."""
    parts = [
        [*((cause, each.sums.saved.get(cause, 0)) for cause in CAUSES), ("own", -each.sums.overhead)]
        for each in stretches
    ]
    if not any(pico for each in parts for _, pico in each):
        return ""
    high = max(sum(pico for _, pico in each if pico > 0) for each in parts)
    low = min(sum(pico for _, pico in each if pico < 0) for each in parts)
    names = {**CAUSE_NAMES, "own": "farthing's own spending"}

    def draw(width: int) -> str:
        frame = _Frame(stretches, unit, width, low, high)
        drawn = []
        for i, each in enumerate(parts):
            bars, up, down = "", 0, 0
            for cause, pico in each:
                if pico > 0:
                    bars += frame.bar(i, up, up + pico, _class(cause))
                    up += pico
                elif pico < 0:
                    bars += frame.bar(i, down, down + pico, _class(cause))
                    down += pico
            told = [f"{names[cause]} {money(pico)}" for cause, pico in each if pico]
            drawn.append(_titled(f"{frame.name(i)}: {', '.join(told) or 'nothing'}", bars, frame.hover(i)))
        return frame.axes() + "".join(drawn)

    shown = [cause for cause in (*CAUSES, "own") if any(dict(each)[cause] for each in parts)]
    key = legend([(_class(cause), names[cause]) for cause in shown])
    return _both(f"Savings by cause and {unit}", _HEIGHT, draw, key)


def latency(figures: Figures) -> str:
    """The percentiles on a logarithmic scale: a dot at the median, a thick line to p95, a thin one to p99."""
    rows = [(name.strip(), times) for name, times in named_times(figures) if times.p50 is not None]
    values = [value for _, each in rows for value in (each.p50, each.p95, each.p99) if value]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    height = 46 * len(rows) + _BOTTOM + 10

    def draw(width: int) -> str:
        def x(value: float | None) -> float:
            at = math.log10(value) if value else low
            return 16 + (width - 40) * (max(at, low) - low) / (high - low)

        parts = []
        every = math.ceil((high - low + 1) * 80 / width)
        for power in range(low, high + 1, every):
            at = x(10.0**power)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{height - _BOTTOM}"/>')
            place = "start" if power == low else "end" if power == high else "middle"
            parts.append(
                f'<text x="{at:.1f}" y="{height - 6}" text-anchor="{place}">{_plain(Decimal(10) ** power)} ms</text>'
            )
        for i, (name, each) in enumerate(rows):
            y = 46 * i + 34
            numbers = " / ".join(milliseconds(value) for value in (each.p50, each.p95, each.p99))
            parts.append(f'<text class="name" x="16" y="{y - 14}">{escape(name)}</text>')
            parts.append(f'<text x="{width - 10}" y="{y - 14}" text-anchor="end">{numbers} ms</text>')
            for kind, first, last in (("tail", each.p50, each.p99), ("reach", each.p50, each.p95)):
                parts.append(f'<line class="{kind}" x1="{x(first):.1f}" x2="{x(last):.1f}" y1="{y}" y2="{y}"/>')
            parts.append(f'<circle class="spent" cx="{x(each.p50):.1f}" cy="{y}" r="5"/>')
        return "".join(parts)

    told = '<p class="legend"><span>dot: median; thick line: to p95; thin line: to p99</span></p>'
    return _both("Percentiles of latency", height, draw, told)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Which colour is what."""
    shown = (
        f'<span><svg viewBox="0 0 10 10" aria-hidden="true">{_swatch(kind)}</svg>{escape(name)}</span>'
        for kind, name in entries
    )
    return f'<p class="legend">{"".join(shown)}</p>'


def _swatch(kind: str) -> str:
    if kind == "baseline":
        return '<line class="baseline" x1="0" x2="10" y1="5" y2="5"/>'
    return f'<rect class="{kind}" width="10" height="10" rx="2"/>'


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, some five of them. `low` is less than `high`."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.floor(low / step)
    return [step * n for n in range(first, first + math.ceil((high - step * first) / step) + 1)]


class _Frame:
    """The axes of a chart over time, and where things are in it. Amounts: pico-dollars."""

    def __init__(self, stretches: Sequence[Stretch], unit: str, width: int, low: int, high: int) -> None:
        self._stretches, self._unit, self._width = stretches, unit, width
        self._low = min(0.0, float(low))
        marks = ticks(self._low, max(0.0, float(high)))
        # A loss of next to nothing gets the room that it needs, not a whole step.
        self._ticks, self._high = [mark for mark in marks if mark >= self._low], marks[-1]
        self._begin_s, self._end_s = stretches[0].start_s, stretches[-1].end_s

    def y(self, pico: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (pico - self._low) / (self._high - self._low))

    def _x(self, moment_s: float) -> float:
        share = (moment_s - self._begin_s) / (self._end_s - self._begin_s)
        return _LEFT + (self._width - _LEFT - _RIGHT) * share

    def edges(self, i: int) -> tuple[float, float]:
        return self._x(self._stretches[i].start_s), self._x(self._stretches[i].end_s)

    def bar(self, i: int, first: int, last: int, kind: str) -> str:
        left, right = self.edges(i)
        gap = min(2.0, (right - left) / 6)
        top, bottom = sorted((self.y(first), self.y(last)))
        return (
            f'<rect class="{kind}" x="{left + gap:.1f}" y="{top:.1f}" width="{right - left - 2 * gap:.1f}" '
            f'height="{bottom - top:.1f}"/>'
        )

    def hover(self, i: int) -> str:
        """What is pointed at: the whole height, since a small bar is hard to hit."""
        left, right = self.edges(i)
        return (
            f'<rect x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{_HEIGHT - _TOP - _BOTTOM}" '
            'fill="none" pointer-events="all"/>'
        )

    def name(self, i: int) -> str:
        start = datetime.fromtimestamp(self._stretches[i].start_s, UTC)
        if self._unit == "hour":
            return f"{start:%Y-%m-%d %H:%M}"
        return f"{start:%a} {start:%Y-%m-%d}" if self._unit == "day" else f"week of {start:%Y-%m-%d}"

    def axes(self) -> str:
        parts = []
        for tick in self._ticks:
            y, kind = self.y(tick), "zero" if tick == 0 else "grid"
            parts.append(f'<line class="{kind}" x1="{_LEFT}" x2="{self._width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            label = _dollars(tick)
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        room = _LABELS[self._unit]
        last, every = -room, math.ceil(len(self._stretches) * room / (self._width - _LEFT - _RIGHT))
        for i in range(0, len(self._stretches), every):
            left, right = self.edges(i)
            start = datetime.fromtimestamp(self._stretches[i].start_s, UTC)
            shown = f"{start:%d %b %H:%M}" if self._unit == "hour" else f"{start:%d %b}"
            at = min(max((left + right) / 2, _LEFT + room / 4), self._width - room / 2)
            # The first and the last are cut, and may leave no room for a label of their own.
            if at - last >= room:
                parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{shown.lstrip("0")}</text>')
                last = at
        return "".join(parts)


def _class(cause: str) -> str:
    return cause.replace("_", "-")


def _titled(told: str, *shapes: str) -> str:
    return f"<g><title>{escape(told)}</title>{''.join(shapes)}</g>"


def _both(name: str, height: int, draw: Callable[[int], str], above: str) -> str:
    """The chart for both widths; one of them is shown."""
    pictures = (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(name)}">{draw(width)}</svg>'
        for kind, width in (("wide", _WIDE), ("narrow", _NARROW))
    )
    return f'<div class="chart">{above}{"".join(pictures)}</div>'


def _dollars(pico: float) -> str:
    """An axis's amount: no more digits than it has."""
    amount = (Decimal(round(pico)) * Decimal(10) ** -12).normalize()
    return f"{'-' if amount < 0 else ''}${_plain(abs(amount))}"


def _plain(number: Decimal) -> str:
    text = f"{number:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
