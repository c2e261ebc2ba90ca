"""Names that only farthing knows, over real servers: aliases, and variants that a request asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import chat
from tests.fakes.upstream import Script
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


PRIVATE = {"name": "private", "upstream": "cheap", "model": "mini"}


@pytest.mark.parametrize("named", [{"model": "local"}, {"model": "private"}, {"x_farthing_route": "private"}])
@pytest.mark.parametrize("script", [Script(status=503, body=b'{"error":"theirs"}'), Script(reset=True)])
async def test_a_prompt_for_a_named_variant_is_sent_nowhere_else_when_it_fails(
    script: Script, named: dict[str, str], tmp_path: Path
) -> None:
    headers = {name: value for name, value in named.items() if name != "model"}
    async with house(tmp_path, [], variants=[PRIVATE], aliases={"local": "private"}) as at:
        at.cheap.default = script
        whole = await at.proxy.post(chat(model=named.get("model", "m")), **headers)
        streamed = await at.proxy.post(chat(model=named.get("model", "m"), stream=True), **headers)
        rows = await at.books(2)
    assert at.default.calls == at.third.calls == []
    assert len(at.cheap.calls) == 2
    assert [one.status_code for one in (whole, streamed)] == [script.status if not script.reset else 502] * 2
    if not script.reset:
        assert whole.json() == {"error": "theirs"}
    assert [row["upstream"] for row in rows] == ["cheap"] * 2


@pytest.mark.parametrize("switch", ["", "x-farthing-off"])
async def test_a_name_keeps_its_meaning_in_a_body_that_no_cache_takes(switch: str, tmp_path: Path) -> None:
    twice = b'{"model":"local","messages":[{"role":"user","content":"hi"}],"user":"a","user":"b"}'
    async with house(tmp_path, [], variants=[PRIVATE], aliases={"local": "private"}) as at:
        answer = await at.proxy.post(twice, **({"x_farthing_off": "1"} if switch else {}))
        (row,) = await at.books(1)
    assert answer.status_code == 200
    assert [call.body for call in at.cheap.calls] == [twice.replace(b"local", b"mini")]
    assert at.default.calls == []
    assert row["cache"] == "bypass"


async def test_what_a_named_variants_api_cannot_say_is_refused_by_its_name(tmp_path: Path) -> None:
    async with house(tmp_path, [], upstreams=[], variants=[]) as at:
        config = at.proxy.services.config
        given: dict[str, Any] = {
            "upstreams": [{"name": "there", "style": "anthropic", "url": at.cheap.url, "api_key": "sk-ant"}],
            "variants": [{"name": "claude", "upstream": "there", "model": "mini"}],
            "aliases": {"local": "claude"},
        }
        await at.proxy.running.reload(type(config).model_validate(config.model_dump() | given))
        refused = await at.proxy.post(chat(model="local", n=2, seed=3))
        by_header = await at.proxy.post(chat(seed=3), x_farthing_route="claude")
        rows = await at.proxy.rows(2)
    assert [one.status_code for one in (refused, by_header)] == [400, 400]
    assert [one.json()["error"]["param"] for one in (refused, by_header)] == ["n", "seed"]
    assert refused.json()["error"]["code"] == "unsupported_parameter"
    assert at.default.calls == at.cheap.calls == []
    assert [(row["attempts"], row["cost_usd"]) for row in rows] == [(0, 0)] * 2


async def test_a_routes_chain_still_ends_with_the_asked_for_model(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["mini-there"]}]) as at:
        at.cheap.default = Script(status=503)
        answer = await at.proxy.post(chat())
        (row,) = await at.books(1)
    assert (answer.status_code, answer.json()["model"]) == (200, "m")
    assert [one["upstream"] for one in json.loads(row["attempts_detail"])] == ["cheap", "default"]


@pytest.mark.parametrize(
    ("route", "calls"),
    [
        ({"strategy": "weighted", "variants": ["mini-there", "big"], "weights": [0, 1]}, {"big": (1, 1)}),
        ({"strategy": "cascade", "variants": ["mini-there", "big"]}, {"big": (1, 1), "mini-there": (0, 1)}),
        ({"variants": ["mini-there"], "fallbacks": ["big"]}, {"big": (1, 1), "mini-there": (0, 1)}),
        ({"variants": ["mini-there"]}, {"": (1, 1), "mini-there": (0, 1)}),
    ],
)
async def test_figures_name_the_variant_that_is_just_the_model_asked_for(
    route: dict[str, Any], calls: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    async with house(tmp_path, [route]) as at:
        at.cheap.default = Script(status=500)
        assert (await at.proxy.post(chat())).json()["model"] == "m"
        (row,) = await at.books(1)
        (told,) = (await at.proxy.client.get("/farthing/api/routes")).json()["routes"]
    assert {one["variant"]: (one["requests"], one["asked"]) for one in told["variants"]} == calls
    assert "variant" not in json.loads(row["attempts_detail"])[-1]  # the row says what was sent: the client's own
