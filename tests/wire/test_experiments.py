"""Experiments and hold-outs in a real proxy: who gets which arm, what is learnt, and what ends one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from farthing.proxy.clock import FakeClock
from farthing.proxy.config import load
from farthing.proxy.errors import ConfigFault
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream

ADMIN = {"x-farthing-admin": "1"}
OFF = '[semantic]\nmode = "off"\n'


@pytest.fixture
def shorter(tmp_path: Path) -> str:
    path = tmp_path / "shorter.toml"
    path.write_text(OFF + "[cache]\nttl_s = 60\n")
    return str(path)


@pytest.fixture
def broken(tmp_path: Path) -> str:
    path = tmp_path / "broken.toml"
    path.write_text(OFF + '[aliases]\nm = "broken-model"\n')
    return str(path)


def declared(policy: str, **changes: Any) -> list[dict[str, Any]]:
    arms = [{"name": "as-is", "share": 0.5}, {"name": "new", "policy": policy, "share": 0.5}]
    return [{"name": "trial", "arms": arms, "unit": "user", "metric": "rating", "minimum_days": 0} | changes]


async def told(proxy: Proxied) -> Any:
    return (await proxy.client.get("/farthing/api/experiments")).json()


async def until(proxy: Proxied, holds: Callable[[Any], bool]) -> Any:
    """The latest experiment, once it is so."""
    for _ in range(300):
        found = await told(proxy)
        if found["experiments"] and holds(found["experiments"][0]):
            return found["experiments"][0]
        await asyncio.sleep(0.05)
    raise AssertionError(found)


def units(one: Any) -> dict[str, int]:
    return {} if one["reading"] is None else dict(one["reading"]["shares"]["units"])


async def rate(proxy: Proxied, answer: Any, rating: str) -> None:
    said = {"id": answer.headers["x-farthing-id"], "rating": rating}
    assert (await proxy.client.post("/farthing/api/feedback", json=said, headers=ADMIN)).status_code == 200


async def test_a_user_stays_in_an_arm_and_late_and_replaced_words_count(
    up: ScriptedUpstream, tmp_path: Path, shorter: str
) -> None:
    trial = declared(shorter, minimum_days=1)  # or it is decided before everybody has said something
    async with proxied(up.url, tmp_path / "s", experiments=trial) as proxy:
        arms, last = {}, {}
        for number in range(40):
            answers = [await proxy.post(chat(f"q{n}"), x_farthing_user=f"u{number}") for n in range(2)]
            policies = {answer.headers["x-farthing-policy"] for answer in answers}
            assert len(policies) == 1
            arms[f"u{number}"], last[f"u{number}"] = policies.pop(), answers[-1]
        assert len(set(arms.values())) == 2
        rows = await proxy.rows(80)
        by_policy = {(row["experiment"], row["arm"], row["policy"]) for row in rows}
        assert {(name, arm) for name, arm, _ in by_policy} == {("trial", "as-is"), ("trial", "new")}
        assert len(by_policy) == 2
        one = await until(proxy, lambda one: sum(units(one).values()) == 40)
        of = {arm["name"]: arm["version"] for arm in one["arms"]}
        assert units(one) == {name: list(arms.values()).count(version) for name, version in of.items()}

        for name, answer in last.items():  # everybody finds it bad, and some think better of it
            await rate(proxy, answer, "bad")
            if arms[name] == of["new"]:
                await rate(proxy, answer, "good")
        n = list(arms.values()).count(of["new"])

        def rated(one: Any) -> bool:
            return bool(one["reading"]["candidates"]["new"]["metrics"]["rating"]["units"] == [40 - n, n])

        seen = (await until(proxy, rated))["reading"]["candidates"]["new"]["metrics"]["rating"]
        assert (seen["control"], seen["candidate"]) == (0.0, 1.0)
        metrics = (await proxy.client.get("/metrics")).text
        assert f'farthing_experiment_units{{arm="new",experiment="trial"}} {float(n)}' in metrics
        assert 'farthing_experiment_verdict{arm="new",experiment="trial",verdict="undecided"} 1.0' in metrics
        assert 'farthing_experiment_running{experiment="trial"} 1.0' in metrics


async def test_a_session_stays_in_an_arm_and_counts_once(up: ScriptedUpstream, tmp_path: Path, shorter: str) -> None:
    async with proxied(up.url, tmp_path / "s", experiments=declared(shorter, unit="session")) as proxy:
        for number in range(20):
            answers = [await proxy.post(chat(f"q{n}"), x_farthing_session=f"s{number}") for n in range(3)]
            assert len({answer.headers["x-farthing-policy"] for answer in answers}) == 1
        await proxy.rows(60)
        one = await until(proxy, lambda one: sum(units(one).values()) == 20)

        assert min(units(one).values()) > 2


async def test_a_clear_difference_decides_and_all_traffic_goes_back(
    up: ScriptedUpstream, tmp_path: Path, shorter: str
) -> None:
    async with proxied(up.url, tmp_path / "s", experiments=declared(shorter, unit="request")) as proxy:
        active = proxy.running.policies.standing.active
        for number in range(300):
            answer = await proxy.post(chat(f"q{number}"))
            if answer.headers["x-farthing-policy"] == active and number > 150:
                await rate(proxy, answer, "bad")
            else:
                await rate(proxy, answer, "good" if answer.headers["x-farthing-policy"] != active else "bad")
            if (await told(proxy))["experiments"][0]["state"] != "running":
                break
        one = await until(proxy, lambda one: one["state"] != "running")
        assert (one["state"], one["why"]) == ("decided", "new: candidate is better")
        (incident,) = (await proxy.client.get("/farthing/api/incidents")).json()["incidents"]
        assert (incident["kind"], incident["evidence"]["experiment"]) == ("experiment_decided", "trial")
        after = {(await proxy.post(chat(f"then {n}"))).headers["x-farthing-policy"] for n in range(10)}
        assert after == {active}
        assert not proxy.running.lanes.divided
        path = tmp_path / "s" / "experiments" / f"{one['id']}.txt"
        while not path.exists():  # it takes effect first, and is written then
            await asyncio.sleep(0.01)
        text = path.read_text()
        assert "candidate is better" in text
        await proxy.running.reload(proxy.services.config)
        assert "has ended (decided)" in (await told(proxy))["waiting"]["trial"]


async def test_a_guardrail_stops_it(up: ScriptedUpstream, tmp_path: Path, broken: str) -> None:
    up.by_text["broken-model"] = Script(status=500)
    rails = [{"metric": "error", "at_most_worse": 0.1}]
    trial = declared(broken, unit="request", guardrails=rails, minimum_days=7)
    async with proxied(up.url, tmp_path / "s", experiments=trial, upstream__retries=0) as proxy:
        for number in range(200):
            await proxy.post(chat(f"q{number}"))
            if number % 10 == 0 and (await told(proxy))["experiments"][0]["state"] != "running":
                break
        one = await until(proxy, lambda one: one["state"] != "running")
        assert one["state"] == "guardrail"
        assert "error is worse by" in one["why"]
        (incident,) = (await proxy.client.get("/farthing/api/incidents")).json()["incidents"]
        assert incident["kind"] == "experiment_guardrail"
        assert {(await proxy.post(chat(f"then {n}"))).status_code for n in range(20)} == {200}


async def test_arms_that_do_not_get_their_shares_say_nothing_else(
    up: ScriptedUpstream, tmp_path: Path, shorter: str
) -> None:
    async with proxied(up.url, tmp_path / "s", experiments=declared(shorter, unit="request")) as proxy:
        proxy.running.experiments.going["trial"].part.shares = (0.9, 0.1)  # the fault
        for number in range(120):
            await proxy.post(chat(f"q{number % 7}"))
        one = await until(proxy, lambda one: one["state"] != "running")

        assert one["state"] == "broken"
        assert "assignment is broken" in one["headline"]
        assert "candidates" not in one["reading"]
        (incident,) = (await proxy.client.get("/farthing/api/incidents")).json()["incidents"]
        assert incident["kind"] == "experiment_shares"
        metrics = (await proxy.client.get("/metrics")).text
        assert 'farthing_experiment_shares_broken{experiment="trial"} 1.0' in metrics
        assert 'farthing_experiment_running{experiment="trial"} 0.0' in metrics


async def test_it_goes_on_after_a_restart_with_all_that_was_seen(
    up: ScriptedUpstream, tmp_path: Path, shorter: str
) -> None:
    state = tmp_path / "s"
    trial = declared(shorter, guardrails=[{"metric": "click", "at_most_worse": 1.0, "kind": "ratio"}])
    arms: dict[str, str] = {}
    async with proxied(up.url, state, experiments=trial) as proxy:
        for number in range(30):
            answer = await proxy.post(chat("q"), x_farthing_user=f"u{number}")
            arms[f"u{number}"] = answer.headers["x-farthing-policy"]
            await rate(proxy, answer, "good" if number % 3 else "bad")
        click = {"id": answer.headers["x-farthing-id"], "metric": "click", "value": 1}
        await proxy.client.post("/farthing/api/feedback", json=click, headers=ADMIN)
        await proxy.rows(30)
        before = await until(
            proxy,
            lambda one: (
                sum(units(one).values()) == 30
                and sum(one["reading"]["candidates"]["new"]["metrics"]["rating"]["units"]) == 30
            ),
        )
    async with proxied(up.url, state, experiments=trial) as proxy:
        again = await until(proxy, lambda one: bool(one["reading"]) and one["reading"]["at"] > before["reading"]["at"])
        assert (again["id"], again["since_s"], units(again)) == (before["id"], before["since_s"], units(before))
        old, new = (one["reading"]["candidates"]["new"]["metrics"] for one in (before, again))
        assert new["rating"] == old["rating"]
        assert new["click"] == old["click"]
        assert {name: (await proxy.post(chat("q"), x_farthing_user=name)).headers["x-farthing-policy"]
                for name in arms} == arms  # fmt: skip
    async with proxied(up.url, state, experiments=declared(shorter, level=0.01)) as proxy:
        found = (await told(proxy))["experiments"]
        assert [one["state"] for one in found] == ["running", "ended"]
        assert found[0]["id"] != before["id"]
        assert "has changed" in found[1]["why"]


async def test_only_requests_that_match_take_part(up: ScriptedUpstream, tmp_path: Path, shorter: str) -> None:
    trial = declared(shorter, unit="request", where={"tag": "team=red", "endpoint": "chat"})
    async with proxied(up.url, tmp_path / "s", experiments=trial) as proxy:
        for number in range(20):
            await proxy.post(chat(f"q{number}"), x_farthing_tags="team=red")
            await proxy.post(chat(f"q{number}"), x_farthing_tags="team=blue")
            await proxy.post(chat(f"q{number}"))
        rows = await proxy.rows(60)

    found = {(row["tags"], row["experiment"]) for row in rows}
    assert found == {('{"team":"red"}', "trial"), ('{"team":"blue"}', ""), ("{}", "")}
    assert {row["arm"] for row in rows if row["experiment"]} == {"as-is", "new"}


async def test_requests_for_some_models_take_part_and_others_stay_where_they_were(
    up: ScriptedUpstream, tmp_path: Path, shorter: str
) -> None:
    trial = declared(shorter, unit="request", where={"model": "small-*"})
    named = {"aliases": {"little": "small-1"}, "server__port": 0}
    async with proxied(up.url, tmp_path / "s", experiments=trial, limits__parse_bytes=200_000, **named) as proxy:
        active = proxy.running.policies.standing.active
        for number in range(12):
            for model in ("small-1", "little", "m"):
                await proxy.post(chat(f"q{number}") | {"model": model})
        long = orjson.dumps(chat("x" * 150_000) | {"model": "small-2"})
        pieces = (long[at : at + 9_000] for at in range(0, len(long), 9_000))
        json = {"Content-Type": "application/json"}

        async def slowly() -> AsyncIterator[bytes]:
            for piece in pieces:
                await asyncio.sleep(0)
                yield piece

        answers = [
            await proxy.client.post("/v1/chat/completions", content=slowly(), headers=json),
            await proxy.post(orjson.dumps(chat("x" * 300_000) | {"model": "small-2"})),  # too long to be read
            await proxy.post(b"{no JSON"),
            await proxy.post(chat("waits") | {"model": "small-1"}, Expect="100-continue"),
            await proxy.client.get("/v1/models"),
        ]
        hits = [await proxy.post(chat("q3") | {"model": "m"}) for _ in range(3)]
        rows = await proxy.rows(44)
    of = [(row["model_requested"], row["experiment"]) for row in rows[:36]]
    assert set(of) == {("small-1", "trial"), ("little", "trial"), ("m", "")}  # one of the policies has no alias
    assert {row["arm"] for row in rows if row["experiment"]} == {"as-is", "new"}
    assert {row["policy"] for row in rows if not row["experiment"]} == {active}
    assert [row["experiment"] for row in rows[36:41]] == ["trial", "", "", "", ""]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 200]  # the upstream's own 400
    assert [hit.headers["x-farthing-cache"] for hit in hits] == ["hit-exact"] * 3
    assert [sum(b"x" * length in call.body for call in up.calls) for length in (300_000, 150_000)] == [1, 2]


async def test_who_may_not_call_is_refused_before_its_body_is_read(
    up: ScriptedUpstream, tmp_path: Path, shorter: str
) -> None:
    keys = [{"name": "k", "sha256": hashlib.sha256(b"sk-one").hexdigest()}]
    trial = declared(shorter, unit="request", where={"model": "*"})
    async with proxied(up.url, tmp_path / "s", experiments=trial, auth__client_keys=keys) as proxy:
        answer = await proxy.post(chat("q"), Authorization="Bearer sk-two")
        mine = await proxy.post(chat("q"))
        rows = await proxy.rows(2)
    assert (answer.status_code, mine.status_code) == (401, 200)
    assert [row["experiment"] for row in rows] == ["", "trial"]


async def test_a_roll_out_and_an_experiment_wait_for_each_other(
    up: ScriptedUpstream, tmp_path: Path, shorter: str
) -> None:
    sections = {"semantic": {"mode": "off"}, "cache": {"ttl_s": 99}}
    async with proxied(up.url, tmp_path / "s", experiments=declared(shorter)) as proxy:
        asked = {"sections": sections, "steps": [0.5, 1], "hold_s": 60}
        answer = await proxy.client.post("/farthing/api/policy/promote", json=asked, headers=ADMIN)
        assert answer.json()["error"]["code"] == "experiment_under_way"
        body = {"name": "trial", "why": "enough"}
        stopped = await proxy.client.post("/farthing/api/experiments/stop", json=body, headers=ADMIN)
        assert (stopped.json()["state"], stopped.json()["why"]) == ("stopped", "enough")
        again = await proxy.client.post("/farthing/api/experiments/stop", json=body, headers=ADMIN)
        assert again.status_code == 404
        assert (await proxy.client.post("/farthing/api/policy/promote", json=asked, headers=ADMIN)).status_code == 200
        config = proxy.services.config
        changed = load(None, {}, {"experiments": declared(shorter, name="other")}).experiments
        await proxy.running.reload(config.model_copy(update={"experiments": changed}))
        assert "being rolled out" in (await told(proxy))["waiting"]["other"]
        await proxy.client.post("/farthing/api/policy/rollback", json={}, headers=ADMIN)
        await until(proxy, lambda one: bool(one["name"] == "other" and one["state"] == "running"))


async def test_a_new_active_policy_ends_an_experiment_about_the_old_one(
    up: ScriptedUpstream, tmp_path: Path, shorter: str
) -> None:
    async with proxied(up.url, tmp_path / "s", experiments=declared(shorter), holdout__share=0.2) as proxy:
        assert [one["state"] for one in (await told(proxy))["experiments"]] == ["running", "running"]
        asked = {"sections": {"semantic": {"mode": "off"}, "cache": {"ttl_s": 99}}, "now": True}
        await proxy.client.post("/farthing/api/policy/promote", json=asked, headers=ADMIN)
        for _ in range(100):
            found = {(one["name"], one["state"]) for one in (await told(proxy))["experiments"]}
            if len(found) == 3:
                break
            await asyncio.sleep(0.02)

        assert found == {("trial", "ended"), ("holdout", "ended"), ("holdout", "running")}


async def test_a_hold_out_tells_what_the_cache_saves(up: ScriptedUpstream, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"holdout__share": 0.4, "compress__tidy": True, "compress__recode": "off"}
    async with proxied(up.url, tmp_path, **settings) as proxy:
        arms = [one["name"] for one in (await told(proxy))["experiments"][0]["arms"]]
        assert arms == ["on", "all-off", "no-compress"]
        for _ in range(200):
            await proxy.post(chat("the same", model="gpt-4o-mini"))
        rows = await proxy.rows(200)
        off = [row for row in rows if row["arm"] == "all-off"]
        assert 15 < len(off) < 70
        assert {row["cache"] for row in off} == {"bypass"}
        assert {row["experiment"] for row in rows} == {"holdout", ""}
        one = await until(proxy, lambda one: sum(units(one).values()) == 200)
        assert units(one)["all-off"] == len(off)
        cost = one["reading"]["candidates"]["all-off"]["metrics"]["cost_usd"]
        assert cost["candidate"] > cost["control"]
        assert "all-off: a request costs +" in one["headline"]


async def test_the_emergency_switch_takes_everybody_out(up: ScriptedUpstream, tmp_path: Path, shorter: str) -> None:
    async with proxied(up.url, tmp_path / "s", experiments=declared(shorter), clock=FakeClock()) as proxy:
        await proxy.client.post("/farthing/api/policy/off", headers=ADMIN)
        for number in range(10):
            await proxy.post(chat("q"), x_farthing_user=f"u{number}")
        rows = await proxy.rows(10)

    assert {(row["policy"], row["experiment"]) for row in rows} == {("off", "")}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": [{"name": "a", "share": 0.5}]}, "arms"),
        ({"arms": [{"name": "a", "share": 0.5}, {"name": "b", "policy": "x.toml", "share": 0.4}]}, "make 1"),
        ({"arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]}, "one policy"),
        ({"name": "holdout"}, "farthing's own"),
        ({"bounds": [1, 0]}, "smaller one first"),
        ({"slices": ["weather"]}, "weather"),
        ({"maximum_days": 1, "minimum_days": 7}, "maximum_days"),
        ({"where": {"colour": "m"}}, "unknown key"),
    ],
)
def test_what_cannot_be_an_experiment_is_refused_at_load(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigFault, match=said):
        load(None, {}, {"experiments": declared("x.toml", **changes)})


def test_a_request_may_be_in_one_experiment_only() -> None:
    one, other = declared("x.toml")[0], declared("x.toml", name="second")[0]
    with pytest.raises(ConfigFault, match=r"experiments\.1\.where"):
        load(None, {}, {"experiments": [one, other]})
    tags, models = [("tag", "team=red"), ("tag", "team=blue")], [("model", "a-*"), ("model", "b-1")]
    for first, second in (tags, models):
        apart = [one | {"where": dict([first])}, other | {"where": dict([second])}]
        assert len(load(None, {}, {"experiments": apart}).experiments) == 2
    for second in ("a-1", "*-1"):  # where two patterns might both fit, they may not stand side by side
        with pytest.raises(ConfigFault, match=r"experiments\.1\.where"):
            both = [one | {"where": {"model": "a-*"}}, other | {"where": {"model": second}}]
            load(None, {}, {"experiments": both})
