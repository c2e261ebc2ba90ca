"""The short way of a hit (proxy/repeat.py) gives the answer that the pipeline gives, and none that it would not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from farthing.proxy.aliases import PRODUCTS
from farthing.proxy.clock import FakeClock
from farthing.proxy.repeat import Repeats
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.wire.test_compress import told

# What may differ between two answers to one request: who they are, and how long they took.
_OWN_HEADERS = {"date", "x-farthing-id", "x-farthing-overhead-ms", "content-length", "x-litellm-cache-key"}
_OWN_COLUMNS = {"id", "flight_id", "ts", "latency_ms", "ttft_ms", "upstream_ms", "overhead_ms", "stage_ms"}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways that went short: an entry for each."""
    ways: list[str] = []
    answer = Repeats.answer

    async def noted(self: Repeats, *given: Any) -> None:
        ways.append("short")
        await answer(self, *given)

    monkeypatch.setattr(Repeats, "answer", noted)
    return ways


def plain(response: httpx.Response) -> Any:
    """The answer without its identity."""
    text = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        return [_without(json.loads(line[6:])) for line in text.split("\n") if line.startswith("data: {")]
    return _without(json.loads(text))


def _without(value: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in ("id", "created", "error")}


def shown(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in _OWN_HEADERS}


_THEIRS: list[tuple[str, list[str]]] = [
    ("Helicone-Cache-Enabled", ["true", "false"]),
    ("Helicone-Property-Team", ["a", "b"]),
    ("Helicone-Session-Id", ["s1", "s2"]),
    ("x-portkey-cache-force-refresh", ["true", "maybe"]),
    ("x-portkey-metadata", ['{"_user": "u2", "env": "prod"}', "{"]),
    ("cf-aig-cache-key", ["k1", "k2"]),
    ("cf-aig-cache-ttl", ["5"]),
    ("x-bf-cache-no-store", ["true"]),
    ("x-litellm-tags", ["t1,t2"]),
]
_LITELLM = [{"namespace": "n1"}, {"no-cache": True}, {"no-store": True}, {"ttl": 10}, {"s-maxage": 20}]


def request(chance: random.Random, theirs: bool) -> tuple[bytes, dict[str, str]]:
    """A request of few bodies and many headers; most come again soon. `theirs`: in other gateways' words too."""
    said = chance.choice(["one", "two", "long " * 2000, "a tool's result"])
    body = chat(said, stream=chance.random() < 0.3)
    if said == "a tool's result":  # it is tidied: its answers are kept of a prompt that was shortened
        body["messages"] += told(count=40)
    if theirs and chance.random() < 0.2:
        body["cache"] = chance.choice(_LITELLM)
    spelt = json.dumps(body, separators=chance.choice([(",", ":"), (", ", ": ")])).encode()
    headers = {"Authorization": chance.choice(["Bearer sk-one", "Bearer sk-one", "Bearer sk-two"])}
    headers["Content-Type"] = "application/json"
    for name, values in (
        ("Cache-Control", ["no-cache", "no-store", "max-age=0", "max-age=1000", "only-if-cached"]),
        ("x-farthing-cache", ["off", "exact"]),
        ("x-farthing-off", ["1"]),
        ("x-farthing-scope", ["a", "b"]),
        ("x-farthing-tags", ["team=search"]),
        ("x-farthing-user", ["u1"]),
        ("OpenAI-Beta", ["assistants=v2"]),
        ("X-Auth-Token", ["t1"]),
        ("Content-Encoding", ["identity"]),
        *(_THEIRS if theirs else ()),
    ):
        if chance.random() < (0.03 if theirs else 0.06):
            headers[name] = chance.choice(values)
    if chance.random() < 0.5:
        headers["traceparent"] = f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01"
    return spelt, headers


@pytest.mark.parametrize(
    "products",
    [pytest.param(list(PRODUCTS), id="others' words"), pytest.param([], id="own words", marks=pytest.mark.long)],
)
async def test_both_ways_give_one_answer_and_one_row(tmp_path: Path, taken: list[str], products: list[str]) -> None:
    """The same random traffic through a proxy with the short way and through one without."""
    clock, chance = FakeClock(), random.Random(7)
    settings: dict[str, Any] = {"cache__ttl_s": 40, "compat__aliases": products, "compress__recode": "off"}
    async with scripted() as first, scripted() as second:
        short = proxied(first.url, tmp_path / "short", clock=clock, **settings)
        long = proxied(
            second.url,
            tmp_path / "long",
            clock=clock,
            limits__repeat_bytes=0,
            **settings,
        )
        async with short as with_it, long as without:
            for number in range(300):
                clock.advance(15 if number % 50 == 49 else 0.001)  # gives rows an order
                body, headers = request(chance, bool(products))
                left, right = [
                    await proxy.client.post("/v1/chat/completions", content=body, headers=headers)
                    for proxy in (with_it, without)
                ]
                if b"tool_calls" in body:  # such an answer is kept once its prompt is counted
                    await with_it.rows(number + 1), await without.rows(number + 1)
                assert (left.status_code, shown(left)) == (right.status_code, shown(right)), headers
                assert plain(left) == plain(right)
            rows = await with_it.rows(300), await without.rows(300)

    assert len(taken) > (20 if products else 60)
    short_hits = [row for row in rows[0] if row["cache"] == "hit-exact" and row["modelled"]]
    assert len(short_hits) > 5
    ignored = _OWN_COLUMNS | {"tenant", "key_hash", "config_id"}  # each proxy has its own secret and upstream
    for mine, theirs in zip(*rows, strict=True):
        assert {k: v for k, v in mine.items() if k not in ignored} == {
            k: v for k, v in theirs.items() if k not in ignored
        }
    assert len({(row["tenant"], row["key_hash"]) for row in rows[0]}) == len(
        {(row["tenant"], row["key_hash"]) for row in rows[1]}
    )


async def test_a_purge_an_off_switch_and_a_refusal_are_seen_at_once(
    proxy: Proxied, up: ScriptedUpstream, taken: list[str]
) -> None:
    async def how() -> str:
        return str((await proxy.post(chat())).headers["x-farthing-cache"])

    assert [await how() for _ in range(3)] == ["miss", "hit-exact", "hit-exact"]
    assert len(taken) == 1
    await proxy.client.post("/farthing/api/cache/purge", json={}, headers={"x-farthing-admin": "1"})
    assert [await how() for _ in range(3)] == ["miss", "hit-exact", "hit-exact"]
    assert len(taken) == 2

    proxy.services.state.switch.set(off=True)
    assert await how() == "bypass"
    proxy.services.state.switch.set(off=False)
    assert await how() == "hit-exact"

    up.script(Script(status=401))
    refused = await proxy.post(chat("other"))
    assert refused.status_code == 401
    assert await how() == "miss"  # the credential gets no hits until a success
    assert await how() == "hit-exact"


async def test_what_is_remembered_is_bounded(up: ScriptedUpstream, tmp_path: Path, taken: list[str]) -> None:
    async with proxied(up.url, tmp_path, limits__repeat_bytes=60_000) as proxy:
        for number in range(40):
            for _ in range(2):
                await proxy.post(chat(f"question {number}"))
        repeats = proxy.services.relay.repeats
        assert 5 < len(repeats) < 15
        assert (await proxy.post(chat("question 39"))).headers["x-farthing-cache"] == "hit-exact"
        assert taken == ["short"]
        assert (await proxy.post(chat("question 0"))).headers["x-farthing-cache"] == "hit-exact"
        assert taken == ["short"]


async def test_prices_are_worked_out_anew_after_a_minute(
    up: ScriptedUpstream, tmp_path: Path, taken: list[str]
) -> None:
    clock = FakeClock()
    async with proxied(up.url, tmp_path, clock=clock) as proxy:
        for _ in range(3):
            await proxy.post(chat())
        assert len(taken) == 1
        clock.advance(61)
        await proxy.post(chat())
        assert len(taken) == 1
        await proxy.post(chat())
        assert len(taken) == 2
