"""Gates of a running proxy: before a promotion, by themselves, and what becomes of a policy that one blocks."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farthing.policies.dataset import EvalCase
from farthing.policies.gating import Standing, due
from farthing.proxy import gates_by_themselves
from farthing.proxy.config import Config, load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.eval_run import load_cases
from farthing.proxy.eval_sample import write
from farthing.proxy.gate_refresh import Refresh, _Old, _take
from farthing.proxy.gates_by_themselves import GateWatch, ModelsServed
from farthing.proxy.gating import GateRuns, given_of
from farthing.proxy.versions import policy_version
from tests.fakes.proxying import PRICES, Proxied, chat, proxied
from tests.fakes.rows import row
from tests.fakes.upstream import Script, ScriptedUpstream

ADMIN = {"x-farthing-admin": "1"}
# What nobody drew: a case that somebody wrote, and one that somebody complained about.
STAY = (
    EvalCase("mine", chat("2+2?"), reference={"choices": []}),
    EvalCase("far-9-rated", chat("old and bad"), ts=0.5, source="rating", weight=3.0),
)
WORSE = {
    "variants": [{"name": "bad", "model": "worse"}],
    "routes": [{"name": "all", "mode": "serve", "model": "m", "variants": ["bad"]}],
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": str(n), "request": chat(f"question {n}?"), "reference": "right"}) for n in range(60)]
    (tmp_path / "cases.jsonl").write_text("\n".join(lines))
    path = tmp_path / "suite.yaml"
    path.write_text(json.dumps({"dataset": "cases.jsonl", "judge": "exact", "rules": [{"accuracy": 0.8}]}))
    return path


@pytest.fixture
def up(up: ScriptedUpstream) -> ScriptedUpstream:
    up.default.says = "right"
    up.by_text = {'"worse"': Script(says="wrong")}
    return up


def watch_of(proxy: Proxied) -> GateWatch:
    running = proxy.running

    async def back(why: str) -> None:
        await running.policies.roll_back(why=why)

    models, services = ModelsServed(), running.services
    return GateWatch(running.gates, models, lambda: running.lanes.active.config, back, services.state.incidents)


async def promoted(proxy: Proxied, sections: dict[str, Any], **more: Any) -> Any:
    body = {"sections": sections, "now": True, **more}
    return await proxy.client.post("/farthing/api/policy/promote", json=body, headers=ADMIN, timeout=120)


def test_whom_a_request_was_led_to_says_nothing_of_what_a_name_stands_for() -> None:
    models = ModelsServed()
    plain = row(id="1", model_requested="m", model_served="m-2026-01", attempts=1, status=200)
    models.observe([plain])
    before = models.told
    models.observe([plain._replace(model_served="cheap", decisions='[["route","routed","all: cheap"]]')])
    assert models.told == before
    models.observe([plain._replace(model_served="m-2026-02")])
    assert models.told != before


def test_a_name_that_stands_for_two_models_by_turns_has_changed_once_and_a_restart_is_no_change() -> None:
    plain = row(id="1", model_requested="m", attempts=1, status=200)
    models, last = ModelsServed(), Standing(0.0, {})
    runs = 0
    for turn in range(20):
        models.observe([plain._replace(model_served=f"m-{turn % 2}")])
        if due(last, 1e6 + turn, models.told, 0.0, 0.0):
            runs += 1
        last = Standing(1e6 + turn, models.told)
    assert runs == 1
    again = ModelsServed()
    again.known(last.seen)
    again.observe([plain._replace(model_served="m-0"), row(id="2", model_requested="n", model_served="n", attempts=1)])
    assert due(last, 2e6, again.told, 0.0, 0.0) == ""
    again.observe([plain._replace(model_served="m-2")])
    assert due(last, 2e6, again.told, 0.0, 0.0) == "changed: model m"


def test_a_configuration_goes_through_a_pipe_whole() -> None:
    config = load(
        None, {}, {"upstream.url": "http://127.0.0.1:9/v1", "upstream.api_key": "sk-secret", **WORSE, "prices": PRICES}
    )
    again = Config.model_validate_json(json.dumps(given_of(config)))
    assert (again.id, policy_version(again)) == (config.id, policy_version(config))
    key = again.upstream.api_key
    assert key is not None and key.get_secret_value() == "sk-secret"


async def test_a_suite_blocks_a_bad_policy_and_lets_a_good_one_pass(
    up: ScriptedUpstream, tmp_path: Path, suite: Path
) -> None:
    async with proxied(up.url, tmp_path / "state", gates__max_usd=1) as proxy:
        bad = await promoted(proxy, WORSE, gate=str(suite))
        good = await promoted(proxy, {"cache": {"ttl_s": 77}}, gate=str(suite))
        told = (await proxy.client.get("/farthing/api/gates")).json()["runs"]
    assert (bad.status_code, bad.json()["error"]["code"]) == (409, "gate")
    assert "block" in bad.json()["error"]["message"]
    assert good.status_code == 200
    assert [one["verdict"] for one in told] == ["ship", "block"]


async def test_a_suite_that_can_not_be_run_blocks_and_says_why(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path / "state") as proxy:
        answer = await promoted(proxy, {"cache": {"ttl_s": 77}}, gate="nowhere.yaml")
    assert answer.status_code == 409 and "can't read nowhere.yaml" in answer.json()["error"]["message"]


async def test_it_runs_by_itself_and_takes_a_policy_back_that_it_blocks(
    up: ScriptedUpstream, tmp_path: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates_by_themselves, "TICK_S", 1e6)  # the proxy's own look came between on a busy machine
    settings: dict[str, Any] = {"gates__suites": [str(suite)], "gates__roll_back": True}
    async with proxied(up.url, tmp_path / "state", **settings) as proxy:
        watch = watch_of(proxy)
        await watch.tick()
        assert [(one["verdict"], one["trigger"]) for one in proxy.running.gates.latest] == [("ship", "it never ran")]
        before = proxy.running.policies.standing.active
        assert (await promoted(proxy, WORSE)).status_code == 200
        await watch.tick()  # the change is noticed
        assert len(proxy.running.gates.latest) == 1
        watch.changed_s -= 60
        await watch.tick()
        last = proxy.running.gates.latest[-1]
        assert (last["verdict"], last["trigger"]) == ("block", "changed: policy")
        assert proxy.running.policies.standing.active == before
        incidents = (await proxy.client.get("/farthing/api/incidents")).json()
        await asyncio.sleep(0.05)
    assert any(one["kind"] == "gate" for one in incidents["incidents"])
    again = GateRuns(tmp_path / "state", proxy.services.state.clock)
    assert [one["verdict"] for one in again.latest] == ["ship", "block"]


@pytest.mark.long
async def test_a_scheduled_run_draws_old_cases_anew_from_captured_traffic(
    up: ScriptedUpstream, tmp_path: Path, suite: Path
) -> None:
    cases, now = tmp_path / "cases.jsonl", 0.0
    settings: dict[str, Any] = {"gates__suites": [str(suite)], "gates__refresh_days": 7, "capture__enabled": True}
    async with proxied(up.url, tmp_path / "state", **settings) as proxy:
        refresh, config = Refresh(), proxy.running.lanes.active.config
        now = proxy.services.state.clock.now_s()
        for number in range(12):
            await proxy.post(chat(f"asked of late {number}?"))
        capture = proxy.services.state.capture
        assert capture is not None and await asyncio.to_thread(capture.flush)
        drawn(cases, 8, at_s=now)
        assert not await refresh.before(config, suite, now)  # they aren't old yet
        drawn(cases, 8, at_s=now - 8 * 86_400, stay=STAY)
        before = cases.read_bytes()
        watch = watch_of(proxy)
        watch.standings[str(suite)] = Standing(now - 25 * 3600, watch.seen(config))
        await watch.tick()
        assert [one["trigger"] for one in proxy.running.gates.latest] == ["its time has come"]
    found = load_cases(cases)[0]
    fresh = [case for case in found if case.source == "traffic" and case.ts]
    assert len(fresh) == 8 and all("asked of late" in json.dumps(dict(case.request)) for case in fresh)
    assert [case for case in found if case.id in ("mine", "far-9-rated")] == list(STAY)
    assert (tmp_path / "cases.jsonl.previous").read_bytes() == before
    assert not (tmp_path / "cases.jsonl.fresh").exists()


def test_fewer_cases_than_before_take_nobodys_place_and_a_complaint_is_there_once(tmp_path: Path) -> None:
    path, fresh = tmp_path / "cases.jsonl", tmp_path / "cases.jsonl.fresh"
    drawn(path, 8, at_s=0.0, stay=STAY)
    before = path.read_bytes()
    old = _Old(path, 8, 0, 1.0, STAY)
    drawn(fresh, 7, at_s=0.0)
    with pytest.raises(ConfigFault, match="7 of 8 could be drawn"):
        _take(fresh, old)
    assert path.read_bytes() == before and not (tmp_path / "cases.jsonl.previous").exists()
    drawn(fresh, 8, at_s=0.0, stay=(replace(STAY[1], id="far-77-rated", ts=9.0),))  # complained about once more
    _take(fresh, old)
    assert [case.id for case in load_cases(path)[0]] == ["mine", *map(str, range(8)), "far-77-rated"]


def drawn(path: Path, count: int, at_s: float, stay: Sequence[EvalCase] = ()) -> None:
    """Cases as `farthing eval sample` writes them, from then."""
    made = [EvalCase(str(n), {"model": "m", "messages": [{"role": "user", "content": f"old {n}"}]}, ts=1.0 + n)
            for n in range(count)]  # fmt: skip
    write(path, [*stay, *made])
    os.utime(path, (at_s, at_s))


@pytest.mark.parametrize("captures", [True, False])
async def test_what_can_not_be_drawn_stays_and_is_said_once(tmp_path: Path, suite: Path, captures: bool) -> None:
    cases = tmp_path / "cases.jsonl"
    before = cases.read_bytes()  # written by hand, for one; and nothing was captured, for the other
    os.utime(cases, (0, 0))
    config = load(None, {}, {"gates.refresh_days": 1, "capture.enabled": captures, "state_dir": tmp_path / "state"})
    refresh = Refresh()
    assert not await refresh.before(config, suite, 1e9) and not await refresh.before(config, suite, 2e9)
    assert cases.read_bytes() == before
    (said,) = refresh.said
    assert ("was not drawn from traffic" if captures else "capture is off") in said
