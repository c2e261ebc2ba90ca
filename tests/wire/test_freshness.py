"""Lifetimes by rule, and purges by tag, source and age, through the official client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from farthing.proxy.clock import FakeClock
from tests.fakes.proxying import Proxied, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.fakes.valkey import ValkeyProcess
from tests.wire.test_semantic import AGAIN, ASK, SERVE, learnt, loaded


async def ask(proxy: Proxied, text: str, model: str = "m", **headers: str) -> str:
    """How the answer was had."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0, timeout=30) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": text}], extra_headers=named
        )
    return str(raw.headers["x-farthing-cache"])


async def purge(proxy: Proxied, **asked: Any) -> dict[str, int]:
    answer = await proxy.client.post("/farthing/api/cache/purge", json=asked, headers={"x-farthing-admin": "1"})
    assert answer.status_code == 200, answer.text
    found: dict[str, int] = answer.json()
    return found


RULES = [
    {"tag": "doc=kb-*", "ttl_s": 50},
    {"kind": "figures", "ttl_s": 100, "semantic_ttl_s": 10},
    {"model": "big*", "ttl_s": 0},
    {"kind": "refusal", "ttl_s": 20},
]


@pytest.mark.parametrize(
    ("says", "model", "headers", "lives_s"),
    [
        ("On the left.", "m", {}, 1000),
        ("It costs 6 euros.", "m", {}, 100),
        ("I'm sorry, but I can't help with that.", "m", {}, 20),
        ("It costs 6 euros.", "m", {"x_farthing_tags": "doc=kb-17"}, 50),
        ("It costs 6 euros.", "m", {"x_farthing_tags": "doc=other|kb-17"}, 50),
        ("It costs 6 euros.", "m", {"x_farthing_ttl": "300"}, 300),
        ("On the left.", "big-1", {"x_farthing_ttl": "300"}, 300),
    ],
)
async def test_the_first_rule_that_matches_gives_the_lifetime_and_the_header_wins(
    tmp_path: Path, says: str, model: str, headers: dict[str, str], lives_s: int
) -> None:
    clock = FakeClock()
    async with (
        scripted() as up,
        proxied(up.url, tmp_path, clock=clock, cache__ttl_s=1000, cache__freshness=RULES) as proxy,
    ):
        up.default = Script(says=says)
        assert await ask(proxy, "a", model, **headers) == "miss"
        clock.advance(lives_s - 1)
        assert await ask(proxy, "a", model) == "hit-exact"
        clock.advance(1)
        assert await ask(proxy, "a", model) == "miss"


async def test_an_answer_that_a_rule_does_not_keep_is_no_hit(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, cache__freshness=RULES) as proxy:
        up.default = Script(says="On the left.")
        assert [await ask(proxy, "a", "big-1") for _ in range(2)] == ["miss", "miss"]


async def test_exact_hits_may_live_longer_than_near_duplicates(tmp_path: Path) -> None:
    clock = FakeClock()
    async with scripted() as up, proxied(up.url, tmp_path, clock=clock, **SERVE, cache__freshness=RULES) as proxy:
        await loaded(proxy)
        up.default = Script(says="In 6 steps.")
        assert await ask(proxy, ASK) == "miss"
        await learnt(proxy, 1)
        clock.advance(9)
        assert await ask(proxy, AGAIN) == "hit-semantic"
        clock.advance(1)
        assert await ask(proxy, "How could I reset my password?") == "miss"
        assert await ask(proxy, ASK) == "hit-exact"


async def test_near_duplicates_can_be_forbidden_for_a_kind_of_answer(tmp_path: Path) -> None:
    rules = [{"kind": "figures", "semantic_ttl_s": 0}]
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE, cache__freshness=rules) as proxy:
        await loaded(proxy)
        up.default = Script(says="In 6 steps.")
        assert [await ask(proxy, text) for text in (ASK, AGAIN, ASK)] == ["miss", "miss", "hit-exact"]


@asynccontextmanager
async def with_store(kind: str, up: ScriptedUpstream, state: Path) -> AsyncIterator[Proxied]:
    if kind == "redis":
        with ValkeyProcess() as server:
            async with proxied(up.url, state, **SERVE, store__url=server.url) as proxy:
                yield proxy
    else:
        async with proxied(up.url, state, **SERVE) as proxy:
            yield proxy


@pytest.mark.parametrize("kind", ["local", "redis"])
async def test_a_purge_by_source_takes_answers_and_what_finds_them(tmp_path: Path, kind: str) -> None:
    async with scripted() as up, with_store(kind, up, tmp_path) as proxy:
        await loaded(proxy)
        await ask(proxy, ASK, x_farthing_tags="team=help,source=kb-16|kb-17")
        await learnt(proxy, 1)
        await ask(proxy, "Where is the lift?", x_farthing_tags="source=kb-1")
        await learnt(proxy, 2)
        assert await purge(proxy, source="kb-18") == {"purged": 0, "near_duplicates": 0}
        assert await purge(proxy, source="kb-17", tags=["team=shop"]) == {"purged": 0, "near_duplicates": 0}
        assert await ask(proxy, AGAIN) == "hit-semantic"
        assert await purge(proxy, source="kb-17") == {"purged": 1, "near_duplicates": 1}
        assert await ask(proxy, AGAIN) == "miss"
        assert await ask(proxy, "Where is the lift?") == "hit-exact"
        assert await purge(proxy, tags=["source=kb-1"]) == {"purged": 1, "near_duplicates": 1}


async def test_tags_are_of_who_asked_first_and_never_in_the_key(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        up.default.wait_s = 0.3
        asked = (ask(proxy, "a", x_farthing_tags=f"source={name}") for name in ("one", "two"))
        assert sorted(await asyncio.gather(*asked)) == ["joined", "miss"]
        assert await ask(proxy, "a", x_farthing_tags="source=three") == "hit-exact"
        assert len(up.calls) == 1
        assert (await purge(proxy, source="three"))["purged"] == 0
        assert sum([(await purge(proxy, source=name))["purged"] for name in ("one", "two")]) == 1
        rows = await proxy.rows(3)
    assert {row["tags"] for row in rows} == {f'{{"source":"{name}"}}' for name in ("one", "two", "three")}


async def test_a_name_said_several_times_is_one_tag_of_several_values(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        await ask(proxy, "a", x_farthing_tags="source=a,team=x,source=b")
        assert (await proxy.rows(1))[0]["tags"] == '{"source":"a|b","team":"x"}'
        assert (await purge(proxy, tags=["source=a", "source=b"]))["purged"] == 1


async def test_a_purge_by_age(tmp_path: Path) -> None:
    clock = FakeClock()
    async with scripted() as up, proxied(up.url, tmp_path, clock=clock) as proxy:
        await ask(proxy, "a")
        clock.advance(7200)
        await ask(proxy, "b")
        assert (await purge(proxy, older_than="3h"))["purged"] == 0
        assert (await purge(proxy, older_than="1h", model="other"))["purged"] == 0
        assert (await purge(proxy, older_than="1h"))["purged"] == 1
        assert [await ask(proxy, text) for text in "ab"] == ["miss", "hit-exact"]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"source": ""}, "source"),
        ({"tags": []}, "tags"),
        ({"tags": ["kb-17"]}, "tags"),
        ({"tags": ["=kb-17"]}, "tags"),
        ({"tags": "doc=kb-17"}, "tags"),
        ({"key": None}, "key"),
        ({"older_than": "soon"}, "older_than"),
        ({"older_than": "2999-01-01"}, "older_than"),
        ({"sources": "a"}, "sources"),
    ],
)
async def test_a_purge_that_is_not_understood_removes_nothing(tmp_path: Path, asked: Any, param: str) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        await ask(proxy, "a")
        answer = await proxy.client.post("/farthing/api/cache/purge", json=asked, headers={"x-farthing-admin": "1"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_selector")
        assert await ask(proxy, "a") == "hit-exact"


async def test_a_row_says_that_its_answer_was_not_kept(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, cache__freshness=[{"model": "big*", "ttl_s": 0}]) as proxy:
        for model in ("big-1", "m"):
            await ask(proxy, "Where?", model)
        told = {each["model_requested"]: json.loads(each["decisions"]) for each in await proxy.rows(2)}
    assert ["store", "not stored", "its time to live is 0"] in told["big-1"]
    assert "store" not in {stage for stage, _, _ in told["m"]}
