"""Names that only farthing knows, over real servers: aliases, and variants that a request asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.proxying import chat
from tests.wire.test_routes import house, why


async def test_an_alias_is_another_name_for_a_model_or_a_variant(tmp_path: Path) -> None:
    aliases = {"quick": "quicker", "quicker": "mini-there", "usual": "m"}
    async with house(tmp_path, [], aliases=aliases) as at:
        first = await at.proxy.post(chat(model="quick"))
        second = await at.proxy.post(chat(model="usual"))
        third = await at.proxy.post(chat(model="m"))
        rows = await at.books(3)
    assert [one.headers["x-farthing-model"] for one in (first, second, third)] == ["mini", "m", "m"]
    assert third.headers["x-farthing-cache"] == "hit-exact"
    assert [row["model_requested"] for row in rows] == ["mini", "m", "m"]
    assert why(rows[0])[0] == ["route", "alias", "quick is mini-there"]


@pytest.mark.parametrize("switch", ["everybody", "x-farthing-off"])
async def test_names_keep_their_meaning_while_all_is_switched_off(switch: str, tmp_path: Path) -> None:
    route = {"variants": ["tiny-there"]}
    aliases = {"fast": "mini-there", "usual": "m"}
    plain = b'{ "model":"m", "messages":[{"role":"user","content":"h\\u00e9"}],"stream":true }'
    async with house(tmp_path, [route], aliases=aliases) as at:
        said = {"x_farthing_off": "1"} if switch == "x-farthing-off" else {}
        if not said:
            at.proxy.services.state.switch.set(off=True)
        for model in ("fast", "mini-there", "usual"):
            streamed = chat(model=model, stream=True)
            assert (await at.proxy.post(streamed, **said)).status_code == 200
        await at.proxy.post(plain, **said)
        rows = await at.proxy.rows(4)
    assert [call.json for call in at.cheap.calls] == [chat(model="mini", stream=True)] * 2
    assert at.default.calls[0].json == chat(model="m", stream=True)
    assert at.default.calls[1].body == plain
    assert at.third.calls == []
    assert [(row["upstream"], row["model_served"], row["cache"]) for row in rows] == [
        (upstream, model, "bypass")
        for upstream, model in (("cheap", "mini"), ("cheap", "mini"), ("default", "m"), ("default", "m"))
    ]


async def test_the_request_may_name_a_variant(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["tiny-there"]}]) as at:
        named = await at.proxy.post(chat(), x_farthing_route="mini-there")
        other = await at.proxy.post(chat(), x_farthing_route="mini")
        off = await at.proxy.post(chat(), x_farthing_off="1")
        rows = await at.books(3)
    assert named.headers["x-farthing-model"] == "mini"
    assert (other.headers["x-farthing-model"], off.json()["model"]) == ("mini", "m")
    assert [row["upstream"] for row in rows] == ["cheap", "default", "default"]
