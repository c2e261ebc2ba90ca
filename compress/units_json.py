"""JSON text in units: the elements of its long arrays; what stands around them is fixed. Pure.

The text is only cut, never written anew, so numbers keep their spelling. The first and the last element of an array are
fixed, so that the commas between those that stay are right and what is left is JSON.
"""

from __future__ import annotations

import json
import re
from json import JSONDecoder
from typing import Any

from farthing.compress.units import Scalar, Unit, Units

__all__ = ["json_lines_units", "json_units"]

_FEWEST_ROWS = 6
_DEEPEST = 12
_MOST_FIELDS = 64  # of a row; what lies beyond isn't looked at for outliers
_SPACE = re.compile(r"[ \t\r\n]*+")
_DECODER = JSONDecoder(parse_constant=str)


def json_units(text: str) -> Units | None:
    """None: not one JSON object or array, or none of its arrays is long enough to choose from."""
    start = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches the empty string
    if text[start : start + 1] not in ("{", "["):
        return None
    try:
        value, end = _DECODER.raw_decode(text, start)
        if _SPACE.match(text, end).end() != len(text):  # type: ignore[union-attr]
            return None
        arrays: list[list[tuple[int, int, Any]]] = []
        _find(text, start, value, 0, arrays)
    except (ValueError, RecursionError):
        return None
    return _cut(text, arrays) if arrays else None


def json_lines_units(text: str) -> Units | None:
    """The lines of a text in which each is a JSON object; None where it isn't such a text."""
    lines = text.splitlines(keepends=True)
    if len(lines) < _FEWEST_ROWS or not text.startswith("{"):
        return None
    units = []
    for i, line in enumerate(lines):
        try:
            value = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            return None
        if value is not None and not isinstance(value, dict):
            return None
        units.append(Unit(line, "fixed" if i in (0, len(lines) - 1) else "item", fields=flat(value)))
    return Units("rows", "rows", tuple(units))


def flat(value: Any) -> dict[str, Scalar]:
    """The scalars in a value by dotted path; elements of lists share one path with their number of elements beside."""
    found: dict[str, Scalar] = {}
    stack = [("", value, 0)]
    while stack and len(found) < _MOST_FIELDS:
        path, node, depth = stack.pop()
        if isinstance(node, dict) and depth < _DEEPEST:
            stack.extend((f"{path}.{key}", inner, depth + 1) for key, inner in reversed(node.items()))
        elif isinstance(node, list) and depth < _DEEPEST:
            found[f"{path}#"] = len(node)
            stack.extend((f"{path}[{i}]", inner, depth + 1) for i, inner in reversed(list(enumerate(node[:4]))))
        elif node is None or isinstance(node, (str, int, float, bool)):
            found[path] = node
    return found


def _find(text: str, at: int, value: Any, depth: int, arrays: list[list[tuple[int, int, Any]]]) -> None:
    """Adds the long arrays of the value that begins at `at`, in order, each with its elements' spans and values."""
    if depth > _DEEPEST or not isinstance(value, (dict, list)) or not value:
        return
    rows: list[tuple[int, int, Any]] = []
    at = _past(text, at + 1)
    while text[at] not in "]}":
        if isinstance(value, dict):
            _, at = _DECODER.raw_decode(text, at)
            at = _past(text, _past(text, at) + 1)
        inner, end = _DECODER.raw_decode(text, at)
        rows.append((at, end, inner))
        at = _past(text, end)
        if text[at] == ",":
            at = _past(text, at + 1)
    if isinstance(value, list) and len(rows) >= _FEWEST_ROWS:
        arrays.append(rows)
    else:
        for start, _, inner in rows:
            _find(text, start, inner, depth + 1, arrays)


def _cut(text: str, arrays: list[list[tuple[int, int, Any]]]) -> Units:
    units: list[Unit] = []
    at = 0
    for number, rows in enumerate(arrays):
        units.append(Unit(text[at : rows[0][0]], "fixed", number))
        last = len(rows) - 1
        for i, (start, end, value) in enumerate(rows):
            until = rows[i + 1][0] if i < last else end
            units.append(Unit(text[start:until], "fixed" if i in (0, last) else "item", number, fields=flat(value)))
        at = rows[last][1]
    units.append(Unit(text[at:], "fixed", len(arrays) - 1))
    return Units("rows", "rows", tuple(unit for unit in units if unit.text))


def _past(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]
