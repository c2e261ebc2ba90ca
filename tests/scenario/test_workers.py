"""Several workers on one machine, as processes: what is shared, and what a death, a restart or a purge costs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.fakes.crew import Crew, ask, crew_of
from tests.fakes.upstream import scripted
from tests.fakes.valkey import running_valkey
from tests.scenario.test_serve import serving

PRICES = "[prices.models.m]\ninput_usd_per_mtok = 2\ncached_usd_per_mtok = 1\noutput_usd_per_mtok = 8\n"


async def until(true: Callable[[], bool | Awaitable[bool]], within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while True:
        found = true()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def test_connections_are_spread_and_totals_are_everybodys(tmp_path: Path) -> None:
    async with scripted() as up, crew_of(3, up, tmp_path) as crew:
        clients = [crew.fresh() for _ in range(30)]
        try:
            turns = 0
            while turns < 5 or spread_of(crew) > 2:  # at once where the machine is idle; else who has more ends some
                answers = await asyncio.gather(*(ask(one, f"{at} {turns}") for at, one in enumerate(clients)))
                assert {one.status_code for one in answers} == {200}
                turns += 1
                await asyncio.sleep(0.05)
            asked = 30 * turns
            await until(lambda: crew.rows() == asked)
            seen = [await crew.metric("farthing_requests_total", one) for one in clients[:9]]
            in_flight = await crew.metric("farthing_in_flight_requests")
        finally:
            for one in clients:
                await one.aclose()

        assert set(seen) == {asked}
        assert in_flight == 0
        assert len(up.calls) == asked
        assert await crew.metric("farthing_tokens_total") == crew.rows(
            "sum(tokens_in_original + tokens_in_sent + tokens_out + coalesce(tokens_in_cached, 0))"
        )


async def test_an_answer_of_one_is_everybodys_as_are_a_purge_and_a_flight(tmp_path: Path) -> None:
    settings = {"FARTHING_STORE__DEADLINE_MS": "5000"}  # a busy machine is no reason to ask twice
    async with scripted() as up, crew_of(2, up, tmp_path, **settings) as crew:
        async with crew.fresh() as client:
            for number in range(8):
                assert (await ask(client, f"stored {number}")).status_code == 200
        await asyncio.sleep(0.5)
        clients = await crew.spread(4)
        hits = [(await ask(one, f"stored {at}")).headers["x-farthing-cache"] for one in clients for at in range(8)]
        assert hits == ["hit-exact"] * 32 and len(up.calls) == 8

        purged = await crew.admin("cache/purge")
        again = [(await ask(one, f"stored {at}")).headers["x-farthing-cache"] for at, one in enumerate(clients)]
        assert purged.json()["purged"] == 8, purged.text
        assert again == ["miss"] * 4

        asked, up.default.wait_s = len(up.calls), 0.5
        clients += [crew.fresh() for _ in range(20)]
        answers = await asyncio.gather(*(ask(one, "of all at once") for one in clients))
        spread = crew.connections()
        assert min(spread[0], spread[1]) > 0 and len(up.calls) == asked + 1
        assert {one.headers["x-farthing-cache"] for one in answers} == {"miss", "joined"}


async def all_say(clients: list[httpx.AsyncClient], status: str) -> bool:
    """Whether each of them has that status for what all ask."""
    said = await asyncio.gather(*(ask(one, "the same") for one in clients))
    return {one.headers["x-farthing-cache"] for one in said} == {status}


async def test_the_switch_reaches_every_worker(tmp_path: Path) -> None:
    async with scripted() as up, crew_of(2, up, tmp_path) as crew:
        clients = await crew.spread(6)
        for one in clients:
            await ask(one, "the same")
        await crew.admin("policy/off")
        await until(lambda: all_say(clients, "bypass"))
        await crew.admin("policy/on")
        await until(lambda: all_say(clients, "hit-exact"))


def spread_of(crew: Crew) -> int:
    """By how many connections the workers differ."""
    counts = crew.connections()
    return max(counts.values()) - min(counts.values())


async def keep_asking(crew: Crew, name: int, ended: asyncio.Event, retries: int) -> tuple[int, int]:
    """Ask until told to stop: how many answers came, and how many tries failed. A try that fails is made again."""
    answers = failed = 0
    async with crew.fresh() as client:
        while not ended.is_set():
            for left in range(retries, -1, -1):
                try:
                    answer = await ask(client, f"{name} {answers}")
                except httpx.TransportError:
                    failed += 1
                    if not left:
                        raise
                    await asyncio.sleep(0.05)
                    continue
                assert answer.status_code == 200, answer.text
                break
            answers += 1
    return answers, failed


async def test_a_worker_that_is_killed_costs_what_it_had_under_way_and_comes_back(tmp_path: Path) -> None:
    async with scripted() as up, crew_of(2, up, tmp_path) as crew:
        up.default.wait_s = 0.02
        ended, totals = asyncio.Event(), list[float]()
        asking = [asyncio.create_task(keep_asking(crew, name, ended, retries=2)) for name in range(8)]
        try:
            for slot in (1, 0):
                totals.append(await crew.metric("farthing_requests_total"))
                await asyncio.sleep(1.0)
                before = crew.workers()
                os.kill(before[slot], signal.SIGKILL)
                for _ in range(10):
                    async with crew.fresh() as client:
                        totals.append(await crew.metric("farthing_requests_total", client))
                    await asyncio.sleep(0.05)
                await until(lambda before=before: set(crew.workers()) == {0, 1} and crew.workers() != before)
                await until(lambda: spread_of(crew) <= 4)  # those who fled to the other one come back
        finally:
            ended.set()
            counts = await asyncio.gather(*asking)
        said = await crew.logged("a worker ended; another one follows", 2)
        await asyncio.sleep(1.5)
        answers, failed = (sum(part) for part in zip(*counts, strict=True))

        assert totals == sorted(totals)
        assert [(line["slot"], line["status"]) for line in said] == [(1, -9), (0, -9)]
        assert failed <= 12, "no more tries failed than there were connections to the two that were killed"
        assert answers > 50
        assert answers - 20 <= crew.rows("sum(outcome = 'completed')"), "rows of the last moment before a kill are lost"
        assert await crew.metric("farthing_requests_total") <= crew.rows() + 1


async def test_a_rolling_restart_loses_no_request(tmp_path: Path) -> None:
    async with scripted() as up, crew_of(2, up, tmp_path) as crew:
        up.default.wait_s = 0.01
        ended, before = asyncio.Event(), crew.workers()
        asking = [asyncio.create_task(keep_asking(crew, name, ended, retries=0)) for name in range(8)]
        await asyncio.sleep(0.5)
        total = await crew.metric("farthing_requests_total")
        crew.child.send_signal(signal.SIGHUP)
        await crew.logged("workers are replaced")
        await asyncio.sleep(0.5)
        ended.set()
        counts = await asyncio.gather(*asking)
        answers = sum(answers for answers, _ in counts)
        await until(lambda: crew.rows() == answers)

        assert set(crew.workers()) == {0, 1} and not set(crew.workers().values()) & set(before.values())
        assert answers > total and len(up.calls) == answers
        assert await crew.metric("farthing_requests_total") == answers
        assert not [line for line in crew.log() if line["level"] == "error"]


async def test_a_bad_configuration_leaves_the_old_workers(tmp_path: Path) -> None:
    config = tmp_path / "farthing.toml"
    config.write_text("cache.ttl_s = 100\n")
    async with scripted() as up, crew_of(2, up, tmp_path, "--config", str(config)) as crew:
        before = crew.workers()
        config.write_text("cache.tll_s = 100\n")
        crew.child.send_signal(signal.SIGHUP)
        said = await crew.logged("the new configuration is bad; the old workers stay")
        assert "ttl_s" in said[0]["fault"]
        # one that only its use shows to be bad
        config.write_text(f"[server]\ntls_cert = '{tmp_path}/none.pem'\ntls_key = '{tmp_path}/none.pem'\n")
        crew.child.send_signal(signal.SIGHUP)
        await crew.logged("a new worker can't answer; the old ones stay")

        assert crew.workers() == before
        assert (await ask(crew.client, "hi")).status_code == 200


async def test_a_budget_is_exact_over_all_workers(tmp_path: Path) -> None:
    config = tmp_path / "farthing.toml"
    budget = '[[budgets]]\nname = "all"\nusd = "0.002"\nper = "day"\n'
    config.write_text(PRICES + budget)
    async with scripted() as up, crew_of(2, up, tmp_path, "--config", str(config)) as crew:
        clients = await crew.spread(20)
        answers = await asyncio.gather(
            *(ask(clients[number % 20], f"{number}", max_tokens=20) for number in range(300))
        )
        codes = [one.status_code for one in answers]
        await until(lambda: crew.rows() == 300)
        spent = crew.rows("sum(cost_usd)")
        told = (await crew.client.get("/farthing/api/budgets")).json()

        assert set(codes) == {200, 402}
        assert 0 < spent <= 0.002 * 10**12
        assert told["budgets"][0]["subjects"][0]["spent_usd"] == pytest.approx(spent / 10**12)
        assert told["budgets"][0]["subjects"][0]["held_usd"] == 0
        assert len(up.calls) == codes.count(200)


async def test_over_one_redis_workers_are_one_farthing(tmp_path: Path) -> None:
    config = tmp_path / "farthing.toml"
    config.write_text(PRICES + '[[budgets]]\nname = "all"\nusd = "0.002"\nper = "day"\n')
    with running_valkey() as url:
        # A hard budget refuses where the store takes longer than its deadline, as it may on a busy machine.
        settings = {
            "FARTHING_STORE__URL": url,
            "FARTHING_STORE__DEADLINE_MS": "5000",
            "FARTHING_SPEND__DEADLINE_MS": "5000",
        }
        async with (
            scripted() as up,
            crew_of(2, up, tmp_path, "--config", str(config), **settings) as crew,
        ):
            clients = await crew.spread(12)
            for number in range(8):
                assert (await ask(clients[0], f"stored {number}", max_tokens=20)).status_code == 200
            both = [await ask(one, f"stored {at % 8}", max_tokens=20) for at, one in enumerate(clients)]
            assert {one.headers["x-farthing-cache"] for one in both} == {"hit-exact"} and len(up.calls) == 8

            answers = await asyncio.gather(
                *(ask(clients[number % 12], f"{number}", max_tokens=20) for number in range(300))
            )
            codes = [one.status_code for one in answers]
            asked = 8 + 12 + 300
            await until(lambda: crew.rows() == asked)
            spent = crew.rows("sum(cost_usd)")

            async def settled() -> bool:
                told = [(await one.get("/farthing/api/budgets")).json()["budgets"][0]["subjects"][0] for one in clients]
                return all(one["held_usd"] == 0 and one["spent_usd"] == pytest.approx(spent / 10**12) for one in told)

            await until(settled)
            seen = {await crew.metric("farthing_requests_total", one) for one in clients}
            priced = [await crew.metric("farthing_cost_usd_total", one) for one in clients]

    assert set(codes) == {200, 402} and len(up.calls) == 8 + codes.count(200)
    assert 0 < spent <= 0.002 * 10**12
    assert seen == {asked}
    assert priced == [pytest.approx(spent / 10**12)] * 12


async def test_limits_on_requests_under_way_are_the_machines(tmp_path: Path) -> None:
    async with scripted() as up:
        up.default.wait_s = 0.5
        limits = {"FARTHING_UPSTREAM__MAX_IN_FLIGHT": "3", "FARTHING_LIMITS__MAX_IN_FLIGHT": "7"}
        async with crew_of(2, up, tmp_path, FARTHING_UPSTREAM__RETRIES="0", **limits) as crew:
            clients = await crew.spread(16)
            told = Counter[str]()
            for _ in range(3):
                answers = await asyncio.gather(*(ask(one, f"{at}") for at, one in enumerate(clients)))
                told += Counter(one.json().get("error", {}).get("code", "") for one in answers)
                up.calls.clear()
                await crew.admin("cache/purge")

    assert up.most_at_once == 3, told
    assert set(told) == {"", "upstream_busy", "too_many_requests"}
    assert 3 <= told[""] <= 9


async def test_the_daily_limit_counts_what_all_workers_spend(tmp_path: Path) -> None:
    config = tmp_path / "farthing.toml"
    config.write_text(PRICES + '[spend]\ndaily_usd = "0.0005"\n')
    async with scripted() as up, crew_of(2, up, tmp_path, "--config", str(config)) as crew:
        clients = await crew.spread(4)
        codes = [(await ask(clients[number % 4], f"{number}")).status_code for number in range(60)]
        limited = codes.index(402)
        await until(lambda: crew.rows() == 60)
        spent = [await crew.metric("farthing_spend_today_usd") for _ in range(3)]

        assert codes == [200] * limited + [402] * (60 - limited), "whichever worker is asked"
        assert spent == [pytest.approx(crew.rows("sum(cost_usd)") / 10**12)] * 3


async def test_a_promotion_reaches_every_worker(tmp_path: Path) -> None:
    async with scripted() as up, crew_of(2, up, tmp_path) as crew:
        clients = await crew.spread(6)
        for one in clients:
            await ask(one, "the same")
        promoted = await crew.admin("policy/promote", sections={"cache": {"mode": "off"}}, now=True)
        assert promoted.status_code == 200, promoted.text
        await until(lambda: all_say(clients, "bypass"))
        told = {(await one.get("/farthing/api/policy")).json()["active"]["version"] for one in clients}
        back = await crew.admin("policy/rollback")
        assert back.status_code == 200, back.text
        await until(lambda: all_say(clients, "hit-exact"))

        assert told == {promoted.json()["active"]["version"]}


async def test_a_rollback_reaches_every_worker_though_nothing_can_be_written(tmp_path: Path) -> None:
    """A disk that fails is a bad moment for half of the workers to keep a candidate that somebody took back."""
    async with scripted() as up, crew_of(2, up, tmp_path) as crew:
        clients = await crew.spread(6)

        async def versions() -> list[set[str]]:
            """That answer each client."""
            said = [[ask(one, f"{number}") for number in range(8)] for one in clients]
            return [{one.headers["x-farthing-policy"] for one in await asyncio.gather(*each)} for each in said]

        asked = {"sections": {"cache": {"mode": "off"}}, "steps": [0.5, 1], "hold_s": 600}
        begun = (await crew.admin("policy/promote", **asked)).json()
        both = {begun["active"]["version"], begun["candidate"]["version"]}
        await until(lambda: every(versions, both))
        folder = tmp_path / "state" / "policies"
        folder.rename(tmp_path / "elsewhere")
        folder.write_text("no folder")
        assert (await crew.admin("policy/rollback")).status_code == 200
        await asyncio.sleep(0.5)
        assert await versions() == [{begun["active"]["version"]}] * 6


async def every(versions: Callable[[], Awaitable[list[set[str]]]], wanted: set[str]) -> bool:
    return all(found == wanted for found in await versions())


async def test_sigterm_drains_all_and_nobody_outlives_the_supervisor(tmp_path: Path) -> None:
    async with scripted() as up, crew_of(2, up, tmp_path) as crew:
        up.default.wait_s = 0.5
        clients = await crew.spread(6)
        under_way = [asyncio.create_task(ask(one, f"{at}")) for at, one in enumerate(clients)]
        while len(up.calls) < 6:
            await asyncio.sleep(0.01)
        crew.child.send_signal(signal.SIGTERM)
        assert [one.status_code for one in await asyncio.gather(*under_way)] == [200] * 6
        assert await crew.child.wait() == 0
        assert crew.rows() == 6

    async with scripted() as up, crew_of(2, up, tmp_path) as crew:
        pids = crew.workers().values()
        crew.child.kill()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


async def test_admin_calls_do_the_same_whichever_worker_takes_them(tmp_path: Path) -> None:
    config = tmp_path / "farthing.toml"
    async with scripted() as up, scripted() as other:
        config.write_text(f'[upstream]\nreplicas = ["{up.url}", "{other.url}"]\n')
        async with crew_of(2, up, tmp_path, "--config", str(config), FARTHING_UPSTREAM="") as crew:
            clients = await crew.spread(6)
            asked = [await ask(one, f"{at}", user="u-1") for at, one in enumerate(clients)]
            for path in ("policy", "experiments", "watch", "levels", "budgets", "replicas", "incidents"):
                same = path in ("policy", "watch", "levels", "budgets")
                for _ in range(100):  # what the six requests left behind may still be on its way
                    found = [await one.get(f"/farthing/api/{path}") for one in clients]
                    assert {one.status_code for one in found} == {200}, path
                    if not same or len({one.text for one in found}) == 1:
                        break
                    await asyncio.sleep(0.1)
                else:
                    raise AssertionError(path)

            await until(lambda: crew.rows() == 6)
            rated = [
                await one.post(
                    "/farthing/api/feedback",
                    json={"id": asked[at].headers["x-farthing-id"], "rating": "bad"},
                    headers={"x-farthing-admin": "1"},
                )
                for at, one in enumerate(clients)
            ]
            assert [one.json() for one in rated] == [{"kept": True, "known": True, "purged": 1}] * 6, rated[0].text
            nonsense = await crew.admin("policy/promote", version="p-nothing")
            assert (nonsense.status_code, nonsense.json()["error"]["code"]) == (404, "unknown_version")

            name = (await crew.client.get("/farthing/api/replicas")).json()["replicas"][0]["name"]
            drained = await crew.admin("replicas/drain", replica=name)
            assert drained.status_code == 200, drained.text
            crew.child.send_signal(signal.SIGHUP)
            await crew.logged("workers are replaced")
            for one in clients:
                await one.aclose()
            up.calls.clear(), other.calls.clear()
            clients = await crew.spread(6)
            for at, one in enumerate(clients):
                await ask(one, f"after {at}")
                await one.aclose()
            assert sorted([len(up.calls), len(other.calls)]) == [0, 6], "also in those that came after it was drained"


async def test_told_to_stop_while_it_starts_it_stops(tmp_path: Path) -> None:
    async with scripted() as up, serving(up, tmp_path, "--workers", "3") as (child, client):
        child.send_signal(signal.SIGTERM)
        assert await child.wait() == 0
        with pytest.raises(httpx.ConnectError):
            await client.get("/healthz")
