"""Several replicas behind one upstream, each a real server that does as it is told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.clock import FakeClock
from tests.fakes.fleet import PLAIN, Fleet, ask, before, on
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.wire.test_failures import until


class TestReplicas:
    async def test_share_the_work_and_the_ledger_says_which(self, fleet: Fleet, tmp_path: Path) -> None:
        async with before(fleet, tmp_path) as proxy:
            assert await ask(proxy, 40) == {200: 40}
            rows = await proxy.rows(40)

        assert min(fleet.calls) >= 10
        assert Counter(row["upstream"] for row in rows) == {
            f"default/{fleet.name(at)}": calls for at, calls in enumerate(fleet.calls)
        }
        assert {json.loads(row["attempts_detail"])[0]["upstream"] for row in rows} == {row["upstream"] for row in rows}

    async def test_one_that_is_killed_under_load_costs_no_request_that_another_could_serve(
        self, fleet: Fleet, tmp_path: Path
    ) -> None:
        for up in fleet.ups:
            up.default = Script(wait_s=0.005)
        async with before(fleet, tmp_path, upstream__retry_after_send=True) as proxy:
            load_on = asyncio.ensure_future(ask(proxy, 200))
            await until(lambda: fleet.calls[0] > 20)
            await fleet.kill(0)
            statuses = await load_on
            rows = await proxy.rows(200)

            assert statuses == {200: 200}
            assert on(proxy, fleet.name(0))["circuit"] == "open"
        served = Counter(row["upstream"] for row in rows)
        assert served[f"default/{fleet.name(1)}"] > served[f"default/{fleet.name(0)}"]

    async def test_without_leave_to_repeat_only_what_was_under_way_there_fails(
        self, fleet: Fleet, tmp_path: Path
    ) -> None:
        fleet.ups[0].default = Script(hang=True)
        async with before(fleet, tmp_path) as proxy:
            load_on = asyncio.ensure_future(ask(proxy, 60))
            await until(lambda: fleet.ups[0].at_once >= 4 and fleet.calls[1] > 0)
            await asyncio.sleep(0.05)
            await fleet.kill(0)
            statuses = await load_on

        assert statuses == {200: 60 - fleet.calls[0], 502: fleet.calls[0]}

    @pytest.mark.parametrize("off", ["0", "1"])
    async def test_one_that_can_not_be_reached_is_passed_by_without_counting_as_a_retry(
        self, fleet: Fleet, tmp_path: Path, off: str
    ) -> None:
        await fleet.kill(0)
        async with before(fleet, tmp_path, upstream__retries=0) as proxy:
            statuses = await ask(proxy, 30, 1, **({"x_farthing_off": "1"} if off == "1" else {}))
            rows = await proxy.rows(30)

            assert statuses == {200: 30}
            assert on(proxy, fleet.name(0))["circuit"] == "open"
        assert sum(row["attempts"] - 1 for row in rows) == 5  # then its circuit is open

    async def test_an_answer_that_is_the_servers_fault_is_asked_for_elsewhere_at_once(
        self, fleet: Fleet, tmp_path: Path
    ) -> None:
        fleet.ups[0].default = Script(status=503, headers={"Retry-After": "60"})
        async with before(fleet, tmp_path, upstream__breaker_failures=0) as proxy:
            assert await ask(proxy, 30, 1) == {200: 30}
            rows = await proxy.rows(30)

        twice = [json.loads(row["attempts_detail"]) for row in rows if row["attempts"] == 2]
        assert len(twice) == fleet.calls[0] > 5
        assert {(one["status"], two["status"], one.get("backoff_ms", 0)) for one, two in twice} == {(503, 200, 0)}

    async def test_a_slow_one_gets_less(self, fleet: Fleet, tmp_path: Path) -> None:
        fleet.ups[0].default = Script(wait_s=0.25)
        async with before(fleet, tmp_path) as proxy:
            assert await ask(proxy, 60, 6) == {200: 60}

        assert fleet.calls[0] < fleet.calls[1] / 2

    async def test_all_down_is_told_with_a_time_and_one_that_comes_back_is_found(
        self, fleet: Fleet, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        for up in fleet.ups:
            up.default = Script(status=500)
        async with before(
            fleet, tmp_path, clock=clock, upstream__retries=0, upstream__breaker_failures=2, upstream__breaker_pause_s=7
        ) as proxy:
            assert (await ask(proxy, 12, 1))[500] == 4
            answer = await proxy.post(chat("again"))
            calls = sum(fleet.calls)

            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.json()["error"]["code"] == "upstream_down"
            assert answer.json()["error"]["type"] == "upstream_error"
            assert calls == 4
            for up in fleet.ups:
                up.default = Script()
            clock.advance(1)  # not the whole pause: there is nowhere else to go
            assert await ask(proxy, 20, 4) == {200: 20}
            clock.advance(6)
            assert await ask(proxy, 20, 4) == {200: 20}
            assert {told["circuit"] for told in proxy.services.pool.told()} == {"closed"}

    async def test_full_ones_refuse_with_429(self, fleet: Fleet, tmp_path: Path) -> None:
        for up in fleet.ups:
            up.default = Script(hang=True)
        async with before(fleet, tmp_path, upstream__max_in_flight=2, upstream__retries=0) as proxy:
            hanging = asyncio.ensure_future(ask(proxy, 4))
            await until(lambda: fleet.calls == [2, 2])
            answer = await proxy.post(chat("one more"))

            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert answer.json()["error"]["code"] == "upstream_busy"
            assert (await proxy.rows(1))[0]["status"] == 429
            assert fleet.calls == [2, 2]
            hanging.cancel()
            await until(lambda: not any(told["in_flight"] for told in proxy.services.pool.told()))

    async def test_a_client_that_leaves_gives_its_place_and_its_probe_back(self, fleet: Fleet, tmp_path: Path) -> None:
        await fleet.kill(1)
        clock = FakeClock()
        async with before(
            fleet, tmp_path, clock=clock, upstream__retries=0, upstream__breaker_failures=1, upstream__breaker_pause_s=5
        ) as proxy:
            fleet.ups[0].script(Script(status=500))
            await ask(proxy, 1)
            await ask(proxy, 1)
            assert {told["circuit"] for told in proxy.services.pool.told()} == {"open"}
            clock.advance(5)
            fleet.ups[0].default = Script(hang=True)
            for _ in range(2):  # one of both finds that the other replica can't be reached
                leaving = asyncio.ensure_future(ask(proxy, 1))
                await until(lambda: on(proxy, fleet.name(0))["in_flight"] == 1)
                leaving.cancel()
                await until(lambda: on(proxy, fleet.name(0))["in_flight"] == 0)

            assert on(proxy, fleet.name(0))["circuit"] == "half-open"

    async def test_a_single_address_is_never_left_out_unless_asked(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        up.default = Script(status=500)
        async with proxied(up.url, tmp_path, **PLAIN, upstream__retries=0) as proxy:
            assert await ask(proxy, 20, 1) == {500: 20}
        async with proxied(
            up.url, tmp_path / "asked", **PLAIN, upstream__retries=0, upstream__breaker_failures=3
        ) as proxy:
            assert await ask(proxy, 20, 1) == {500: 3, 503: 17}

        assert len(up.calls) == 23


class TestProbes:
    async def test_take_a_replica_out_and_put_it_back(self, fleet: Fleet, tmp_path: Path) -> None:
        async with before(fleet, tmp_path, upstream__health_path="/health", upstream__health_every_s=0.02) as proxy:
            fleet.ups[0].default = Script(status=503)
            await until(lambda: not on(proxy, fleet.name(0))["healthy"])
            asked = [call.path for call in fleet.ups[0].calls]
            assert await ask(proxy, 10) == {200: 10}
            assert set(asked) | {call.path for call in fleet.ups[0].calls} == {"/health"}
            assert not [call for call in fleet.ups[0].calls if "Authorization" in call.headers]
            fleet.ups[0].default = Script()
            await until(lambda: on(proxy, fleet.name(0))["healthy"])

    async def test_that_fail_everywhere_are_not_believed(self, fleet: Fleet, tmp_path: Path) -> None:
        for up in fleet.ups:
            up.default, up.by_text = Script(status=404), {"question": Script()}
        async with before(fleet, tmp_path, upstream__health_path="/wrong", upstream__health_every_s=0.02) as proxy:
            await until(lambda: not any(told["healthy"] for told in proxy.services.pool.told()))
            assert await ask(proxy, 6) == {200: 6}

    async def test_close_an_open_circuit_without_risking_a_request(self, fleet: Fleet, tmp_path: Path) -> None:
        async with before(
            fleet,
            tmp_path,
            upstream__health_path="/health",
            upstream__health_every_s=0.02,
            upstream__breaker_failures=1,
            upstream__breaker_pause_s=0.05,
        ) as proxy:
            fleet.ups[0].by_text = {"question": Script(status=500)}
            for number in range(40):
                await proxy.post(chat(f"question {number}"))
                if on(proxy, fleet.name(0))["circuit"] != "closed":
                    break
            asked = sum(call.path != "/health" for call in fleet.ups[0].calls)
            await until(lambda: on(proxy, fleet.name(0))["circuit"] == "closed")

            assert sum(call.path != "/health" for call in fleet.ups[0].calls) == asked == 1


class TestDraining:
    async def test_by_an_admin_call_drops_nothing(self, fleet: Fleet, tmp_path: Path) -> None:
        for up in fleet.ups:
            up.default = Script(wait_s=0.02)
        async with before(fleet, tmp_path) as proxy:
            load_on = asyncio.ensure_future(ask(proxy, 100))
            await until(lambda: fleet.calls[0] > 10)
            answer = await drain(proxy, replica=fleet.name(0))
            most = fleet.calls[0] + on(proxy, fleet.name(0))["in_flight"]  # what is on its way there still arrives
            assert await load_on == {200: 100}

            assert answer.status_code == 200
            assert on(proxy, fleet.name(0)) | {"keys": []} == {
                "upstream": "default",
                "name": fleet.name(0),
                "healthy": True,
                "circuit": "closed",
                "draining": True,
                "in_flight": 0,
                "keys": [],
            }
            assert fleet.calls[0] <= most
            await drain(proxy, replica=fleet.name(0), drain=False)
            calls = fleet.calls[0]
            await ask(proxy, 20)
            assert fleet.calls[0] > calls

    async def test_by_reading_the_configuration_again_drops_nothing(self, fleet: Fleet, tmp_path: Path) -> None:
        for up in fleet.ups:
            up.default = Script(wait_s=0.02)
        async with before(fleet, tmp_path) as proxy:
            kept = proxy.running.services.pool.find(fleet.name(1))
            load_on = asyncio.ensure_future(ask(proxy, 100))
            await until(lambda: fleet.calls[0] > 10)
            config = proxy.services.config
            fewer = config.upstream.model_copy(update={"replicas": (fleet.urls[1],), "url": fleet.urls[1]})
            await proxy.running.reload(config.model_copy(update={"upstream": fewer}))
            most = fleet.calls[0] + on(proxy, fleet.name(0))["in_flight"]  # of the pool before

            assert await load_on == {200: 100}
            assert proxy.running.services.pool.replicas == (kept,)
        assert fleet.calls[0] <= most

    @pytest.mark.parametrize(
        ("asked", "status"), [({"replica": "elsewhere:1"}, 404), ({}, 400), ({"replica": "x", "drain": "yes"}, 400)]
    )
    async def test_of_what_is_not_there_is_refused(self, proxy: Proxied, asked: dict[str, Any], status: int) -> None:
        assert (await drain(proxy, **asked)).status_code == status

    async def test_of_all_is_told(self, proxy: Proxied, up: ScriptedUpstream) -> None:
        await drain(proxy, replica=up.url.removeprefix("http://").removesuffix("/v1"))
        answer = await proxy.post(chat(), x_farthing_off="1")

        assert (answer.status_code, "draining" in answer.text) == (503, True)


async def test_a_machine_that_two_upstreams_name_is_drained_in_both(fleet: Fleet, tmp_path: Path) -> None:
    other = {"name": "other", "url": fleet.urls[0].replace("/v1", "/other/v1")}
    async with proxied(fleet.urls[0], tmp_path, **PLAIN, upstreams=[other]) as proxy:
        for wanted in (True, False):
            told = (await drain(proxy, replica=fleet.name(0), drain=wanted)).json()["replicas"]
            assert [(one["name"], one["draining"]) for one in told] == [(fleet.name(0), wanted)] * 2


async def drain(proxy: Proxied, **asked: Any) -> Any:
    return await proxy.client.post("/farthing/api/replicas/drain", json=asked, headers={"x-farthing-admin": "1"})


async def test_screens_and_metrics_show_the_replicas_and_no_password(fleet: Fleet, tmp_path: Path) -> None:
    urls = [url.replace("://", "://user:hunter2@") for url in fleet.urls]
    fleet.ups[0].default = Script(status=500)
    async with proxied(
        urls[0], tmp_path, **PLAIN, upstream__replicas=urls, upstream__breaker_failures=1, upstream__api_keys=["sk-a"]
    ) as proxy:
        await ask(proxy, 12)
        ready = (await proxy.client.get("/readyz")).json()
        told = (await proxy.client.get("/farthing/api/replicas")).json()
        metrics = (await proxy.client.get("/metrics")).text

    assert ready["status"] == "ready"
    assert [one["name"] for one in ready["replicas"]] == [fleet.name(0), fleet.name(1)]
    assert [one["circuit"] for one in told["replicas"]] == ["open", "closed"]
    bad, good = (f'{{replica="{fleet.name(at)}",upstream="default"}}' for at in (0, 1))
    assert f"farthing_replica_healthy{bad} 0.0" in metrics
    assert f"farthing_replica_healthy{good} 1.0" in metrics
    assert f"farthing_replica_circuit_open{bad} 1.0" in metrics
    assert f"farthing_replica_in_flight{good} 0.0" in metrics
    assert "hunter2" not in json.dumps([ready, told]) + metrics
    assert "sk-a" not in json.dumps([ready, told]) + metrics
