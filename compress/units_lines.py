"""Tables and logs in units, a line each. Pure.

A table is Markdown, separated values, or columns set apart by two spaces or more; its head and rule lines are fixed. In
a log the lines of a stack trace need the line that names the error, and that line needs the head of its trace.
"""

from __future__ import annotations

import csv
import re

from farthing.compress.units import Scalar, Unit, Units
from farthing.proxy.lexicon import STOP

__all__ = ["log_units", "table_units"]

_FEWEST_ROWS = 6
_MOST_FIELDS = 64
_AGREE = 0.9  # of the rows have the head's number of cells
_GAP = re.compile(r"[ ]{2,}+")
_RULE = re.compile(r"[-=+|:\s]++\Z")
_NUMBER = re.compile(r"[-+]?\d{1,40}+(?:\.\d{1,40}+)?+(?:[eE][-+]?\d{1,3}+)?+\Z")

_STAMP = re.compile(
    r"[\[(<]?(?:\d{4}[-/]\d\d[-/]\d\d|\d\d:\d\d:\d\d|[A-Z][a-z]{2}\s{1,2}\d{1,2}\s\d\d:|\d{10,13}\b|\d\d/[A-Z][a-z]{2}/)"
    r"|[\[(<]?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)\b"
)
_TRACE_HEAD = re.compile(
    r"Traceback \(most recent|Exception in thread|goroutine \d|Caused by:|panic:|Stack trace", re.I
)
_FRAME = re.compile(r"\s+\S|at \S|\.\.\. \d+ more|File \"|[\w$.]+\(\w+\.(?:go|java|py|js|ts|rb|cs):\d+\)")
_NAMED_ERROR = re.compile(r"[\w.]{0,120}(?:Error|Exception|Exit|Interrupt|Warning)\b(?::|$)|Caused by:|panic:", re.I)
_LONG_LINE = 400  # characters; a log's lines are shorter on average
_FEWEST_LINES, _FEWEST_UNSTAMPED = 8, 20
_SAMPLE, _SMALL_WORDS = 200, 0.2  # lines looked at; share of stop words, which is .4 to .5 in English prose


def table_units(text: str) -> Units | None:
    """None: most of the text isn't one table."""
    lines = text.splitlines(keepends=True)
    head, cells = _longest_table(lines)
    if len(cells) < _FEWEST_ROWS + 1 or sum(map(len, lines[head : head + len(cells)])) < 0.6 * len(text):
        return None
    names = [name.strip() for name in cells[0]]
    units = [Unit(line, "fixed") for line in lines[:head]]
    units.append(Unit(lines[head], "fixed"))
    last = head + len(cells) - 1
    for at, row in enumerate(cells[1:], head + 1):
        if _RULE.match(lines[at]):
            units.append(Unit(lines[at], "fixed"))
            continue
        role = "fixed" if at == last or at == head + 1 else "item"
        fields = {name: _scalar(cell) for name, cell in list(zip(names, row, strict=False))[:_MOST_FIELDS]}
        units.append(Unit(lines[at], "fixed" if role == "fixed" else "item", needs=(head,), fields=fields))
    units.extend(Unit(line, "fixed") for line in lines[last + 1 :])
    return Units("table", "rows", tuple(units))


def log_units(text: str) -> Units | None:
    """None: neither a log nor the like: too few lines, or lines as long as paragraphs."""
    lines = text.splitlines(keepends=True)
    full = [line for line in lines if line.strip()]
    if len(full) < _FEWEST_LINES or sum(map(len, full)) > _LONG_LINE * len(full):
        return None
    stamped = sum(1 for line in full if _STAMP.match(line))
    if stamped < 0.3 * len(full) and (len(full) < _FEWEST_UNSTAMPED or _reads_as_prose(full, len(lines))):
        return None
    units: list[Unit] = []
    start, trace = 0, False
    for i, line in enumerate([*lines, ""]):
        goes_on = (
            i < len(lines)
            and i > start
            and not _STAMP.match(line)
            and (_FRAME.match(line) or (trace and line.strip() != "") or not line.strip())
        )
        if goes_on:
            continue
        if i > start:
            units.extend(_event(lines[start:i], start))
        start, trace = i, bool(_TRACE_HEAD.search(line)) and not _STAMP.match(line)
    return Units("lines", "lines", tuple(units))


def _event(lines: list[str], first: int) -> list[Unit]:
    """One event: a line, or a line with what hangs from it. In a trace, the error is the last line that names one."""
    if len(lines) == 1:
        return [Unit(lines[0], "item", first)]
    named = [i for i, line in enumerate(lines) if _NAMED_ERROR.match(line.lstrip())]
    error = named[-1] if named else 0
    units = []
    for i, line in enumerate(lines):
        needs = tuple(sorted({first, first + error} - {first + i}))
        # The innermost frame stands before the error in Python, after it elsewhere; two lines, since one may be source.
        wants: tuple[int, ...] = ()
        if i == error:
            near = range(i - 3, i) if i else range(1, 3)
            wants = tuple(first + j for j in near if 0 < j < len(lines))
        units.append(Unit(line, "item", first, needs, wants))
    return units


def _reads_as_prose(full: list[str], lines: int) -> bool:
    """Whether the lines end as sentences do, stand in paragraphs, or have as many small words as language has."""
    if lines - len(full) > 0.3 * lines or sum(1 for line in full if line.rstrip()[-1] in ".!?。") > 0.3 * len(full):
        return True
    words = [word for line in full[:_SAMPLE] for word in line.casefold().split()]
    return sum(word in STOP for word in words) > _SMALL_WORDS * len(words)


def _longest_table(lines: list[str]) -> tuple[int, list[list[str]]]:
    """Where the longest run of rows of one table begins, and its cells."""
    best: tuple[int, list[list[str]]] = (0, [])
    at = 0
    while at < len(lines):
        end = at
        while end < len(lines) and lines[end].strip():
            end += 1
        if end - at > max(_FEWEST_ROWS, len(best[1])):
            cells = _cells(lines[at:end])
            if cells:
                best = (at, cells)
        at = max(end, at + 1)
    return best


def _cells(lines: list[str]) -> list[list[str]] | None:
    """The cells of a table's lines, the head first; None where they aren't a table."""
    bare = [line.strip() for line in lines]
    if all(line.startswith("|") for line in bare):
        return [line.strip("|").split("|") for line in bare]
    for mark in ("\t", ",", ";", "|"):
        width = bare[0].count(mark) + 1
        if width < 2 or sum(line.count(mark) + 1 >= width for line in bare) < _AGREE * len(bare):
            continue
        try:
            rows = list(csv.reader(lines, delimiter=mark, strict=True))
        except csv.Error:
            return None
        if len(rows) == len(lines) and sum(len(row) == width for row in rows) >= _AGREE * len(rows):
            return None if any(len(cell) > 300 for cell in rows[0]) else rows
    rows = [_GAP.split(line) for line in bare]
    width = len(rows[0])
    if width > 1 and sum(len(row) == width for row in rows) >= _AGREE * len(rows):
        return rows
    return None


def _scalar(cell: str) -> Scalar:
    bare = cell.strip()
    return float(bare) if _NUMBER.match(bare) else bare
