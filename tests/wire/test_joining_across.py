"""Replicas over a real Valkey that are asked the same at the same moment: one call, and what each of them tells."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.fakes.valkey import ValkeyProcess


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as one:
        yield one


@asynccontextmanager
async def replicas(
    count: int, up: ScriptedUpstream, server: ValkeyProcess, path: Path, **settings: Any
) -> AsyncIterator[list[Proxied]]:
    """Proxies with a secret in common, over an empty server."""
    server.command("FLUSHALL")
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            state = path / f"{number}"
            state.mkdir()
            (state / "secret").write_text(f"{'5a' * 32}\n")
            settings = {"store__url": server.url, "store__deadline_ms": 2000, "upstream__retries": 0} | settings
            found.append(await stack.enter_async_context(proxied(up.url, state, **settings)))
        yield found


def how(*answers: httpx.Response) -> Counter[str]:
    return Counter(one.headers["x-farthing-cache"] for one in answers)


async def after_the_first(up: ScriptedUpstream) -> None:
    while not up.calls:
        await asyncio.sleep(0.005)


async def test_of_fifty_at_three_replicas_one_asks(server: ValkeyProcess, tmp_path: Path) -> None:
    async with scripted() as up, replicas(3, up, server, tmp_path) as three:
        up.default.wait_s = 0.3
        answers = await asyncio.gather(*(three[n % 3].post(chat()) for n in range(50)))

        assert len(up.calls) == 1
        assert {one.status_code for one in answers} == {200}
        assert len({one.json()["choices"][0]["message"]["content"] for one in answers}) == 1
        assert how(*answers) == {"miss": 1, "joined": 49}

        rows = [row for one, count in zip(three, (17, 17, 16), strict=True) for row in await one.rows(count)]
        assert sum(row["cost_usd"] for row in rows) == int(up.bill(("2", "1", "8")) * 10**12)
        assert len({row["flight_id"] for row in rows}) == 1, "one flight, whoever's process"
        leaders = {row["id"] for one in three for row in await one.rows() if row["cache"] == "miss"}
        ledgers = [await one.rows() for one in three]
        [near] = {told(row) for rows in ledgers for row in rows if row["cache"] == "joined" and leaders & ids(rows)}
        [far] = {told(row) for rows in ledgers for row in rows if row["cache"] == "joined" and not leaders & ids(rows)}
        assert near == far, "a follower's row looks alike, wherever it waited"
        waits_ms = [max(row["latency_ms"] - row["overhead_ms"] for row in rows) for rows in ledgers]
        assert min(waits_ms) > 100, "waiting for another one is no work of farthing's"


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row says that doesn't hang on the moment; the upstream's name is only known where it was asked."""
    own = {"id", "ts", "latency_ms", "ttft_ms", "upstream_ms", "overhead_ms", "stage_ms", "upstream", "config_id"}
    return tuple((name, value) for name, value in row.items() if name not in own)


async def test_a_failure_is_not_shared_and_nobody_waits_for_a_second_one(server: ValkeyProcess, tmp_path: Path) -> None:
    async with scripted() as up, replicas(3, up, server, tmp_path) as three:
        up.default = Script(status=500, wait_s=0.3)
        asked = [asyncio.create_task(three[0].post(chat()))]
        await after_the_first(up)
        asked += [asyncio.create_task(one.post(chat())) for one in three[1:]]
        begun = time.monotonic()
        answers = await asyncio.gather(*asked)

        assert [one.status_code for one in answers] == [500] * 3 and len(up.calls) == 3
        assert up.most_at_once == 2, "the two who had waited asked together"
        assert time.monotonic() - begun < 5
        rows = await three[1].rows(1)
        assert "no answer to share" in rows[0]["decisions"]


async def test_credentials_do_not_wait_for_each_other(server: ValkeyProcess, tmp_path: Path) -> None:
    async with scripted() as up, replicas(2, up, server, tmp_path) as two:
        up.default.wait_s = 0.2
        answers = await asyncio.gather(
            two[0].post(chat(), Authorization="Bearer sk-a"), two[1].post(chat(), Authorization="Bearer sk-b")
        )
        assert how(*answers) == {"miss": 2} and len(up.calls) == 2


@pytest.mark.parametrize("across", ["whole", "all", "off"])
async def test_a_stream_waits_for_a_whole_answer_only_where_it_shall(
    server: ValkeyProcess, tmp_path: Path, across: str
) -> None:
    async with scripted() as up, replicas(2, up, server, tmp_path, cache__join_across=across) as two:
        up.default.wait_s = 0.5
        first = asyncio.create_task(two[0].post(chat(stream=True)))
        await after_the_first(up)
        later = [
            asyncio.create_task(two[1].post(chat(stream=True, stream_options={"include_usage": usage})))
            for usage in (True, False)
        ]
        whole = asyncio.create_task(two[1].post(chat("another")))
        answers = await asyncio.gather(first, *later, whole)

        assert {one.status_code for one in answers} == {200}
        spoken = [said(one.text) for one in answers[:3]]
        assert len(set(spoken)) == 1 and spoken[0]
        assert ['"usage"' in one.text for one in answers[:3]] == [False, True, False]
        assert how(answers[0], answers[3]) == {"miss": 2}
        waited = how(*answers[1:3])
        assert waited["joined"] >= 1
        # Who asked for usage joined a stream that was made for one who did, or asked for one of its own.
        assert len(up.calls) == (3 if across != "all" else 2 + waited["miss"])


def said(stream: str) -> str:
    events = [json.loads(line[6:]) for line in stream.split("\n") if line.startswith("data: {")]
    return "".join(each["delta"].get("content") or "" for event in events for each in event["choices"])


async def test_a_whole_request_waits_for_a_stream(server: ValkeyProcess, tmp_path: Path) -> None:
    async with scripted() as up, replicas(2, up, server, tmp_path) as two:
        up.default.wait_s = 0.3
        stream = asyncio.create_task(two[0].post(chat(stream=True)))
        await after_the_first(up)
        whole = await two[1].post(chat())
        assert how(whole) == {"joined": 1} and len(up.calls) == 1
        assert whole.json()["choices"][0]["message"]["content"] == said((await stream).text)


async def test_nobody_waits_longer_than_configured(server: ValkeyProcess, tmp_path: Path) -> None:
    async with scripted() as up, replicas(2, up, server, tmp_path, cache__join_wait_s=0.2) as two:
        up.script(Script(wait_s=1.5))
        slow = asyncio.create_task(two[0].post(chat()))
        await after_the_first(up)
        begun = time.monotonic()
        fast = await two[1].post(chat())
        assert how(fast) == {"miss": 1} and time.monotonic() - begun < 1.2
        assert "long enough" in (await two[1].rows(1))[0]["decisions"]
        assert (await slow).status_code == 200


async def test_without_the_server_all_go_on_at_once_also_those_who_wait(tmp_path: Path) -> None:
    with ValkeyProcess() as server:
        async with scripted() as up, replicas(2, up, server, tmp_path, store__deadline_ms=100) as two:
            up.script(Script(wait_s=1.5))
            slow = asyncio.create_task(two[0].post(chat()))
            await after_the_first(up)
            waiting = asyncio.create_task(two[1].post(chat()))
            await asyncio.sleep(0.2)
            assert len(up.calls) == 1
            server.kill()
            begun = time.monotonic()
            assert how(await waiting) == {"miss": 1} and time.monotonic() - begun < 1.2
            more = await asyncio.gather(*(one.post(chat("more")) for one in two))
            assert {one.status_code for one in more} == {200} and not how(*more).keys() - {"miss", "bypass"}
            assert (await slow).status_code == 200
            for one in two:
                await quiet(one)


async def test_who_leaves_lets_others_go_on(server: ValkeyProcess, tmp_path: Path) -> None:
    """The one who asks has no client any more: its call is cancelled, and nobody waits for a lease to lapse."""
    async with scripted() as up, replicas(2, up, server, tmp_path) as two:
        up.script(Script(wait_s=30))
        leaving = asyncio.create_task(two[0].post(chat()))
        await after_the_first(up)
        waiting = asyncio.create_task(two[1].post(chat()))
        await asyncio.sleep(0.1)
        leaving.cancel()
        begun = time.monotonic()
        assert how(await waiting) == {"miss": 1} and time.monotonic() - begun < 2


async def test_max_age_and_no_cache_mean_what_they_say(server: ValkeyProcess, tmp_path: Path) -> None:
    async with scripted() as up, replicas(2, up, server, tmp_path) as two:
        await two[0].post(chat())
        up.default.wait_s = 0.2
        for control in ("max-age=0", "no-cache", "no-store"):
            await asyncio.sleep(0.05)
            before = len(up.calls)
            answers = await asyncio.gather(*(one.post(chat(), Cache_Control=control) for one in two))
            assert len(up.calls) == before + 2, control
            assert {one.status_code for one in answers} == {200}

        up.most_at_once = 0
        await asyncio.gather(*(one.post(chat("unkept"), x_farthing_ttl="0") for one in two))
        assert up.most_at_once == 2, "who will store nothing is not waited for"


async def test_a_purge_at_one_is_seen_by_all_within_the_bound(server: ValkeyProcess, tmp_path: Path) -> None:
    """Also by the short way of a hit, which asks nobody."""
    stale_s = 2.0
    async with scripted() as up, replicas(3, up, server, tmp_path, store__stale_s=stale_s) as three:
        assert how(*[await one.post(chat()) for one in three for _ in range(4)]) == {"miss": 1, "hit-exact": 11}
        assert len(three[2].services.relay.repeats) == 1
        path, own = "/farthing/api/cache/purge", {"x_farthing_admin": "1"}
        purged = await three[0].post({}, path, **own)
        begun = time.monotonic()
        assert purged.json()["purged"] == 1
        for one in three:
            while how(await one.post(chat(), Cache_Control="only-if-cached"))["hit-exact"]:
                assert time.monotonic() - begun < stale_s
                await asyncio.sleep(0.01)
        assert len(up.calls) == 1
