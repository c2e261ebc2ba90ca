"""Do two JSON texts, or two lists of tool calls, mean the same? Pure.

Equal means equal as values: key order and spelling of numbers don't matter (1 is 1.0), the order of a list does, no
number is rounded, true is not 1. Source: RFC 8259, section 6 (numbers), section 4 (objects are unordered).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from farthing.policies.answer import Call, exact_json
from farthing.policies.opinion import Opinion, different, same, unsure

__all__ = ["compare_calls", "compare_json", "difference"]

# Of a stripped text, with a greedy middle: blanks that were tried at each place for its end took quadratic time.
_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*+\n(.*)```", re.S)
_PROSE_WORDS = 8
_NO_JSON = object()


def compare_json(a: str, b: str) -> Opinion | None:
    """Two texts that are a JSON object or list each, fenced or not; None where neither is."""
    one, other = _value(a), _value(b)
    if one is _NO_JSON and other is _NO_JSON:
        return None
    if one is _NO_JSON or other is _NO_JSON:
        # Broken JSON, or JSON with words around it, may still say the same: what reads it decides.
        return unsure("json", "only one is JSON")
    found = difference(one, other)
    if not found:
        return same("json", "equal values")
    return unsure("json", found) if found == "prose inside differs" else different("json", found)


def compare_calls(a: tuple[Call, ...], b: tuple[Call, ...]) -> Opinion:
    """Two lists of calls: the same tools, in the same order, with the same arguments."""
    if sorted(call.name for call in a) != sorted(call.name for call in b):
        return different("calls", "other tools are called")
    if [call.name for call in a] != [call.name for call in b]:
        return unsure("calls", "the same tools in another order")
    doubt = ""
    for one, other in zip(a, b, strict=True):
        mine, theirs = _arguments(one), _arguments(other)
        if mine is _NO_JSON or theirs is _NO_JSON:
            if one.arguments != other.arguments:
                doubt = doubt or "arguments are not JSON and differ"
        elif found := difference(mine, theirs):
            if found != "prose inside differs":
                return different("calls", f"arguments: {found}")
            doubt = doubt or found
    return unsure("calls", doubt) if doubt else same("calls", "equal calls")


def difference(a: Any, b: Any) -> str:
    """What differs first in two JSON values, '' for equal ones. A difference in prose counts only where nothing else
    differs: 'prose inside differs' means that all the rest is equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return "keys differ"
        return _first(difference(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return "lengths differ"
        return _first(difference(x, y) for x, y in zip(a, b, strict=True))
    if _is_number(a) and _is_number(b):
        return "" if a == b else "numbers differ"
    if type(a) is not type(b):
        return "types differ"
    if a == b:
        return ""
    if isinstance(a, str) and min(len(a.split()), len(b.split())) >= _PROSE_WORDS:
        return "prose inside differs"
    return "values differ"


def _first(found: Any) -> str:
    prose = ""
    for reason in found:
        if reason and reason != "prose inside differs":
            return str(reason)
        prose = prose or reason
    return prose


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _value(text: str) -> Any:
    fenced = _FENCE.fullmatch(text.strip())
    inner = (fenced[1] if fenced else text).strip()
    return _parsed(inner) if inner[:1] in ("{", "[") else _NO_JSON


def _arguments(call: Call) -> Any:
    if not isinstance(call.arguments, str):
        return call.arguments
    return _parsed(call.arguments) if call.arguments.strip() else {}


def _parsed(text: str) -> Any:
    try:
        return exact_json(text)
    except (ValueError, RecursionError):
        return _NO_JSON
