"""Two policies beside each other in one proxy: who gets which, what they share, and how one goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from farthing.proxy.clock import FakeClock
from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import Script, ScriptedUpstream, scripted

ADMIN = {"x-farthing-admin": "1"}
OFF = {"semantic": {"mode": "off"}}
SHORTER = OFF | {"cache": {"ttl_s": 60}}
BROKEN = OFF | {"aliases": {"m": "broken-model"}}
ELSEWHERE = OFF | {
    "variants": [{"name": "there", "model": "m", "upstream": "other"}],
    "routes": [{"name": "all", "mode": "serve", "variants": ["there"]}],
}
SHARED = {
    "variants": [{"name": "small", "model": "m"}],
    "routes": [{"name": model, "model": model, "variants": ["small"]} for model in ("a*", "*b")],
}


async def policy(proxy: Proxied, what: str, status: int = 200, **asked: Any) -> Any:
    answer = await proxy.client.post(f"/farthing/api/policy/{what}", json=asked, headers=ADMIN)
    assert answer.status_code == status, answer.text
    return answer.json()


async def told(proxy: Proxied) -> Any:
    return (await proxy.client.get("/farthing/api/policy")).json()


async def until(proxy: Proxied, holds: Any) -> Any:
    """What is told once it is so."""
    for _ in range(400):
        found = await told(proxy)
        if holds(found):
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(found)


@asynccontextmanager
async def two_upstreams(
    state_dir: Path, **settings: Any
) -> AsyncIterator[tuple[Proxied, ScriptedUpstream, ScriptedUpstream]]:
    """A proxy with an upstream that all is sent to, and another that the policy ELSEWHERE sends to."""
    async with scripted() as up, scripted() as other:
        upstreams = [{"name": "other", "url": other.url, "retries": 0}]
        async with proxied(up.url, state_dir, upstreams=upstreams) as proxy:
            yield proxy, other


async def test_a_user_stays_with_a_policy_and_more_come_over_step_by_step(up: ScriptedUpstream, tmp_path: Path) -> None:
    clock = FakeClock()
    async with proxied(up.url, tmp_path, clock=clock) as proxy:

        async def assigned() -> dict[str, str]:
            found = {}
            for number in range(40):
                answers = [await proxy.post(chat("hi"), x_farthing_user=f"u{number}") for _ in range(2)]
                names = {answer.headers["x-farthing-policy"] for answer in answers}
                assert len(names) == 1
                found[f"u{number}"] = names.pop()
            return found

        begun = await policy(proxy, "promote", sections=SHORTER, unit="user", steps=[0.3, 0.6, 1], min_requests=1)
        active, candidate = begun["active"]["version"], begun["candidate"]["version"]
        before = await assigned()
        assert set(before.values()) == {active, candidate}
        clock.advance(601)
        await until(proxy, lambda now: now["candidate"]["step"] == 2)
        after = await assigned()
        assert all(after[user] == candidate for user, name in before.items() if name == candidate)
        assert list(after.values()).count(candidate) > list(before.values()).count(candidate)
        assert {(row["policy"], row["experiment"], row["arm"]) for row in await proxy.rows(160)} == {
            (active, "rollout", "active"), (candidate, "rollout", "candidate"),
        }  # fmt: skip


async def test_steps_come_by_themselves_and_the_last_ends_the_roll_out(proxy: Proxied) -> None:
    begun = await policy(proxy, "promote", sections=SHORTER, steps=[0.5, 0.8, 1], hold_s=0, min_requests=3)
    candidate = begun["candidate"]["version"]
    for _ in range(400):
        await proxy.post(chat("hi"))
        if (await told(proxy))["candidate"] is None:
            break
    done = await until(proxy, lambda now: now["changes"][0]["what"] == "roll-out finished")

    assert done["active"]["version"] == candidate
    assert done["before"] == begun["active"]["version"]
    assert [one["what"] for one in done["changes"]][:3] == ["roll-out finished", "step to 80%", "roll-out begun"]
    answer = await proxy.post(chat("hi"))
    assert answer.headers["x-farthing-policy"] == candidate
    assert (await proxy.rows())[-1]["experiment"] == ""
    assert (await proxy.client.get("/farthing/api/incidents")).json() == {"incidents": []}


async def test_a_failing_candidate_is_taken_back_by_itself_with_an_incident_and_an_alert(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    from aiohttp import web

    alerts: list[Any] = []

    async def hook(request: web.Request) -> web.Response:
        alerts.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    up.by_text["broken-model"] = Script(status=500)
    async with proxied(up.url, tmp_path, alerts__webhook=f"http://127.0.0.1:{port}/", upstream__retries=0) as proxy:
        begun = await policy(proxy, "promote", sections=BROKEN, steps=[0.2, 1], hold_s=60, note="cheaper")
        bad = begun["candidate"]["version"]
        for number in range(200):
            await proxy.post(chat(f"question {number}"))
            if (await told(proxy))["candidate"] is None:
                break
        now = await told(proxy)
        assert now["candidate"] is None
        assert now["active"] == begun["active"]
        assert sum(b"broken-model" in call.body for call in up.calls) < 30
        (incident,) = (await proxy.client.get("/farthing/api/incidents")).json()["incidents"]
        assert (incident["kind"], incident["policy"]) == ("rollback", bad)
        assert incident["evidence"]["metrics"]["errors"]["candidate"] == 1.0
        assert incident["evidence"]["metrics"]["errors"]["evidence"] >= 1
        assert "errors 100.00% against 0.00%" in incident["why"]
        await quiet(proxy)
        assert [one["event"] for one in alerts] == ["incident"]
        metrics = (await proxy.client.get("/metrics")).text
        assert "farthing_policy_rollbacks_total 1.0" in metrics
        assert "farthing_incidents_total 1.0" in metrics
        assert f'farthing_policy_active{{version="{begun["active"]["version"]}"}} 1.0' in metrics
        for number in range(20):
            assert (await proxy.post(chat(f"after {number}"))).status_code == 200
        await until(proxy, lambda now: now["changes"][0]["what"] == "candidate rolled back by the guard")
    await runner.cleanup()


async def test_what_farthing_refuses_for_want_of_a_stored_answer_is_no_error_of_a_cold_candidate(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, upstream__retries=0) as proxy:
        await proxy.post(chat("warm"))
        cold = OFF | {"cache": {"mode": "off"}}
        begun = await policy(proxy, "promote", sections=cold, steps=[0.5, 1], hold_s=60)
        answers = [await proxy.post(chat("warm"), Cache_Control="only-if-cached") for _ in range(60)]
        hits = sum(one.status_code == 200 for one in answers)
        assert {one.status_code for one in answers} == {200, 504}
        await proxy.rows(61)
        now = await until(proxy, lambda now: not now["candidate"] or now["candidate"]["guard"]["requests"]["active"])
        assert now["candidate"]["version"] == begun["candidate"]["version"]
        now = await until(proxy, lambda now: now["candidate"]["guard"]["requests"]["active"] == hits)
        assert now["candidate"]["guard"]["requests"]["candidate"] == 0
        up.default = Script(status=500)
        for number in range(60):
            await proxy.post(chat(f"question {number}"))
        await until(proxy, lambda now: now["candidate"]["guard"]["requests"]["candidate"] > 0)


async def test_a_promotions_note_stands_at_a_version_that_was_there_already(proxy: Proxied) -> None:
    def notes(now: dict[str, Any]) -> dict[str, str]:
        return {one["version"]: one["note"] for one in now["versions"]}

    done = await policy(proxy, "promote", sections=SHORTER, now=True)
    shorter = done["active"]["version"]
    assert notes(done)[shorter] == ""
    first = (await policy(proxy, "rollback", why="too short"))["active"]["version"]
    now = await policy(proxy, "promote", version=shorter, now=True, note="answers are fine")
    assert notes(now) == {first: "from the file", shorter: "answers are fine"}
    now = await policy(proxy, "promote", version=first, steps=[0.5, 1], note="once more")
    assert notes(now) == {first: "once more", shorter: "answers are fine"}
    await policy(proxy, "rollback", why="no")
    now = await policy(proxy, "promote", version=first, now=True)
    assert notes(now)[first] == "once more"


async def test_bad_ratings_take_a_candidate_back(proxy: Proxied) -> None:
    begun = await policy(proxy, "promote", sections=SHORTER, steps=[0.2, 1], hold_s=60)
    for number in range(150):
        answer = await proxy.post(chat(f"question {number}"))
        if answer.headers["x-farthing-policy"] == begun["candidate"]["version"]:
            await proxy.rows(number + 1)
            rating = {"id": answer.headers["x-farthing-id"], "rating": "bad"}
            for _ in range(2):  # the second word on one answer is none
                await proxy.client.post("/farthing/api/feedback", json=rating, headers=ADMIN)
    await until(proxy, lambda now: now["candidate"] is None)
    (incident,) = (await proxy.client.get("/farthing/api/incidents")).json()["incidents"]

    assert "bad ratings" in incident["why"]


async def test_a_lane_is_given_nothing_that_its_policy_would_not_give(proxy: Proxied, up: ScriptedUpstream) -> None:
    """The candidate has no cache: neither the store's answers nor the short way of hits reach its users."""
    for _ in range(3):
        await proxy.post(chat("hi"), x_farthing_user="u1")
    begun = await policy(
        proxy, "promote", sections=OFF | {"cache": {"mode": "off"}}, unit="user", steps=[0.5, 1], hold_s=60
    )
    candidate = begun["candidate"]["version"]
    how: dict[str, set[str]] = {}
    for number in range(30):
        for _ in range(3):
            answer = await proxy.post(chat("hi"), x_farthing_user=f"u{number}")
            how.setdefault(answer.headers["x-farthing-policy"], set()).add(answer.headers["x-farthing-cache"])

    assert how == {candidate: {"bypass"}, begun["active"]["version"]: {"hit-exact"}}
    rows = (await proxy.rows(93))[3:]
    assert all(
        (row["arm"] == "candidate") == (row["policy"] == candidate) == (row["cache"] == "bypass") for row in rows
    )


async def test_flights_are_joined_within_a_lane_only(proxy: Proxied, up: ScriptedUpstream) -> None:
    await policy(proxy, "promote", sections=SHORTER, unit="user", steps=[0.5, 1], hold_s=60)
    up.default.wait_s = 0.5
    answers = await asyncio.gather(*(proxy.post(chat("same"), x_farthing_user=f"u{number}") for number in range(20)))
    leads = [one.headers["x-farthing-policy"] for one in answers if one.headers["x-farthing-cache"] == "miss"]

    assert len(up.calls) == len(leads) == len(set(leads)) == 2


async def test_the_limit_on_requests_under_way_counts_all_lanes(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, limits__max_in_flight=10) as proxy:
        await policy(proxy, "promote", sections=SHORTER, steps=[0.5, 1], hold_s=60)
        up.default.wait_s = 0.5
        statuses = [one.status_code for one in await asyncio.gather(*(proxy.post(chat(f"{n}")) for n in range(30)))]

    assert sorted(statuses) == [200] * 10 + [429] * 20


async def test_a_rollback_is_at_once_and_drops_nothing(tmp_path: Path) -> None:
    """Under load, with streams: what was under way in the candidate's lane ends there, well."""
    async with two_upstreams(tmp_path) as (proxy, other):
        other.default.wait_s, other.default.chunk_wait_s = 0.3, 0.02
        await policy(proxy, "promote", sections=ELSEWHERE, now=True)
        stop = asyncio.Event()

        async def keep_asking(name: int) -> list[httpx.Response]:
            found = []
            while not stop.is_set():
                found.append(await proxy.post(chat(f"{name} {len(found)}", stream=name % 2 == 0)))
            return found

        asking = [asyncio.create_task(keep_asking(name)) for name in range(8)]
        while len(other.calls) < 24:
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        back = await policy(proxy, "rollback", why="too dear")
        took_s = loop.time() - begun
        after, asked = await proxy.post(chat("after")), len(other.calls)
        await asyncio.sleep(0.6)
        stop.set()
        answers = [one for found in await asyncio.gather(*asking) for one in found]

        assert took_s < 1
        assert after.headers["x-farthing-policy"] == back["active"]["version"]
        assert len(other.calls) == asked
        assert {one.status_code for one in answers} == {200}
        assert all(
            one.text.rstrip().endswith("[DONE]") for one in answers if one.request.content.count(b'"stream":true')
        )
        rows = await proxy.rows(len(answers) + 1)
        assert {row["outcome"] for row in rows} == {"completed"}
        assert {row["policy"] for row in rows} == {back["active"]["version"], back["changes"][0]["before"]}


async def test_a_roll_out_can_be_ended_and_finished_by_hand(proxy: Proxied) -> None:
    sections = SHORTER
    begun = await policy(proxy, "promote", sections=sections, steps=[0.5, 1], hold_s=60)
    assert (await policy(proxy, "promote", 409, sections=OFF | {"cache": {"ttl_s": 61}}))["error"][
        "code"
    ] == "rollout_under_way"
    assert (await policy(proxy, "promote", 409, sections=sections))["error"]["code"] == "rollout_under_way"
    ended = await policy(proxy, "rollback")
    assert (ended["candidate"], ended["active"]) == (None, begun["active"])
    await policy(proxy, "promote", version=begun["candidate"]["version"], steps=[0.5, 1], hold_s=60)
    done = await policy(proxy, "promote", version=begun["candidate"]["version"][:8], now=True)
    assert (done["candidate"], done["active"]["version"]) == (None, begun["candidate"]["version"])
    assert (await policy(proxy, "promote", 409, sections=sections))["error"]["code"] == "active_already"
    assert (await policy(proxy, "rollback"))["active"]["version"] == begun["active"]["version"]
    assert (await policy(proxy, "rollback", 409))["error"]["code"] == "nothing_before"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "invalid_request"),
        ({"version": "p-1", "sections": {}}, "invalid_request"),
        ({"version": "p-nothing"}, "unknown_version"),
        ({"version": 5}, "unknown_version"),
        ({"sections": {"cache": {"ttl": 1}}}, "invalid_policy"),
        ({"sections": SHARED}, "invalid_policy"),
        ({"sections": 5}, "invalid_request"),
        ({"sections": {}, "steps": [0.5, 0.1]}, "invalid_request"),
        ({"sections": {}, "unit": "planet"}, "invalid_request"),
        ({"sections": {}, "at": 5}, "invalid_request"),
        ({"sections": {"cache": {"ttl_s": 9}}, "gate": "suite.yaml"}, "gate"),
    ],
)
async def test_what_cannot_be_promoted_is_refused(proxy: Proxied, asked: dict[str, Any], code: str) -> None:
    answer = await proxy.client.post("/farthing/api/policy/promote", json=asked, headers=ADMIN)

    assert answer.status_code in (400, 404, 409)
    assert answer.json()["error"]["code"] == code
    assert (await told(proxy))["candidate"] is None


async def test_a_gate_blocks_a_promotion(up: ScriptedUpstream, tmp_path: Path) -> None:
    from farthing.proxy.app import running
    from farthing.proxy.config import Config, load

    asked: list[tuple[int, str]] = []

    async def gate(config: Config, suite: str) -> str:
        asked.append((config.cache.ttl_s, suite))
        return "accuracy fell to 91 %" if config.cache.ttl_s == 60 else ""

    flags = {
        "state_dir": tmp_path,
        "server.port": 0,
        "upstream.url": up.url,
        "semantic.mode": "off",
        "rollout.gate": "always",
    }
    async with running(load(None, {}, flags), gate=gate) as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
        for ttl_s, status in ((60, 409), (61, 200)):
            body = {"sections": {"semantic": {"mode": "off"}, "cache": {"ttl_s": ttl_s}}, "now": True, "gate": "more"}
            answer = await client.post("/farthing/api/policy/promote", json=body, headers=ADMIN)
            assert answer.status_code == status
            assert ("accuracy fell" in answer.text) == (status == 409)
    assert asked == [(60, "always"), (61, "always"), (61, "more")]


async def test_a_reload_with_another_policy_takes_it_at_once_and_ends_a_roll_out(proxy: Proxied) -> None:
    begun = await policy(proxy, "promote", sections=SHORTER, steps=[0.5, 1], hold_s=60)
    config = proxy.services.config
    limits = config.limits.model_copy(update={"max_in_flight": 50})
    await proxy.running.reload(config.model_copy(update={"limits": limits}))
    assert (await told(proxy))["candidate"]["version"] == begun["candidate"]["version"]
    assert {
        lane.config.limits.max_in_flight for lane in (proxy.running.lanes.active, proxy.running.lanes.candidate) if lane
    } == {50}

    await proxy.running.reload(config.model_copy(update={"cache": config.cache.model_copy(update={"ttl_s": 99})}))
    now = await told(proxy)
    assert now["candidate"] is None
    assert now["active"]["version"] not in (begun["active"]["version"], begun["candidate"]["version"])
    assert [one["what"] for one in now["changes"][:2]] == ["reloaded", "candidate dropped"]
    assert (await proxy.post(chat("hi"))).headers["x-farthing-policy"] == now["active"]["version"]


async def test_switched_off_nothing_is_evidence(proxy: Proxied) -> None:
    await policy(proxy, "promote", sections=SHORTER, steps=[0.5, 1], hold_s=60)
    assert (await policy(proxy, "off")) == {"switched_off": True}
    answers = [await proxy.post(chat(f"{n}")) for n in range(10)]
    rows = await proxy.rows(10)

    assert {one.headers["x-farthing-policy"] for one in answers} == {"off"}
    assert {(row["policy"], row["arm"]) for row in rows} == {("off", "")}
    assert (await told(proxy))["candidate"]["guard"]["requests"] == {"active": 0, "candidate": 0}


async def test_a_session_stays_with_a_policy_and_its_name_reaches_nobody(proxy: Proxied, up: ScriptedUpstream) -> None:
    begun = await policy(proxy, "promote", sections=SHORTER, unit="session", steps=[0.5, 1], hold_s=60)
    names = {}
    for number in range(30):
        answers = [await proxy.post(chat(f"{n}"), x_farthing_session=f"secret {number}") for n in range(2)]
        seen = {one.headers["x-farthing-policy"] for one in answers}
        assert len(seen) == 1
        names[number] = seen.pop()

    assert set(names.values()) == {begun["active"]["version"], begun["candidate"]["version"]}
    assert not any("session" in name.lower() for call in up.calls for name in call.headers)
    rows = await proxy.rows(60)
    assert len({row["decisions"] for row in rows}) == 30
    assert len({row["tenant"] for row in rows}) == 1
    assert "secret" not in str(rows)
