"""How deep a body is: told from its value, as from its text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.jsontext import MAX_DEPTH, too_deep
from farthing.proxy.wire import read_body

TURNS = [{"role": "user", "content": "how [deep] is {this}?"}] * MAX_DEPTH


def nested(levels: int, by: str = "list") -> Any:
    """So many containers, one in the other."""
    value: Any = 1
    for _ in range(levels):
        value = [value] if by == "list" else {"a": value}
    return value


@pytest.mark.parametrize("by", ["list", "dict"])
@pytest.mark.parametrize(("levels", "deep"), [(1, False), (MAX_DEPTH - 1, False), (MAX_DEPTH, True), (240, True)])
def test_a_body_of_many_messages_is_read_and_a_deep_one_has_no_key(by: str, levels: int, deep: bool) -> None:
    body = orjson.dumps({"messages": TURNS, "more": nested(levels, by)})
    read = read_body(body)
    assert not isinstance(read, str)
    assert (read.exact is None) == deep == too_deep(body)
    assert read.problem == ("body is nested too deeply" if deep else "")


def test_what_a_name_that_comes_twice_hides_is_seen() -> None:
    deep = orjson.dumps(nested(240)).decode()
    read = read_body(f'{{"a":{deep},"messages":[],"a":1}}'.encode())
    assert not isinstance(read, str)
    assert (read.exact, read.problem) == (None, "body is nested too deeply")


def more(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)


@given(st.recursive(st.integers(-9, 9), more), st.integers(MAX_DEPTH - 4, MAX_DEPTH + 1))
def test_the_value_and_the_text_are_of_one_depth(inside: Any, levels: int) -> None:
    value = inside
    for _ in range(levels - 1):
        value = [value]
    body = orjson.dumps({"messages": TURNS, "a": value})
    read = read_body(body)
    assert not isinstance(read, str)
    assert (read.problem == "body is nested too deeply") == too_deep(body)
