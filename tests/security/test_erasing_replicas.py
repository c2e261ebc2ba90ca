"""A user is forgotten at one of two replicas: what they share is gone at both, and what the other has is told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from typer.testing import CliRunner

from farthing.cache.semantic_thread import SemanticThread
from farthing.cache.shared_index import SharedIndex
from farthing.cache.store_near import NearStore
from farthing.compress.decided_redis import RedisDecisions
from farthing.proxy import erasing
from farthing.proxy.cli import app
from tests.fakes.batches import BatchUpstream, batching
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script
from tests.fakes.valkey import ValkeyProcess
from tests.security.test_erasing import ADMIN, EVERYWHERE, erase, words
from tests.security.test_erasing import lived as left_words
from tests.security.test_isolation import exchanged, same_indexes
from tests.security.test_purging_alone import at_rest
from tests.wire.test_retrieval import ON, asked
from tests.wire.test_semantic import learnt, loaded

SERVES: dict[str, Any] = {
    **EVERYWHERE, **ON, "cache__mode": "exact", "semantic__mode": "serve", "semantic__unproven": True,
    "semantic__deadline_ms": 5000, "semantic__audit_daily_usd": 0, "store__deadline_ms": 5000,
}  # fmt: skip
ADDRESS, ADDRESSES = "How do I change my delivery address?", "How can I change my delivery address?"
FRANCE = "What is the capital of France?"
OWN = ["captured", "deferred", "comments"]


@dataclass
class Two:
    """Replicas with one secret and one server, each with a state directory of its own."""

    valkey: ValkeyProcess
    up: BatchUpstream
    one: Proxied
    other: Proxied


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


@pytest.fixture
async def two(valkey: ValkeyProcess, tmp_path: Path) -> AsyncIterator[Two]:
    valkey.command("FLUSHALL")
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(batching())
        proxies = []
        for name in ("one", "other"):
            state_dir = tmp_path / name
            state_dir.mkdir()
            (state_dir / "secret").write_text(f"{'5a' * 32}\n")  # tenants are told apart alike
            proxies.append(await stack.enter_async_context(proxied(up.url, state_dir, **SERVES, store__url=valkey.url)))
            await loaded(proxies[-1])
        await same_indexes(proxies, 0)
        yield Two(valkey, up, *proxies)


def of(user: str) -> dict[str, str]:
    return {"x_farthing_user": user, "x_farthing_tags": f"user={user}"}


async def ask(proxy: Proxied, text: str, **headers: str) -> httpx.Response:
    return await proxy.post(chat(text, temperature=0), **headers)


def how(answer: httpx.Response) -> str:
    return str(answer.headers["x-farthing-cache"])


async def indexed(proxy: Proxied) -> set[str]:
    """The texts that its index finds near-duplicates of."""
    assert proxy.services.thread is not None
    return set((await proxy.services.thread.run(lambda cache: cache.texts(cache.keys()))).values())


def speechless(proxy: Proxied, monkeypatch: pytest.MonkeyPatch) -> SharedIndex:
    """It neither sends nor reads near-duplicates, until `look` is called on the class."""
    thread = proxy.services.thread
    assert thread is not None and thread.shared is not None

    async def nothing(_: SemanticThread) -> None:
        pass

    monkeypatch.setattr(thread.shared, "look", nothing)
    return thread.shared


async def test_what_replicas_share_is_gone_at_both_and_another_users_is_not(two: Two) -> None:
    """The other one has answered, holds it in memory, and finds near-duplicates of it."""
    one, other = two.one, two.other
    assert isinstance(other.services.state.store, NearStore)
    await ask(other, ADDRESS, **of("u-one"))
    await ask(one, FRANCE, **of("u-two"))
    await same_indexes([one, other], 2)
    before = [how(await ask(proxy, text)) for proxy in (one, other) for text in (ADDRESS, FRANCE)]
    held = {text.lower() for text in await indexed(other)}
    found = await erase(one, user="u-one")
    rest = at_rest(two.valkey.url).lower()
    async with asyncio.timeout(other.services.config.store.stale_s + 5):  # the machine may be busy
        while (await ask(other, ADDRESS, Cache_Control="only-if-cached")).status_code != 504:
            await asyncio.sleep(0.02)
        for proxy in (one, other):
            while len(await indexed(proxy)) > 1:
                await asyncio.sleep(0.02)
    near = how(await ask(other, ADDRESSES))
    after = [how(await ask(proxy, FRANCE)) for proxy in (one, other)]

    assert before == ["hit-exact"] * 4 and any("delivery" in text for text in held) and len(held) == 2
    assert found["verified"] and found["erased"]["answers"] == found["erased"]["near_duplicates"] == 1
    assert b"u-one" not in rest and b"delivery address" not in rest
    assert b"u-two" in rest and b"capital of france" in rest
    assert near == "miss" and after == ["hit-exact", "hit-exact"]


@pytest.mark.parametrize("call", ["erase", "purge", "purge all"])
async def test_near_duplicates_that_the_other_has_only_just_put_go_too(
    two: Two, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """They stand in the log, and the index of the one that is asked hasn't read them yet."""
    speechless(two.one, monkeypatch)
    await ask(two.other, ADDRESS, **of("u-one"))
    await learnt(two.other, 1)
    await exchanged([two.other])
    logged = at_rest(two.valkey.url).lower()
    if call == "erase":
        found = (await erase(two.one, user="u-one"))["erased"]
    else:
        chosen = {"tags": ["user=u-one"]} if call == "purge" else {}
        path = "/farthing/api/cache/purge"
        found = (await two.one.client.post(path, json=chosen, headers=ADMIN)).json()
    rest = at_rest(two.valkey.url).lower()
    async with asyncio.timeout(10):
        while await indexed(two.other):
            await asyncio.sleep(0.02)

    assert b"change my delivery address" in logged and b"delivery address" not in rest
    assert found["near_duplicates"] == 1


async def test_what_waits_to_be_sent_leaves_no_text_in_the_log(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor in its stream, where what a replica removes by itself stays for a minute."""
    speechless(two.one, monkeypatch)
    await ask(two.one, ADDRESS, **of("u-one"))
    await learnt(two.one, 1)
    monkeypatch.undo()
    found = await erase(two.one, user="u-one")

    assert found["verified"] and found["erased"]["near_duplicates"] == 1
    assert b"delivery address" not in at_rest(two.valkey.url).lower()


async def test_near_duplicates_that_are_sent_while_it_goes_on_are_found_by_the_second_look(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, thread = speechless(two.other, monkeypatch), two.other.services.thread
    assert thread is not None
    await ask(two.other, ADDRESS, **of("u-one"))
    await learnt(two.other, 1)
    looked, once = asyncio.Event(), erasing._once

    async def noted(*given: Any) -> Any:
        found = await once(*given)
        looked.set()
        return found

    monkeypatch.setattr(erasing, "_once", noted)
    monkeypatch.setattr(erasing, "_SENT_WITHIN_S", 3.0)  # a busy machine takes long to send one
    under_way = asyncio.create_task(erase(two.one, user="u-one"))
    await asyncio.wait_for(looked.wait(), 20)
    await SharedIndex.look(shared, thread)
    found, again = await under_way, await erase(two.one, user="u-one")

    assert (found["left"]["near_duplicates"], found["verified"], again["verified"]) == (1, False, True)
    assert b"delivery address" not in at_rest(two.valkey.url).lower()


async def test_what_the_other_has_of_its_own_is_told_of_and_goes_when_it_is_asked(two: Two) -> None:
    said = ["a word of u-one", "said by u-one", "later, says u-one"]
    for proxy in (two.one, two.other):
        await left_words(proxy, "u-one")
    first = await erase(two.one, user="u-one")
    of_one, of_other = ([words(proxy.state_dir, text) for text in said] for proxy in (two.one, two.other))
    second = await erase(two.other, user="u-one")
    rest = [words(proxy.state_dir, text) for proxy in (two.one, two.other) for text in said]

    assert first["verified"] and first["elsewhere"] == OWN
    assert of_one == [{}, {}, {}] and all(of_other)
    assert second["verified"] and all(second["erased"][name] for name in OWN)
    assert rest == [{}] * 6 and b"u-one" not in at_rest(two.valkey.url)


async def test_a_comment_that_came_to_another_replica_than_the_one_that_answered_is_not_found(two: Two) -> None:
    """A limit that docs/security.md tells; the answer to the feedback says so too."""
    answer = await ask(two.one, ADDRESS, **of("u-one"))
    said = {"id": answer.headers["x-farthing-id"], "rating": "good", "comment": "said by u-one"}
    told = (await two.other.client.post("/farthing/api/feedback", json=said, headers=ADMIN)).json()
    counts = [(await erase(proxy, user="u-one"))["erased"]["comments"] for proxy in (two.one, two.other)]

    assert (told["kept"], told["known"], counts) == (True, False, [0, 0])
    assert words(two.other.state_dir, "said by u-one")


async def test_what_compression_keeps_goes_by_the_tenants_of_the_one_that_is_asked(two: Two) -> None:
    """Which tenants a user was seen in, each replica knows by its own ledger; what it has read it holds for a
    minute."""
    one, other = two.one, two.other
    two.up.default = Script(fetches=0)
    for proxy, turns, named in ((other, 0, of("u-one")), (other, 1, of("u-one")), (one, 2, {})):
        assert (await proxy.post(asked(turns=turns), **named)).status_code == 200
    kept = decided(two.valkey.url)
    first = await erase(one, user="u-one", texts=True)
    left = decided(two.valkey.url)
    second = await erase(other, user="u-one", texts=True)
    held = one.services.state.decisions
    assert isinstance(held, RedisDecisions)
    ends = [ends_s for _, ends_s in held._front._held.values()]

    assert first["erased"]["tenants_whose_texts_went"] == 0 and first["elsewhere"] == [*OWN, "tenants"]
    assert kept == left != []
    assert second["erased"]["tenants_whose_texts_went"] == 1 and decided(two.valkey.url) == []
    assert ends and max(ends) <= one.services.state.clock.now_s() + 60


def decided(url: str) -> list[bytes]:
    """The names of what is kept of prompts."""
    with redis.Redis.from_url(url) as client:
        return sorted(name for name in client.scan_iter() if b":d:" in name)


async def test_the_command_says_whom_else_to_ask(valkey: ValkeyProcess, tmp_path: Path) -> None:
    args = ["erase", "--user", "u-one", "--state", str(tmp_path)]
    env = {"FARTHING_SEMANTIC__MODE": "off", "FARTHING_UPSTREAM": "http://127.0.0.1:9/v1"}
    shared = await asyncio.to_thread(CliRunner().invoke, app, args, env={**env, "FARTHING_STORE__URL": valkey.url})
    alone = await asyncio.to_thread(CliRunner().invoke, app, args, env=env)

    assert (shared.exit_code, alone.exit_code) == (0, 0), (shared.output, alone.output)
    assert "ask each replica that shares this store: captured, deferred, comments" in shared.output
    assert "replica" not in alone.output
