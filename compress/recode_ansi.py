"""Terminal output as plain text: what the screen shows in the end, drawn tables as tight ones. Pure.

What 'equal' means here: after both texts a terminal shows the same lines (see `screen`: without blanks at their ends,
links with their targets), except that a drawn table is compared by its cells. Its text is `a|b|c` for each row, with
`-|-|-` where a rule stands after the first row, or between rows of several lines. `restores` draws the original on a
terminal of its own and reads the cells of the short text back.

A table is drawn where lines that stand together all begin and end with box drawing (or with + and |), as many cells in
each row. Cells that hold a bar, and boxes with words in their rules, are left as they are drawn.

Linear; sequences that the model doesn't know leave the whole text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from farthing.compress.log_form import HEADER
from farthing.compress.screen import shown

__all__ = ["AnsiRule"]

_MOST_LEFT = 0.98  # of the characters, where there are no escape sequences: a few blanks aren't worth a change
_BARS = frozenset("│┃┆┇┊┋╎╏║")
_BAR = re.compile("[│┃┆┇┊┋╎╏║]")
_EDGES = frozenset(map(chr, range(0x2500, 0x2580))) | frozenset("+|")  # the block Box Drawing, and its ASCII stand-ins
_RULED = _EDGES - _BARS - {"|"} | frozenset("-=: ")
_TOPS, _BOTTOMS = frozenset("┌┍┎┏╒╓╔╭"), frozenset("└┕┖┗╘╙╚╰")
_TIGHT_RULE = re.compile(r"-(?:\|-)*")

# A row of cells, or None for a rule.
_Row = tuple[str, ...] | None


class AnsiRule:
    """Escape sequences, redrawn lines, padding at line ends, drawn tables."""

    name = "ansi"
    loss = "styles, what was overwritten on the screen, blanks at line ends, borders and padding of drawn tables"

    def encode(self, text: str) -> str | None:
        """The text that a terminal shows in the end; None where that can't be told, or is about the text itself."""
        lines = shown(text) if not text.startswith(HEADER) else None  # in a log's short form blanks have a meaning
        if lines is None:
            return None
        short = "\n".join(_tight(lines))
        return short if len(short) <= _MOST_LEFT * len(text) or "\x1b" in text else None

    def restores(self, text: str, short: str) -> bool:
        """Whether a terminal shows the same after both, drawn tables compared by their cells."""
        lines = shown(text)
        return lines is not None and "\x1b" not in short and _same(lines, short.split("\n"))


def _tight(lines: Sequence[str]) -> Iterator[str]:
    """The lines, with drawn tables in tight form."""
    for start, end in _blocks(lines):
        rows = _table(lines[start:end])
        if rows is None:
            yield from lines[start:end]
            continue
        wide = max(len(row) for row in rows if row is not None)
        rule = "|".join("-" * wide)
        keep = _rules_kept(rows)
        for i, row in enumerate(rows):
            if row is not None:
                yield "|".join(row)
            elif i in keep:
                yield rule


def _same(lines: Sequence[str], short: Sequence[str]) -> bool:
    """Whether the short lines hold every shown line, and of drawn tables every row's cells, in this order."""
    at = 0
    for start, end in _blocks(lines):
        rows = _table(lines[start:end])
        if rows is None:
            if list(short[at : at + end - start]) != list(lines[start:end]):
                return False
            at += end - start
            continue
        for row in rows:
            if row is None:
                continue
            while at < len(short) and _TIGHT_RULE.fullmatch(short[at]) and tuple(short[at].split("|")) != row:
                at += 1
            if at == len(short) or tuple(short[at].split("|")) != row:
                return False
            at += 1
    return at == len(short)


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The lines in runs: those that may be one drawn table, and those in between."""
    start = 0
    kinds = [_drawn(line) for line in lines]
    for at in range(1, len(lines) + 1):
        cut = at == len(lines) or kinds[at] != kinds[start]
        if cut or (kinds[at] and (lines[at].strip()[0] in _TOPS or lines[at - 1].strip()[0] in _BOTTOMS)):
            yield start, at
            start = at


def _drawn(line: str) -> bool:
    bare = line.strip()
    return len(bare) > 1 and bare[0] in _EDGES and bare[-1] in _EDGES


def _table(lines: Sequence[str]) -> list[_Row] | None:
    """The rows of a drawn table; None where the lines aren't one."""
    if len(lines) < 3 or not _drawn(lines[0]):
        return None
    rows = [_row(line.strip()) for line in lines]
    wide = {len(row) for row in rows if row is not None}
    ruled = rows[0] is None and rows[-1] is None
    return rows if ruled and len(wide) == 1 and all(map(_plain, rows)) else None


def _row(line: str) -> _Row:
    """The row's cells; () for what is neither a row nor a rule."""
    first, inside = line[0], line[1:-1]
    if first != "|" and first not in _BARS:
        return None if _RULED.issuperset(inside) else ()
    cells = inside.split("|") if first == "|" else _BAR.split(inside)
    if len(cells) == 1:  # a panel, not a table: what stands further in does so for a reason
        return (cells[0].removeprefix(" ").rstrip(),)
    return tuple(cell.strip() for cell in cells)


def _plain(row: _Row) -> bool:
    return row is None or (len(row) > 0 and not any("|" in cell or _BARS.intersection(cell) for cell in row))


def _rules_kept(rows: Sequence[_Row]) -> set[int]:
    """Which rules tell the reader something: the one after the first row, and all where rows have several lines."""
    inner = [i for i, row in enumerate(rows) if row is None and 0 < i < len(rows) - 1]
    groups = [b - a - 1 for a, b in zip([0, *inner], [*inner, len(rows) - 1], strict=True)]
    if len(groups) > 2 and max(groups[1:]) > 1:
        return set(inner)
    return set(inner[:1]) if groups[0] == 1 else set()
