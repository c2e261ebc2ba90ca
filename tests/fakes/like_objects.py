"""JSON texts of like objects for property tests: what lists in tool results look like, with hostile names and cells."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

__all__ = ["damaged", "like_objects", "pairs"]

_NAMES = st.one_of(
    st.sampled_from(
        ["id", "name", "a.b", "", "0", "1", "a", "b", "a b", " a", "a:text", "x?", "x=1", "[", "#1", "{key}", "é", "%s"]
    ),
    st.text(max_size=3),
)
_WORDS = st.sampled_from(
    [
        *("", " ", "shipped", "eu-west-1", "1", "1.0", "-0", "007", "1e5", "true", "null", "nil", "a,b", "a;b", "a=b"),
        *(
            "[1]",
            "{x}",
            '"',
            '"q"',
            "#2",
            "#end",
            "\n",
            "\r\n",
            "a\nb",
            " pad ",
            "tab\t",
            "\\",
            "é",
            "😀",
            "\u2028",
            "%s",
        ),
        *("😀", "\u2028", "%s", "JSON", "]", "}", "a]b", "name=value", "\x85", "\ufeff"),
    ]
)
_NUMBERS = st.sampled_from(
    ["0", "1", "-1", "1.0", "1.00", "-0", "1e5", "1E+2", "123456789012345678901", "0.1", "1e400", "22.93"]
)


def _cells() -> st.SearchStrategy[str]:
    """A strategy of one column's values, as JSON texts."""
    strings = _WORDS.map(lambda word: json.dumps(word, ensure_ascii=False))
    kinds = [
        st.just('"same"'),
        strings,
        _NUMBERS,
        st.one_of(strings, _NUMBERS, st.sampled_from(["true", "false", "null"])),
        st.sampled_from(['"ok"', '"ok"', '"ok"', '"ok"', '"failed"']),
        st.lists(strings, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
    ]
    return st.one_of(kinds)


@st.composite
def _objects(draw: st.DrawFn, depth: int, least: int, most: int) -> list[str]:
    """Objects with the same columns, some of them absent or null here and there."""
    names = draw(st.lists(_NAMES, min_size=1, max_size=5, unique=True))
    count = draw(st.integers(least, most))
    columns: list[list[str | None]] = []
    for _ in names:
        nested = depth and draw(st.integers(0, 3))
        if nested == 1:
            cells: list[str | None] = list(draw(_objects(depth - 1, count, count)))
        elif nested == 2:
            lists = [draw(_objects(depth - 1, 0, 3)) if draw(st.booleans()) else None for _ in range(min(count, 4))]
            lists += [lists[0]] * (count - len(lists)) if lists else []
            cells = [None if one is None else f"[{','.join(one)}]" for one in lists]
        else:
            cell = draw(st.sampled_from(range(3)))
            strategy = _cells() if cell else st.just('"same"')
            picked = draw(st.lists(strategy, min_size=1, max_size=4))
            cells = [picked[place % len(picked)] for place in range(count)]
        for change in draw(
            st.lists(st.tuples(st.integers(0, 30), st.sampled_from([None, "null", "{}", "[]"])), max_size=2)
        ):
            if change[0] < len(cells):
                cells[change[0]] = change[1]
        columns.append(cells)
    return [
        "{"
        + ",".join(
            f"{json.dumps(name, ensure_ascii=False)}:{cells[row]}"
            for name, cells in zip(names, columns, strict=True)
            if cells[row] is not None
        )
        + "}"
        for row in range(count)
    ]


@st.composite
def like_objects(draw: st.DrawFn) -> str:
    """A JSON text with a list of like objects: bare, in an envelope, as an object of objects, as lines, in prose."""
    objects = draw(_objects(2, 2, 30))
    gap = draw(st.sampled_from(["", " ", "\n", "\r\n  "]))
    several = f"[{gap}{f',{gap}'.join(objects)}{gap}]"
    shape = draw(st.sampled_from(["list", "list", "envelope", "keyed", "lines", "prose", "two", "lists"]))
    if shape == "envelope":
        return f'{{"status":{gap}"ok #1","items":{several},"next":null}}'
    if shape == "keyed":
        keys = [draw(_NAMES) + str(place) for place in range(len(objects))]
        return "{" + ",".join(f"{json.dumps(key)}:{one}" for key, one in zip(keys, objects, strict=True)) + "}"
    if shape == "lines":
        return draw(st.sampled_from(["\n", "\r\n"])).join(objects)
    if shape == "prose":
        return f"Found these:\n```json\n{several}\n```\nThat is all.{gap}"
    if shape == "lists":
        size = draw(st.integers(1, 4))
        lists = [f"[{','.join(objects[at : at + size])}]" for at in range(0, len(objects), size)]
        named = [f'"n{place}":{one}' for place, one in enumerate(lists)]
        return draw(st.sampled_from([f"[{','.join(lists)}]", f"{{{','.join(named)}}}"]))
    return f"[{several},{several},1]" if shape == "two" else several


@st.composite
def damaged(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A text cut, doubled, or with something put into it that breaks or bends it."""
    text = draw(texts)
    at = draw(st.integers(0, len(text)))
    hurts = ["", "\ud800", "\ufeff", "NaN", '"', "[", "]", "}", "\x00", "\r", ',"id":1,"id":2', "#1", "#end\n", "\\"]
    put = draw(st.sampled_from([*hurts, "{" * 300]))
    return text[:at] + put + text[at + draw(st.integers(0, 3)) :] * draw(st.integers(0, 2))


def pairs(text: str) -> Any:
    """The value with objects as tuples of their members in order, each number as a set of its spelling."""

    def number(spelling: str) -> frozenset[str]:
        return frozenset((spelling,))

    return json.loads(text, object_pairs_hook=tuple, parse_int=number, parse_float=number)
