"""JSON text in units: the elements of its long arrays; what stands around them is fixed. Pure.

The text is only cut, never written anew, so numbers keep their spelling. The first element of an array is fixed, so
that the commas before those that stay are right and what is left is JSON; so is the last, unless the elements are
documents: what a search found, the best first.
"""

from __future__ import annotations

import json
import re
from json import JSONDecoder
from typing import Any

from farthing.compress.units import Scalar, Unit, Units

__all__ = ["json_lines_units", "json_units"]

_FEWEST_ROWS, _FEWEST_DOCUMENTS = 6, 3
_LONG_STRING, _DOCUMENT_SHARE = 150, 0.5  # characters; of an array's, in such strings: then they are documents
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
    fewest = _FEWEST_DOCUMENTS if _are_documents(rows) else _FEWEST_ROWS
    if isinstance(value, list) and len(rows) >= fewest:
        arrays.append(rows)
    else:
        for start, _, inner in rows:
            _find(text, start, inner, depth + 1, arrays)


def _cut(text: str, arrays: list[list[tuple[int, int, Any]]]) -> Units:
    documents = all(map(_are_documents, arrays))
    units: list[Unit] = []
    at = passage = 0
    for rows in arrays:
        units.append(Unit(text[at : rows[0][0]], "fixed", passage))
        at = rows[0][0]
        for i, (_, end, value) in enumerate(rows):
            ends = i == 0 or (i == len(rows) - 1 and not documents)
            units.append(Unit(text[at:end], "fixed" if ends else "item", passage, fields=flat(value)))
            at = end
            passage += documents
        passage += not documents
    units.append(Unit(text[at:], "fixed", passage))
    kept = tuple(unit for unit in units if unit.text)
    return Units("documents", "documents", kept) if documents else Units("rows", "rows", kept)


def _are_documents(rows: list[tuple[int, int, Any]]) -> bool:
    """Whether the elements are language rather than records."""
    values = [value.values() if isinstance(value, dict) else (value,) for _, _, value in rows]
    long = sum(len(one) for row in values for one in row if isinstance(one, str) and len(one) >= _LONG_STRING)
    return long > _DOCUMENT_SHARE * (rows[-1][1] - rows[0][0])


def _past(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]
