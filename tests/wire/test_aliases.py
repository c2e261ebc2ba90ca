"""Apps written for other gateways, through the official client: only the base_url is another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai

from farthing.proxy.aliases import PRODUCTS
from farthing.proxy.clock import FakeClock
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import ScriptedUpstream, scripted


def client_of(proxy: Proxied) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0)


async def ask(client: openai.AsyncOpenAI, text: str = "hello", body: Any = None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": text}], extra_headers=named, extra_body=body
    )


def decisions(row: dict[str, Any]) -> list[list[str]]:
    return [item for item in json.loads(row["decisions"]) if item[0] == "aliases"]


async def test_each_gateways_app_gets_hits_in_its_own_words(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path, compat__aliases=list(PRODUCTS)) as proxy, client_of(proxy) as client:
        helicone = {"Helicone_Cache_Enabled": "true", "Helicone_Auth": "Bearer h", "Helicone_Property_Team": "a"}
        got = [(await ask(client, "one", **helicone)).headers for _ in range(3)]  # the third by the short way
        assert [headers["helicone-cache"] for headers in got] == ["MISS", "HIT", "HIT"]
        assert [headers["x-portkey-cache-status"] for headers in got] == ["MISS", "HIT", "HIT"]
        assert [headers["cf-aig-cache-status"] for headers in got] == ["MISS", "HIT", "HIT"]
        assert [headers["x-litellm-response-cost"] for headers in got][1:] == ["0", "0"]
        assert got[0]["x-litellm-response-cost"] == got[0]["x-farthing-cost-usd"] != "0"
        assert "x-litellm-cache-key" not in got[0] and len(got[2]["x-litellm-cache-key"]) == 32

        refreshed = await ask(client, "one", x_portkey_cache_force_refresh="true", **helicone)
        assert refreshed.headers["x-portkey-cache-status"] == "REFRESH"
        skipped = await ask(client, "one", cf_aig_skip_cache="true", **helicone)
        assert skipped.headers["x-portkey-cache-status"] == "DISABLED"
        assert "cf-aig-cache-status" not in skipped.headers
        rows = await proxy.rows(5)

    assert len(up.calls) == 3
    assert not any(name.lower().startswith(("helicone", "x-portkey", "cf-aig")) for c in up.calls for name in c.headers)
    assert {row["tags"] for row in rows} == {'{"team":"a"}'}
    assert len({row["tenant"] for row in rows}) == 1
    assert decisions(rows[2]) == [["aliases", "read", "helicone-cache-enabled helicone-property-team"]]
    assert rows[4]["cache_reason"] == "x-farthing-cache: off"


async def test_namespaces_divide_and_never_join(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path, compat__aliases=["bifrost", "litellm"]) as proxy, client_of(proxy) as client:
        for _ in range(3):  # the last round takes the short way
            for key in ("a", "b"):
                await ask(client, x_bf_cache_key=key)
                await ask(client, body={"cache": {"namespace": key + "-body"}})
        assert len(up.calls) == 4
        await ask(client, "another question", x_bf_cache_key="a")  # Bifrost's key isn't all of farthing's
        assert len(up.calls) == 5
        other = client.with_options(api_key="sk-two")
        await ask(other, x_bf_cache_key="a")
        assert len(up.calls) == 6
        rows = await proxy.rows(14)

    assert len({row["key_hash"] for row in rows[:12]}) == 4
    assert [row["cache"] for row in rows] == ["miss"] * 4 + ["hit-exact"] * 8 + ["miss"] * 2
    assert len({row["tenant"] for row in rows}) == 2


async def test_litellms_body_is_read_and_stays_here(tmp_path: Path, up: ScriptedUpstream) -> None:
    body = {"cache": {"ttl": 60}, "metadata": {"tags": ["jobs"], "kept": "1"}, "user": "u1"}
    clock = FakeClock()
    async with (
        proxied(up.url, tmp_path, clock=clock, compat__aliases=["litellm"]) as proxy,
        client_of(proxy) as client,
    ):
        statuses = [(await ask(client, body=body)).headers["x-farthing-cache"] for _ in range(3)]
        statuses.append((await ask(client)).headers["x-farthing-cache"])  # `cache` is no part of what is asked
        statuses.append((await ask(client, body={"cache": {"no-cache": True}})).headers["x-farthing-cache"])
        clock.advance(61)
        statuses.append((await ask(client, body={"cache": {"s-maxage": 60}})).headers["x-farthing-cache"])
        await ask(client, "never kept", body={"cache": {"no-store": True}})
        await ask(client, "never kept", body={"cache": {"no-store": True}})
        rows = await proxy.rows(8)

    assert statuses == ["miss", "hit-exact", "hit-exact", "hit-exact", "miss", "miss"]
    assert len(up.calls) == 5
    assert all("cache" not in call.json for call in up.calls)
    assert up.calls[0].json["metadata"] == {"kept": "1"} and up.calls[0].json["user"] == "u1"
    assert [(row["user"], row["tags"]) for row in rows[:3]] == [("u1", '{"tag":"jobs"}')] * 3
    assert decisions(rows[2]) == [["aliases", "read", "body.cache body.metadata"]]


async def test_every_other_byte_of_the_body_goes_on(tmp_path: Path, up: ScriptedUpstream) -> None:
    raw = b'{ "model":"m", "cache": {"ttl": 5}, "messages":[{"role":"user","content":"h\\u00e9"}],  "top_p":1.0 }'
    async with proxied(up.url, tmp_path, compat__aliases=["litellm"], compress__tidy=False) as proxy:
        await proxy.post(raw)
        await proxy.post(raw, x_farthing_off="1")
        proxy.services.state.switch.set(off=True)  # the emergency switch is about optimisation, not about words
        await proxy.post(raw)
        large = raw.replace(b"h\\u00e9", b"word " * 100_000)
        await proxy.post(large)

    assert up.calls[2].body == up.calls[0].body
    assert up.calls[3].body == large.replace(b'"cache": {"ttl": 5}, ', b"")
    assert up.calls[0].body == raw.replace(b'"cache": {"ttl": 5}, ', b"")
    assert up.calls[1].body == raw


async def test_whoever_did_not_opt_in_sees_nothing_of_it(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        got = await proxy.post(chat(cache={"no-cache": True}), cf_aig_skip_cache="true", Helicone_Cache_Enabled="false")

    assert up.calls[0].json["cache"] == {"no-cache": True}
    assert up.calls[0].headers["cf-aig-skip-cache"] == "true"
    assert not any(name.startswith(("helicone", "x-portkey", "cf-aig", "x-litellm")) for name in got.headers)


async def test_words_of_an_upstream_that_is_such_a_gateway_give_way(tmp_path: Path) -> None:
    from tests.fakes.upstream import Script

    async with scripted() as up, proxied(up.url, tmp_path, compat__aliases=["helicone", "litellm"]) as proxy:
        up.default = Script(headers={"Helicone-Cache": "HIT", "x-litellm-model-id": "m1"})
        whole = await proxy.post(chat("one"))
        stream = await proxy.post(chat("two", stream=True))

    for got in (whole, stream):
        assert got.headers.get_list("helicone-cache") == ["MISS"]
        assert got.headers["x-litellm-model-id"] == "m1"


async def test_a_reload_switches_it(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        config = proxy.services.config
        on = config.model_copy(update={"compat": config.compat.model_copy(update={"aliases": ("helicone",)})})
        assert "helicone-cache" not in (await proxy.post(chat())).headers
        assert await proxy.running.reload(on) == ()
        assert (await proxy.post(chat())).headers["helicone-cache"] == "HIT"
        await proxy.running.reload(config)
        assert "helicone-cache" not in (await proxy.post(chat())).headers
