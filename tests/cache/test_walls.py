"""Which part keeps a request apart from what is stored."""

from __future__ import annotations

from typing import Any

import pytest

from farthing.cache.walls import Walls, parts_of
from farthing.proxy.exchange import Endpoint

SAID = {"role": "system", "content": "Be brief."}
EARLIER = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
LAST = {"role": "user", "content": "where is it"}
STORED: dict[str, Any] = {"model": "m", "messages": [SAID, *EARLIER, LAST], "temperature": 0, "tools": [{"name": "a"}]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ()),
        ({"stream": True, "user": "u"}, ()),
        ({"model": "other"}, ("model",)),
        ({"temperature": 1}, ("settings",)),
        ({"tools": []}, ("tools",)),
        ({"messages": [{**SAID, "content": "Be long."}, *EARLIER, LAST]}, ("system prompt",)),
        ({"messages": [SAID, LAST]}, ("earlier turns",)),
        ({"messages": [LAST], "top_p": 0.5}, ("system prompt", "settings", "earlier turns")),
    ],
)
def test_the_part_that_differs_is_named(changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    walls = Walls()
    walls.note("t", "where is it", parts_of(STORED, Endpoint.CHAT), "k")
    assert walls.differing("t", "where is it", parts_of({**STORED, **changes}, Endpoint.CHAT), "other") == expected


def test_messages_and_responses_have_their_system_prompt_elsewhere() -> None:
    for endpoint, name, field in (
        (Endpoint.MESSAGES, "system", "messages"),
        (Endpoint.RESPONSES, "instructions", "input"),
    ):
        walls, body = Walls(), {"model": "m", field: [LAST], name: "Be brief."}
        walls.note("t", "q", parts_of(body, endpoint), "k")
        assert walls.differing("t", "q", parts_of({**body, name: "No."}, endpoint), "other") == ("system prompt",)


def test_the_nearest_asks_the_same_and_shares_most_and_others_are_nobodys_business() -> None:
    walls = Walls()
    walls.note("t", "another", parts_of({**STORED, "tools": []}, Endpoint.CHAT), "k")
    walls.note("t", "where is it", parts_of({**STORED, "model": "x", "temperature": 1}, Endpoint.CHAT), "k")
    asked = parts_of(STORED, Endpoint.CHAT)
    assert walls.differing("t", "where is it", asked, "other") == ("model", "settings")
    assert walls.differing("t", "something else", asked, "other") == ("tools",)
    assert walls.differing("nobody", "where is it", asked, "other") == ()
    assert walls.differing("t", "where is it", asked, "k") == ()
    for n in range(300):
        walls.note("u", f"{n}", asked, "k")
    assert walls.differing("t", "where is it", asked, "other") == ()
