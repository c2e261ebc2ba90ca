"""The JSON in a text: the whole of it, one object a line, or a block within; and what equality of JSON means. Pure.

Rules of this file:
1. JSON that readers may take differently isn't found: duplicate keys, NaN, lone surrogates, a byte order mark, control
   characters in strings, more than 200 levels.
2. Equal: the same members in the same order, numbers as they were spelled, strings the same characters.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import orjson

from farthing.proxy.jsontext import minify

__all__ = ["JsonPart", "json_part", "same_json"]

_FEWEST_LINES = 3


class JsonPart(NamedTuple):
    """JSON between what comes before and after it. `value`: decoded, with numbers that a float would respell as
    `orjson.Fragment`. `compact`: without white space between tokens. `lines`: whether it stood as one object a line.
    """

    before: str
    value: Any
    compact: str
    lines: bool
    after: str


def json_part(text: str) -> JsonPart | None:
    """The JSON in a text: the whole of it, one object a line, or a block within; None: none that is sure."""
    bare = text.strip(" \t\r\n")
    if bare[:1] in ("[", "{") and bare[-1:] in ("]", "}"):
        whole = _value(bare)
        if whole is not None:
            return JsonPart("", *whole, False, "")
        return _lines(bare)
    span = _block(text)
    if span is None:
        return None
    inner = _value(text[span[0] : span[1]])
    return None if inner is None else JsonPart(text[: span[0]], *inner, False, text[span[1] :])


def _block(text: str) -> tuple[int, int] | None:
    """From the first bracket that opens a line, or follows a colon, to the last one that ends a line."""
    starts = [
        at + len(before) for before in ("\n", ": ") for bracket in "[{" if (at := text.find(before + bracket)) >= 0
    ]
    ends = [at + 1 for bracket in "]}" if (at := text.rfind(bracket + "\n")) >= 0]
    if text[-1:] in ("]", "}"):
        ends.append(len(text))
    start, end = min(starts, default=0), max(ends, default=0)
    return (start, end) if 0 < start < end else None


def _lines(text: str) -> JsonPart | None:
    """JSON lines, as the array of their objects."""
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) < _FEWEST_LINES or not all(line[:1] == "{" for line in lines):
        return None
    values, compacts = [], []
    for line in lines:
        one = _value(line)
        if one is None:
            return None
        values.append(one[0])
        compacts.append(one[1])
    return JsonPart("", values, f"[{','.join(compacts)}]", True, "")


def _value(text: str) -> tuple[Any, str] | None:
    """The value, with numbers whose spelling would be lost as fragments of JSON, and the compact text."""
    try:
        raw = text.encode()
        value = orjson.loads(raw)
        plain = orjson.dumps(value)
    except (ValueError, TypeError):
        plain, value = b"", None
    compact = text if plain and plain == raw else minify(text)
    if compact is None:
        return None
    if plain and plain == compact.encode():
        return value, compact
    try:
        return json.loads(compact, parse_int=_number, parse_float=_number), compact
    except (ValueError, RecursionError):
        return None


def _number(spelling: str) -> orjson.Fragment:
    return orjson.Fragment(spelling)


def same_json(one: str, other: str) -> bool:
    """Equality by value, order of members and spelling of numbers."""
    try:
        return bool(_spelled(one) == _spelled(other))
    except (ValueError, RecursionError):
        return False


def _spelled(text: str) -> Any:
    return json.loads(text, object_pairs_hook=tuple, parse_int=_tagged, parse_float=_tagged)


def _tagged(spelling: str) -> frozenset[str]:
    return frozenset((spelling,))  # equal to nothing else that JSON decodes to
