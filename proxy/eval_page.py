"""A comparison as one self-contained HTML page: no script, no link, light and dark. No IO.

Everything that came from traffic goes through `text`.
"""

from __future__ import annotations

from collections.abc import Sequence

from farthing.policies.compare import Comparison, SliceResult
from farthing.proxy.eval_text import SLICE_HEAD, TRAP_HEAD, facts, headline, notes, slice_rows, trap_rows
from farthing.proxy.report_page import STYLE, cells, listed, section, text

__all__ = ["page"]

_SHOWN, _ROW, _WIDTH, _NAMES, _RIGHT = 24, 24, 720, 230, 36
_STYLE = """
svg { width: 100%; min-width: 34rem; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .grid { stroke: var(--line); }
svg .soft { fill: var(--soft); } svg .zero { stroke: var(--soft); } svg .margin { stroke: var(--minus);
stroke-dasharray: 4 4; } svg .bar { stroke: var(--bar); stroke-width: 2; } svg .dot { fill: var(--bar); } svg .worse
.bar { stroke: var(--minus); } svg .worse .dot { fill: var(--minus); } svg .better .bar { stroke: var(--good); } svg
.better .dot { fill: var(--good); } .verdict { border-left: 6px solid var(--warn); padding-left: .8rem; } .verdict.good
{ border-color: var(--good); } .verdict.bad { border-color: var(--minus); }
"""
_CLASS = {"not worse": "good", "worse": "bad", "inconclusive": "open"}


def page(found: Comparison, title: str) -> bytes:
    """The whole document, UTF-8."""
    parts = [
        f"<p class=when>{text(title)}</p>",
        f'<h1 class="verdict {_CLASS[found.verdict.word]}">{text(headline(found))}</h1>',
        section("Both arms", ("", "baseline", "candidate"), cells(facts(found))),
    ]
    shown = _shown(found)
    parts.append("<section><h2>What the candidate gains or loses, in points of good answers</h2>")
    parts.append(f'<div class="scroll">{_forest(found, shown)}</div></section>')
    parts.append(section("By slice (p-values adjusted for their number)", SLICE_HEAD, cells(slice_rows(found))))
    parts.append(section("Prompts that are hard on purpose", TRAP_HEAD, cells(trap_rows(found))))
    parts.append(listed(notes(found)))
    body = "".join(parts)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
    style = f"<style>{STYLE}{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}{style}</head><body>{body}</body></html>'.encode()


def _shown(found: Comparison) -> list[SliceResult]:
    whole = SliceResult(
        "all cases", "", found.cases, found.baseline, found.candidate, found.verdict.difference, 1.0,
        {"worse": "worse", "not worse": "", "inconclusive": ""}[found.verdict.word],
    )  # fmt: skip
    return [whole, *sorted(found.slices, key=lambda one: (not one.word, one.difference.value))[:_SHOWN]]


def _forest(found: Comparison, rows: Sequence[SliceResult]) -> str:
    """One line for each slice: its difference as a dot, its interval as a bar, the margin dashed."""
    reach = max(
        0.02, found.verdict.margin * 1.3, *(max(abs(one.difference.low), abs(one.difference.high)) for one in rows)
    )
    reach = min(1.0, reach)
    height = _ROW * len(rows) + 46

    def x(value: float) -> float:
        return _NAMES + (_WIDTH - _NAMES - _RIGHT) * (max(-reach, min(reach, value)) + reach) / (2 * reach)

    bottom = height - 30
    marks = []
    for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
        at = x(share * reach)
        kind = "zero" if share == 0 else "grid"
        marks.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="8" y2="{bottom}"/>')
        marks.append(
            f'<text class="soft" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{share * reach:+.1%}</text>'
        )
    at = x(-found.verdict.margin)
    marks.append(f'<line class="margin" x1="{at:.1f}" x2="{at:.1f}" y1="8" y2="{bottom}"/>')
    for number, one in enumerate(rows):
        y = 8 + _ROW * number + _ROW / 2
        name = one.name if not one.value else f"{one.name} = {one.value}"
        shown = name if len(name) <= 34 else f"{name[:33]}…"
        marks.append(
            f'<g class="{one.word or "even"}"><text x="10" y="{y + 4:.1f}">{text(shown)}</text>'
            f'<line class="bar" x1="{x(one.difference.low):.1f}" x2="{x(one.difference.high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="dot" cx="{x(one.difference.value):.1f}" cy="{y}" r="4.5"/></g>'
        )
    label = "Difference of each slice with its interval; the dashed line is the margin."
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(marks)}</svg>'
