"""Which key and which replica an attempt gets: rate limits as answers tell them, and prompts that are cached."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from farthing.proxy.clock import FakeClock
from tests.fakes.fleet import PLAIN, Fleet, ask, before
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.wire.test_failures import until


class TestKeys:
    async def test_one_that_is_refused_for_its_rate_rests_as_long_as_was_asked(
        self, up: ScriptedUpstream, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        async with proxied(
            up.url, tmp_path, clock=clock, **PLAIN, upstream__api_keys=["sk-a", "sk-b", "sk-c"]
        ) as proxy:
            up.script(Script(status=429, headers={"Retry-After": "30"}))
            assert await ask(proxy, 30, 1) == {200: 30}
            bad = shown(up)[0]

            assert shown(up).count(bad) == 1
            assert set(shown(up)) == {"Bearer sk-a", "Bearer sk-b", "Bearer sk-c"}
            clock.advance(31)
            assert await ask(proxy, 30, 1) == {200: 30}
            assert shown(up).count(bad) > 1
            rows = await proxy.rows(60)
            assert {row["upstream"] for row in rows} == {"default#1", "default#2", "default#3"}
            assert "sk-" not in json.dumps(rows)

    async def test_all_at_their_limits_is_told_before_anything_is_sent(
        self, up: ScriptedUpstream, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        async with proxied(up.url, tmp_path, clock=clock, **PLAIN, upstream__api_keys=["sk-a", "sk-b"]) as proxy:
            up.script(*[Script(status=429, headers={"Retry-After": wait}) for wait in ("40", "25")])
            first = await proxy.post(chat("one"))
            second = await proxy.post(chat("two"))

            assert (first.status_code, first.headers["Retry-After"]) == (429, "25")  # the provider's own answer
            assert (second.status_code, second.headers["Retry-After"]) == (429, "25")
            assert second.json()["error"]["code"] == "upstream_busy"
            assert len(up.calls) == 2
            clock.advance(25)
            assert (await proxy.post(chat("three"))).status_code == 200

    async def test_at_its_limit_for_one_model_it_is_free_for_another(
        self, up: ScriptedUpstream, tmp_path: Path
    ) -> None:
        async with proxied(up.url, tmp_path, clock=FakeClock(), **PLAIN, upstream__api_keys=["sk-a", "sk-b"]) as proxy:
            up.script(*[Script(status=429, headers={"Retry-After": "9000"}) for _ in range(2)])
            busy = [await proxy.post(chat("one", model="dear")) for _ in range(2)]
            other = await proxy.post(chat("two"))

            assert [answer.status_code for answer in busy] == [429, 429]
            assert other.status_code == 200
            assert len(up.calls) == 3  # the second for the dear one wasn't sent
            told = [key["parked_s"] for one in proxy.services.pool.told() for key in one["keys"]]
            assert told == [9000, 9000]

    async def test_the_one_with_more_left_is_preferred_and_an_empty_one_is_not_asked(
        self, up: ScriptedUpstream, tmp_path: Path
    ) -> None:
        left = {"x-ratelimit-limit-requests": "100", "x-ratelimit-reset-requests": "6000s"}
        async with proxied(up.url, tmp_path, clock=FakeClock(), **PLAIN, upstream__api_keys=["sk-a", "sk-b"]) as proxy:
            up.default = Script(headers=left | {"x-ratelimit-remaining-requests": "0"})
            await ask(proxy, 1)
            up.default = Script(headers=left | {"x-ratelimit-remaining-requests": "90"})
            assert await ask(proxy, 10, 1) == {200: 10}

        assert len(set(shown(up)[1:])) == 1
        assert shown(up)[0] != shown(up)[1]

    async def test_one_that_the_provider_does_not_know_costs_no_request(
        self, up: ScriptedUpstream, tmp_path: Path
    ) -> None:
        async with proxied(up.url, tmp_path, **PLAIN, upstream__api_keys=["sk-a", "sk-revoked"]) as proxy:
            up.script(Script(status=401))
            assert await ask(proxy, 10, 1) == {200: 10}

        assert len(up.calls) == 11
        assert shown(up).count(shown(up)[0]) == 1

    async def test_a_clients_own_key_parks_nothing_for_others(self, fleet: Fleet, tmp_path: Path) -> None:
        for up in fleet.ups:
            up.default = Script(status=429, headers={"Retry-After": "60"})
        async with before(fleet, tmp_path) as proxy:
            assert await ask(proxy, 4, 1) == {429: 4}
            for up in fleet.ups:
                up.default = Script()
            assert await ask(proxy, 4, 1, Authorization="Bearer sk-two") == {200: 4}


def shown(up: ScriptedUpstream) -> list[str]:
    return [call.headers["Authorization"] for call in up.calls]


class TestAffinity:
    SYSTEM = "You are the clerk of a small library. " * 60

    def turns(self, number: int, count: int) -> dict[str, Any]:
        said = [{"role": "system", "content": f"{number} {self.SYSTEM}"}]
        for turn in range(count):
            said += [{"role": "user", "content": f"question {turn}"}, {"role": "assistant", "content": "answer"}]
        return {"model": "m", "messages": said[:-1]}

    async def served_by(self, proxy: Proxied, rows: int) -> list[str]:
        return [row["upstream"] for row in await proxy.rows(rows)]

    async def test_keeps_a_conversation_where_it_is_warm_and_spreads_them(self, fleet: Fleet, tmp_path: Path) -> None:
        async with before(fleet, tmp_path, upstream__balance="affinity") as proxy:
            for turn in range(1, 5):
                for number in range(6):
                    assert (await proxy.post(self.turns(number, turn))).status_code == 200
            by = await self.served_by(proxy, 24)

        assert by[:6] * 4 == by
        assert Counter(by[:6]) == dict.fromkeys(by, 3)

    async def test_leaves_it_when_it_is_full_and_when_it_is_gone(self, fleet: Fleet, tmp_path: Path) -> None:
        async with before(
            fleet, tmp_path, upstream__balance="affinity", upstream__max_in_flight=1, upstream__retries=0
        ) as proxy:
            await proxy.post(self.turns(0, 1))
            at = int(fleet.calls[1] == 1)
            warm, other = fleet.ups[at], fleet.ups[1 - at]
            warm.default = Script(hang=True)
            hanging = asyncio.ensure_future(proxy.post(self.turns(0, 2)))
            await until(lambda: warm.at_once == 1)

            assert (await proxy.post(self.turns(0, 3))).status_code == 200
            assert len(other.calls) == 1
            hanging.cancel()
            await until(lambda: warm.at_once == 0)
            await fleet.kill(at)
            assert (await proxy.post(self.turns(0, 4))).status_code == 200
            assert len(other.calls) == 2

    async def test_a_shared_beginning_draws_only_while_it_is_worth_it(self, fleet: Fleet, tmp_path: Path) -> None:
        for up in fleet.ups:
            up.default = Script(hang=True)
        async with before(fleet, tmp_path, upstream__balance="affinity", upstream__retries=0) as proxy:
            asked = [
                asyncio.ensure_future(proxy.post(self.turns(0, 1) | {"user": str(number)})) for number in range(20)
            ]
            await until(lambda: sum(fleet.calls) == 20)

            assert min(fleet.calls) >= 6
            for one in asked:
                one.cancel()

    async def test_round_robin_takes_turns(self, fleet: Fleet, tmp_path: Path) -> None:
        async with before(fleet, tmp_path, upstream__balance="round_robin") as proxy:
            await ask(proxy, 10, 1)

        assert fleet.calls == [5, 5]
