"""Gates of a running proxy: before a promotion, by themselves, and what becomes of a policy that one blocks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.config import Config, load
from farthing.proxy.gates_by_themselves import GateWatch, ModelsServed
from farthing.proxy.gating import GateRuns, given_of
from farthing.proxy.versions import policy_version
from tests.fakes.proxying import PRICES, Proxied, chat, proxied
from tests.fakes.rows import row
from tests.fakes.upstream import Script, ScriptedUpstream

ADMIN = {"x-farthing-admin": "1"}
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
    up: ScriptedUpstream, tmp_path: Path, suite: Path
) -> None:
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
