"""What a request itself says about its compression: its cache marks, its headers, its number of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes.proxying import proxied
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_compress import SAYS, UNPROVEN, body, results, said, told


@pytest.fixture
def up(up: ScriptedUpstream) -> ScriptedUpstream:
    up.default.says = SAYS
    return up


async def test_behind_a_clients_cache_mark_the_same_is_tidied_whether_forms_are_watched_or_not(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    loose = '{ "a" : [ 1, 2 ] }'
    blocks = [
        {"type": "tool_result", "tool_use_id": f"t{i}", "content": loose} | (mark if i == 0 else {}) for i in (0, 1)
    ]
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": blocks}]}
    for number, recode in enumerate(("observe", "off")):
        async with proxied(up.url, tmp_path / str(number), compress__recode=recode, cache__mode="off") as proxy:
            await proxy.post(asked, "/v1/messages")
    sent = [[block["content"] for block in json.loads(call.body)["messages"][0]["content"]] for call in up.calls]
    assert sent == [[loose, '{"a":[1,2]}']] * 2


async def test_squeeze_may_be_asked_for_where_it_is_served(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **UNPROVEN, compress__squeeze="serve") as proxy:
        await proxy.post(body(told()), x_farthing_compress="squeeze")
        (row,) = await proxy.rows(1)
    assert not [one for one in said(row) if one.startswith("plan:")]


async def test_without_the_tool_no_page_is_reduced(up: ScriptedUpstream, tmp_path: Path) -> None:
    words = "".join(f"<p class='a b c'>Order {i} is late since <b>Monday</b>.</p>" for i in range(300))
    page = f"<html><head><title>Orders</title></head><body>{words}</body></html>"
    turns = [*told()[:2], {"role": "tool", "tool_call_id": "c0", "content": page}]
    more = {"compress__reduce_html": True, "compress__retrieval": True}
    async with proxied(up.url, tmp_path, **UNPROVEN, **more) as proxy:
        await proxy.post(body(turns, n=2))  # never offered with more than one answer
    assert results(up.calls[0].body) == [page]
