"""Hostile but valid JSON texts for property tests: odd numbers, escapes, gaps everywhere, JSON inside strings."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

__all__ = ["json_texts", "spelled"]

_NUMBERS = st.sampled_from(
    [
        "9007199254740993",
        "123456789012345678901234567890",
        "0",
        "-0",
        "-0.0",
        "1",
        "1.0",
        "1.00",
        "1e400",
        "1E+2",
        "1e-7",
        "0.1",
        "0.10000000000000000001",
    ],
)
_GAPS = st.sampled_from(["", "", "", " ", "  ", "\n", "\r\n", "\t", "\r", " \n\t "])
_ESCAPES = st.sampled_from(
    ['\\"', "\\\\", "\\/", "\\b", "\\n", "\\u0000", "\\u00e9", "\\ud83d\\ude00", "\\ud800", "\\udc00", "\\u2028"]
)
_RAW = st.sampled_from(
    [" ", "  ", ": ", ", ", "[ 1 ]", "{ }", "é", "😀", "\u2028", "\ufeff", "\x7f", "a", "'", "//", "```json", "NaN"]
)
_NESTED = st.sampled_from(['{ "a" : [ 1, 2 ] }', '{"a": "b"}\n', '"', "\\", "\x00", "\r\n"]).map(
    lambda text: json.dumps(text)[1:-1]
)
_INNER = st.lists(
    st.one_of(_RAW, _ESCAPES, _NESTED, st.text(max_size=4).map(lambda t: json.dumps(t)[1:-1])), max_size=4
)


def json_texts(top: str = "any") -> st.SearchStrategy[str]:
    """JSON texts; `top`: any, object, or container."""
    values = st.recursive(_scalars(), lambda inner: st.one_of(_arrays(inner), _objects(inner)), max_leaves=8)
    kinds = {"any": values, "object": _objects(values), "container": st.one_of(_objects(values), _arrays(values))}
    return st.builds(lambda a, text, b: a + text + b, _GAPS, kinds[top], _GAPS)


def _strings() -> st.SearchStrategy[str]:
    return _INNER.map(lambda parts: '"' + "".join(parts) + '"')


def _scalars() -> st.SearchStrategy[str]:
    return st.one_of(_NUMBERS, _strings(), st.sampled_from(["true", "false", "null"]))


def _arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    spaced = st.builds(lambda a, text, b: a + text + b, _GAPS, inner, _GAPS)
    return st.builds(lambda gap, items: f"[{','.join(items) or gap}]", _GAPS, st.lists(spaced, max_size=3))


def _objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(_strings(), st.tuples(_GAPS, _GAPS, _GAPS, _GAPS), inner)
    unique = st.lists(member, max_size=3, unique_by=lambda m: json.loads(m[0]))
    return st.builds(
        lambda gap, all_of: "{" + (",".join(f"{g[0]}{k}{g[1]}:{g[2]}{v}{g[3]}" for k, g, v in all_of) or gap) + "}",
        _GAPS,
        unique,
    )


def spelled(text: str) -> Any:
    """The value with each number as a 1-tuple of its spelling; duplicate keys are an error."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        assert len(table) == len(pairs)
        return table

    return json.loads(text, object_pairs_hook=unique, parse_int=lambda t: (t,), parse_float=lambda t: (t,))
