"""The semantic cache on the wire: it observes by default, serves only when told, and scopes are walls."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from farthing.cache.key import Place, Scope, neighbourhood
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, scripted

SERVE = {"semantic__mode": "serve", "semantic__unproven": True, "semantic__threshold": 0.85,
         "semantic__deadline_ms": 5000, "semantic__audit_daily_usd": 0}  # fmt: skip
ASK, AGAIN = "How do I reset my password?", "How can I reset my password?"


async def loaded(proxy: Proxied) -> None:
    for _ in range(500):
        thread = proxy.services.thread
        if thread is not None and thread.loaded:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the model did not load")


async def learnt(proxy: Proxied, count: int) -> None:
    for _ in range(200):
        if proxy.services.thread is not None and proxy.services.thread.entries >= count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the answer was not learnt")


def how(response: Any) -> str:
    return str(response.headers["x-farthing-cache"])


async def test_observing_serves_nothing_and_records_what_it_would_have_done(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, semantic__mode="observe") as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        up.default.wait_s = 0.3
        answer = await proxy.post(chat(AGAIN))
        row = (await proxy.rows(2))[1]

    assert (how(answer), len(up.calls)) == ("miss", 2)
    assert row["similarity"] > 0.9
    stage, action, reason = json.loads(row["decisions"])[0]
    assert (stage, action) == ("semantic", "observe")
    assert "score 0." in reason and "not proved: 0 labels" in reason
    assert (row["cost_usd"], row["saved_semantic_usd"]) == (row["baseline_usd"], 0)


async def test_a_huge_request_is_placed_beside_the_loop_and_as_a_small_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed_on: list[bool] = []

    def noted(scope: Scope, payload: dict[str, Any]) -> Place | str:
        placed_on.append(threading.current_thread() is threading.main_thread())
        return neighbourhood(scope, payload)

    monkeypatch.setattr("farthing.proxy.stage_semantic.neighbourhood", noted)
    policy = {"role": "system", "content": "Quote the policy. " * 5_000}
    async with scripted() as up, proxied(up.url, tmp_path, semantic__mode="observe") as proxy:
        await loaded(proxy)
        for number, system in enumerate(([], [policy])):
            await proxy.post({"model": "m", "messages": [*system, {"role": "user", "content": ASK}]})
            await learnt(proxy, number + 1)
            up.default.wait_s = 1.0  # a row doesn't wait long for a look that serves nobody
            await proxy.post({"model": "m", "messages": [*system, {"role": "user", "content": AGAIN}]})
            up.default.wait_s = 0.0
        rows = await proxy.rows(4)

    assert placed_on == [True, True, False, False]
    assert [row["similarity"] is not None and row["similarity"] > 0.9 for row in rows] == [False, True, False, True]


async def test_memory_is_bounded_by_its_setting(tmp_path: Path) -> None:
    async with (
        scripted() as up,
        proxied(up.url, tmp_path, semantic__mode="observe", semantic__max_bytes=3 * 2**20) as proxy,
    ):
        await loaded(proxy)
        assert await bound(proxy) == 3 * 2**20

        config = proxy.services.config
        wider = config.semantic.model_copy(update={"max_bytes": 5 * 2**20})
        await proxy.running.reload(config.model_copy(update={"semantic": wider}))
        proxy.services = proxy.running.services
        await loaded(proxy)
        assert await bound(proxy) == 5 * 2**20


async def bound(proxy: Proxied) -> int:
    thread = proxy.services.thread
    assert thread is not None
    return await thread.run(lambda cache: cache._max_bytes)


async def test_observing_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    async with scripted() as up, proxied(up.url, tmp_path, semantic__mode="observe") as proxy:
        await loaded(proxy)
        cache = proxy.services.thread
        assert cache is not None
        slow = type(cache._cache).lookup

        def lookup(*args: Any) -> Any:
            time.sleep(0.5)
            return slow(*args)

        monkeypatch.setattr(type(cache._cache), "lookup", lookup)
        begun = time.monotonic()
        await proxy.post(chat(ASK))
        assert time.monotonic() - begun < 0.4


async def test_serving_is_unproven_and_says_so_everywhere(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        first = await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        second = await proxy.post(chat(AGAIN))
        stream = await proxy.post(chat("How could I reset my password?", stream=True))
        rows = await proxy.rows(3)
        state = (await proxy.client.get("/readyz")).json()

    assert [how(answer) for answer in (first, second, stream)] == ["miss", "hit-semantic", "hit-semantic"]
    assert second.headers["x-farthing-bound"] == "unproven"
    assert 0.85 < float(second.headers["x-farthing-similarity"]) < 1
    assert second.json()["choices"] == first.json()["choices"]
    assert stream.text.rstrip().endswith("[DONE]")
    assert state["semantic"] == "serve unproven"
    assert (rows[1]["cache_reason"], rows[1]["saved_semantic_usd"]) == ("unproven", rows[0]["cost_usd"])
    assert len(up.calls) == 1


async def test_only_if_cached_takes_a_near_duplicate_too(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        assert how(await proxy.post(chat(AGAIN), Cache_Control="only-if-cached")) == "hit-semantic"
        assert (await proxy.post(chat("Who are you?"), Cache_Control="only-if-cached")).status_code == 504
    assert len(up.calls) == 1


async def test_an_answer_is_kept_while_its_look_up_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat that follows at once is a hit, not a reader of a flight that has ended."""
    async with scripted() as up, proxied(up.url, tmp_path, semantic__mode="observe") as proxy:
        await loaded(proxy)
        cache = proxy.services.thread
        assert cache is not None
        quick = type(cache._cache).lookup

        def lookup(*args: Any) -> Any:
            time.sleep(0.2)
            return quick(*args)

        monkeypatch.setattr(type(cache._cache), "lookup", lookup)
        assert [how(await proxy.post(chat(ASK))) for _ in range(2)] == ["miss", "hit-exact"]


@pytest.mark.parametrize(
    "other",
    [
        chat("How do I reset my PIN?"),
        chat("How do I not reset my password?"),
        chat("How do I reset my 2 passwords?"),
        chat("Wie setze ich mein Passwort zurück?"),
        chat(AGAIN) | {"model": "n"},
        chat(AGAIN) | {"temperature": 0.2},
        chat(AGAIN) | {"tools": []},
        chat(AGAIN) | {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": AGAIN}]},
        chat(AGAIN)
        | {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "y"},
                {"role": "user", "content": AGAIN},
            ]
        },
    ],
    ids=["name", "negation", "number", "language", "model", "sampling", "tools", "system", "turns"],
)
async def test_what_differs_is_a_miss(tmp_path: Path, other: dict[str, Any]) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        assert how(await proxy.post(other)) == "miss"


async def test_tenants_controls_and_purges_are_walls(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        assert how(await proxy.post(chat(AGAIN), Authorization="Bearer sk-two", Cache_Control="no-store")) == "bypass"
        assert how(await proxy.post(chat(AGAIN), Authorization="Bearer sk-three")) == "miss"
        assert how(await proxy.post(chat("How may I reset my password?"), x_farthing_cache="exact")) == "miss"
        assert how(await proxy.post(chat(AGAIN), x_farthing_scope="mine")) == "miss"
        await proxy.client.post("/farthing/api/cache/purge", json={}, headers={"x-farthing-admin": "1"})
        assert how(await proxy.post(chat(AGAIN))) == "miss"


async def test_the_index_survives_a_restart(tmp_path: Path) -> None:
    async with scripted() as up:
        async with proxied(up.url, tmp_path, **SERVE) as proxy:
            await loaded(proxy)
            await proxy.post(chat(ASK))
            await learnt(proxy, 1)
        async with proxied(up.url, tmp_path, **SERVE) as proxy:
            await loaded(proxy)
            assert how(await proxy.post(chat(AGAIN))) == "hit-semantic"


async def test_an_error_is_never_learnt(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE, upstream__retries=0) as proxy:
        await loaded(proxy)
        up.script(Script(status=500))
        await proxy.post(chat(ASK))
        assert how(await proxy.post(chat(AGAIN))) == "miss"


async def test_a_missing_model_turns_the_stage_off_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, semantic__mode="observe", semantic__model="none") as proxy:
        await asyncio.sleep(0.2)
        assert [how(await proxy.post(chat(ASK))) for _ in range(2)] == ["miss", "hit-exact"]
        assert (await proxy.client.get("/readyz")).json()["semantic_ready"] is False
    assert capsys.readouterr().out.count("semantic cache is off") == 1


async def test_a_reload_from_observe_to_serve_keeps_what_was_learnt(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, semantic__mode="observe", semantic__threshold=0.85) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        config = proxy.services.config
        serving = config.semantic.model_copy(update={"mode": "serve", "unproven": True, "deadline_ms": 5000})
        await proxy.running.reload(config.model_copy(update={"semantic": serving}))
        proxy.services = proxy.running.services
        await loaded(proxy)
        assert how(await proxy.post(chat(AGAIN))) == "hit-semantic"


async def test_a_refused_credential_and_a_stale_answer_get_no_semantic_hit(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        await asyncio.sleep(0.05)
        assert how(await proxy.post(chat(AGAIN), Cache_Control="max-age=0")) == "miss"
        up.script(Script(status=401))
        await proxy.post(chat("something else entirely"), x_farthing_cache="exact")
        assert how(await proxy.post(chat("How could I reset my password?"))) == "miss"


async def test_who_joins_a_near_duplicates_answer_is_told_so_and_saves_as_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        await proxy.post(chat(ASK))
        await learnt(proxy, 1)
        thread = proxy.services.thread
        assert thread is not None
        look_up = type(thread).lookup

        async def slow(*args: Any) -> Any:
            await asyncio.sleep(0.3)
            return await look_up(*args)

        monkeypatch.setattr(type(thread), "lookup", slow)
        answers = await asyncio.gather(*(proxy.post(chat(AGAIN)) for _ in range(3)))
        rows = await proxy.rows(4)

    assert sorted(how(answer) for answer in answers) == ["hit-semantic", "joined", "joined"]
    assert {answer.headers["x-farthing-bound"] for answer in answers} == {"unproven"}
    assert [row["saved_semantic_usd"] for row in rows[1:]] == [rows[0]["cost_usd"]] * 3
    assert {row["cache_reason"] for row in rows[1:]} == {"unproven"}


async def test_where_the_model_does_not_load_no_miss_waits_for_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside: list[str] = []

    async def to_thread(call: Any, *given: Any, **named: Any) -> Any:
        aside.append(getattr(call, "__qualname__", ""))
        return await asyncio.get_running_loop().run_in_executor(None, lambda: call(*given, **named))

    async with scripted() as up, proxied(up.url, tmp_path, semantic__mode="observe", semantic__model="nosuch") as proxy:
        thread = proxy.services.thread
        assert thread is not None
        async with asyncio.timeout(20):
            while thread.loading:
                await asyncio.sleep(0.02)
        monkeypatch.setattr(asyncio, "to_thread", to_thread)
        answer = await proxy.post(chat(ASK))
        (row,) = await proxy.rows(1)

    assert (how(answer), json.loads(row["decisions"])[0]) == (
        "miss",
        ["semantic", "passed by", "busy or not loaded yet"],
    )
    assert "Places.refusal" not in aside
