"""Which rows or lines stand out from the others: rare values, numbers far off, lines of a rare make. Pure.

A number is far off by the modified z-score, 0.6745 (x - median) / MAD, beyond 6. Source: Iglewicz & Hoaglin, "How to
Detect and Handle Outliers", 1993, which has 3.5; 6 spares skewed columns, which are common among durations and sizes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from farthing.compress.units import Scalar

__all__ = ["Extremes", "error_lines", "extremes", "make_of", "odd_lines", "odd_rows"]

_FAR = 6.0
_MOST_SLOTS, _NUMERIC_SHARE = 24, 0.9  # numbers of a line looked at; of a make's lines, have a number in that place
_LARGEST = 1e150  # larger numbers count as this, so that sums and differences stay finite
_RARE_SHARE = 0.05  # a value that fewer rows hold is rare, where the column has few values
_FEW_VALUES_SHARE = 0.25  # of the rows: columns with more values tell rows apart, they don't class them
_ERROR = re.compile(
    r"\b(?:FATAL|CRITICAL|CRIT|EMERG|ALERT|SEVERE|ERROR|ERR|PANIC|FAILED|FAILURE|FAIL)\b|\b[A-Z]\w*(?:Error|Exception)\b"
    r"|\b(?:panic|segfault|core dumped|traceback|stack trace|assertion failed|out of memory|killed|fatal)\b"
    r"|\b(?:error|failed)(?=[:\s])|(?:^|\s)E\d{4}\s|\blevel=(?:error|fatal|critical)|\"level\": ?\"(?:error|fatal)"
)
_GRAVE = re.compile(r"\b(?:FATAL|CRITICAL|CRIT|EMERG|ALERT|SEVERE|PANIC|panic|fatal|segfault|out of memory)\b")
# Within a run of letters it would be looked for a digit from each of them, in quadratic time: none finds what the first
# didn't.
_VARIABLE = re.compile(r"0x[0-9a-fA-F]++|(?<![A-Fa-f])(?=[A-Fa-f]*+\d)[0-9a-fA-F]{6,}+|\d++(?:\.\d++)*+")
_DATED = re.compile(r"\d{4}[-/]\d\d[-/]\d\d|\d\d:\d\d")
_PLAIN = re.compile(r"\d{1,15}+(?:\.\d{1,9}+)?+\Z")
_QUOTED = re.compile(r"\"[^\"]{0,200}\"|'[^']{0,200}'")


def error_lines(lines: Sequence[str]) -> list[tuple[int, int]]:
    """(line, gravity 1 or 2) of those that tell of an error."""
    return [(i, 2 if _GRAVE.search(line) else 1) for i, line in enumerate(lines) if _ERROR.search(line)]


def make_of(line: str) -> str:
    """The line with what varies blanked: numbers, hexadecimal ids, quotations."""
    return _VARIABLE.sub("0", _unquoted(line))


def odd_lines(makes: Sequence[str], lines: Sequence[str]) -> list[tuple[int, float]]:
    """(line, oddness above 0) of lines of a rare make, and of those with a number far from others of their make."""
    counts = Counter(makes)
    rare = max(1.0, 0.01 * len(lines))
    found = {i: 3.0 / counts[make] for i, make in enumerate(makes) if counts[make] <= rare}
    groups: dict[str, list[int]] = {}
    for i, make in enumerate(makes):
        if counts[make] >= 8:
            groups.setdefault(make, []).append(i)
    for members in groups.values():
        varying = [_VARIABLE.findall(_unquoted(lines[i])) for i in members]
        for slot in range(min(_MOST_SLOTS, *map(len, varying))):
            numbers = [
                (i, float(row[slot])) for i, row in zip(members, varying, strict=True) if _PLAIN.match(row[slot])
            ]
            if len(numbers) > _NUMERIC_SHARE * len(members):
                for place, distance in _far([number for _, number in numbers]):
                    i = numbers[place][0]
                    found[i] = max(found.get(i, 0.0), 1.0 + min(distance / 100, 1.0))
    return sorted(found.items())


def _unquoted(line: str) -> str:
    return _QUOTED.sub("'", line) if '"' in line or "'" in line else line


def odd_rows(rows: Sequence[Mapping[str, Scalar]]) -> list[tuple[int, float]]:
    """(row, oddness above 0) of rows with a rare value, a number far off, or fields that the others don't have."""
    found: dict[int, float] = {}

    def note(i: int, oddness: float) -> None:
        found[i] = found.get(i, 0.0) + oddness

    n = len(rows)
    columns = _columns(rows)
    for cells in columns.values():
        if len(cells) <= max(1, _RARE_SHARE * n):
            for i, _ in cells:
                note(i, 1.0)
            continue
        classes = Counter((type(value).__name__, value) for _, value in cells)
        if 1 < len(classes) <= max(2, min(20, _FEW_VALUES_SHARE * len(cells))):
            for i, value in cells:
                share = classes[(type(value).__name__, value)] / len(cells)
                if share <= _RARE_SHARE:
                    note(i, 2.0 - share)
        numbers = [(i, _finite(value)) for i, value in cells if _is_number(value)]
        if len(numbers) >= 8:
            for place, distance in _far([value for _, value in numbers]):
                note(numbers[place][0], 1.0 + min(distance / 100, 1.0))
    return sorted(found.items())


class Extremes(NamedTuple):
    """Of one column: its name, whether it holds dates, and the rows with the least and the greatest of it."""

    column: str
    dated: bool
    rows: tuple[int, int]


def extremes(rows: Sequence[Mapping[str, Scalar]]) -> list[Extremes]:
    """For each column of numbers or dates."""
    found = []
    for name, cells in _columns(rows).items():
        numbers = [(_finite(value), i) for i, value in cells if _is_number(value)]
        dates = [(value, i) for i, value in cells if isinstance(value, str) and _DATED.match(value)]
        if len(numbers) > 0.5 * len(cells):
            found.append(Extremes(name, False, (min(numbers)[1], max(numbers)[1])))
        elif len(dates) > 0.5 * len(cells):
            found.append(Extremes(name, True, (min(dates)[1], max(dates)[1])))
    return found


def _columns(rows: Sequence[Mapping[str, Scalar]]) -> dict[str, list[tuple[int, Scalar]]]:
    columns: dict[str, list[tuple[int, Scalar]]] = {}
    for i, row in enumerate(rows):
        for name, value in row.items():
            columns.setdefault(name, []).append((i, value))
    return columns


def _far(values: Sequence[float]) -> list[tuple[int, float]]:
    """(place, distance) of numbers far from the median. Where half are equal, the mean deviation stands in for MAD."""
    middle = median(values)
    off = [abs(value - middle) for value in values]
    spread = median(off) / 0.6745 or 1.2533 * sum(off) / len(off)
    if not spread or not math.isfinite(spread):
        return []
    return [(i, distance / spread) for i, distance in enumerate(off) if distance > _FAR * spread]


def _is_number(value: Scalar) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _finite(value: Scalar) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # asked for numbers only
    except OverflowError:
        return _LARGEST
    return max(-_LARGEST, min(_LARGEST, number))
