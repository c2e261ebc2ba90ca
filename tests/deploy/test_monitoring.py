"""What is shipped for Grafana and Prometheus, against what `/metrics` of a real run serves: every name, every label."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from farthing.policies.reuse import Candidate, Label, RouteKey
from farthing.proxy.compress_counts import MODES
from farthing.proxy.metrics import ENDPOINTS, OUTCOMES, STATUSES, TOKEN_KINDS
from farthing.proxy.usage_drift import Counted
from tests.fakes.collector import collector
from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.fakes.valkey import running_valkey

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
RULES, UNIT_TESTS = DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "prometheus" / "alerts.test.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "farthing.json").read_text("utf-8"))
PANELS = DASHBOARD["panels"]

PROMETHEUS_ADDS = {"instance", "job"}
PROMETHEUS_HAS = {"up": {"instance", "job"}}
VALUES = {
    "cache": STATUSES,
    "endpoint": ENDPOINTS,
    "outcome": OUTCOMES,
    "status_class": {"1xx", "2xx", "3xx", "4xx", "5xx", "none"},
    "kind": {name.removeprefix("tokens_") for name in TOKEN_KINDS},
    "mode": set(MODES),
    "job": {"farthing"},
}
"""The labels whose values are known beforehand, so that a query for a value that never comes is found too."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """(where, PromQL) of everything that is shipped, with Grafana's variables filled in."""
    found = [(rule.get("record") or rule["alert"], rule["expr"]) for rule in rules()]
    found += [(panel["title"], target["expr"]) for panel in PANELS for target in panel.get("targets", ())]
    found += [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]
    filled = {"$__rate_interval": "5m", "$__range": "1h", "$instance": ".*", "$model": ".*"}
    return [(where, _with(query, filled)) for where, query in found]


def _with(query: str, filled: dict[str, str]) -> str:
    for name, value in filled.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


@cache
def recorded() -> dict[str, set[str]]:
    """What the rules record, with the labels that it has."""
    found = {}
    for rule in rules():
        if "record" in rule:
            by = re.findall(r"by \(([^)]*)\)", rule["expr"])
            found[rule["record"]] = {name.strip() for name in by[0].split(",")} - {"le"}
    return found


def selectors(expr: Any) -> Iterator[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector) and node not in found:
            found.append(node)

    promql_parser.walk(expr, visit)
    return iter(found)


def wrong(query: str, served: dict[str, set[str]]) -> list[str]:
    """What a query names that isn't there."""
    expr = promql_parser.parse(query)
    faults: list[str] = []
    known = served | recorded() | PROMETHEUS_HAS

    def labels_of(node: Any) -> set[str]:
        return set().union(*(known.get(one.name, set()) for one in selectors(node))) | PROMETHEUS_ADDS

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            faults.extend(f"no label {name}" for name in node.modifier.labels if name not in labels_of(node.expr))
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            sides, names = map(labels_of, (node.lhs, node.rhs)), node.modifier.matching.labels
            faults.extend(f"no label {name}" for side in sides for name in names if name not in side)

    promql_parser.walk(expr, visit)
    for selector in selectors(expr):
        if selector.name not in known:
            faults.append(f"no metric {selector.name}")
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in known[selector.name] | PROMETHEUS_ADDS:
                faults.append(f"{selector.name} has no label {matcher.name}")
            values = VALUES.get(matcher.name)
            parts = matcher.value.split("|") if values and matcher.value != ".*" else ()
            never = [part for part in parts if not any(re.fullmatch(part, value) for value in values or ())]
            faults.extend(f"{matcher.name} is never {part}" for part in never)
    return faults


async def served(tmp_path: Path) -> dict[str, set[str]]:
    """Names and labels in `/metrics` of a run in which everything happens once."""
    settings: dict[str, Any] = {"semantic__mode": "serve", "spend__daily_usd": "100", "otlp__every_s": 0.05}
    settings["service_levels"] = [{"name": "all", "availability": 0.99}]
    settings["budgets"] = [{"name": "everybody", "usd": "10", "per": "day"}]
    padded = json.dumps([{"name": f"row {i}", "value": i, "unit": "kg"} for i in range(40)], indent=4)
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asked = {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "user", "content": "look it up"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": padded},
        ],
    }
    with running_valkey() as url:
        async with (
            collector() as held,
            scripted() as up,
            proxied(up.url, tmp_path, otlp__endpoint=held.url, store__url=url, **settings) as proxy,
        ):
            return await told(proxy, up, asked)


async def told(proxy: Proxied, up: ScriptedUpstream, asked: dict[str, Any]) -> dict[str, set[str]]:
    """What that run says in the end."""
    thread = proxy.services.thread
    assert thread is not None and thread.shared is not None
    async with asyncio.timeout(60):
        while not thread.loaded:
            await asyncio.sleep(0.05)
    await prove_a_route(proxy)
    up.script(Script(status=500), Script())
    for body in (chat("one"), chat("one"), chat("two", stream=True), asked):
        await proxy.post(body)
    await proxy.rows(4)
    await quiet(proxy)
    proxy.services.pipeline.stage_errors["semantic"] = 1
    state = proxy.services.state
    assert await asyncio.to_thread(state.levels.flush)
    state.drift.note("gpt-4o-mini", Counted(9, 10, 9, 10), state.clock.now_s())
    text = (await proxy.client.get("/metrics")).text
    return {
        sample.name: labels
        for family in text_string_to_metric_families(text)
        for labels in [set().union(*(sample.labels for sample in family.samples))]
        for sample in family.samples
    }


async def prove_a_route(proxy: Proxied) -> None:
    """Evidence just enough that one route serves, given to the real policy, which asks the other replicas first."""
    policy, route = proxy.services.semantic.reuse, RouteKey("t", "r")
    async with asyncio.timeout(60):
        while (state := policy.state_of(route)) is None or not state.serving:
            for i in range(100):
                if policy.serves(route):  # more of it, and what it served would have to be as good
                    break
                candidate = Candidate("entry", 0.99 - 0.1 * (i % 3), 0.95)
                policy.learn(route, candidate, policy.decide(route, candidate, 0.5), Label(0))
            await asyncio.sleep(0.05)


async def test_every_metric_and_label_in_dashboard_and_rules_is_served_by_a_real_run(tmp_path: Path) -> None:
    there = await served(tmp_path)
    assert {"rule", "mode"} <= there["farthing_compress_tokens_saved_total"]
    assert "reason" in there["farthing_compress_left_total"]
    assert {(where, fault) for where, query in queries() for fault in wrong(query, there)} == set()


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("farthing_no_such_total", "no metric farthing_no_such_total"),
        ('farthing_requests_total{colour="red"}', "farthing_requests_total has no label colour"),
        ('farthing_requests_total{cache=~"hit-.*|stale"}', "cache is never stale"),
        ("sum by (model) (rate(farthing_cost_usd_total[5m]))", "no label model"),
        ("farthing_cost_usd_total - on (cause) farthing_saved_usd_total", "no label cause"),
        ("farthing:no_such:rate5m > 1", "no metric farthing:no_such:rate5m"),
    ],
)
def test_the_check_finds_what_is_wrong(query: str, fault: str) -> None:
    there = {
        "farthing_requests_total": {"cache", "model"},
        "farthing_cost_usd_total": set(),
        "farthing_saved_usd_total": {"cause"},
    }
    assert wrong(query, there) == [fault]


def test_panels_have_ids_places_and_targets_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["w"] > 0 and place["h"] > 0 and place["x"] >= 0 and place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
        if panel["type"] == "row":
            continue
        assert panel["title"] and panel["description"]
        assert panel["targets"] and all(target["expr"].strip() for target in panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert "id" not in DASHBOARD and DASHBOARD["uid"] == "farthing" and DASHBOARD["schemaVersion"] >= 36
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([PANELS, DASHBOARD["annotations"]])))
    assert used <= variables.keys() | {"__rate_interval", "__range"}


def test_only_colours_that_can_be_told_apart_without_red_and_green() -> None:
    """Okabe and Ito's palette, and grey. Named green and red are Grafana's own, which can't."""
    shown = set(re.findall(r'"(?:fixedColor|color|iconColor)": "([^"]+)"', json.dumps(DASHBOARD)))
    assert shown <= {"#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999"}


def test_every_alert_says_how_bad_it_is_and_has_a_unit_test_that_fires_it() -> None:
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    tested = {
        case["alertname"]
        for group in yaml.safe_load(UNIT_TESTS.read_text("utf-8"))["tests"]
        for case in group["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tested == alerts.keys()
    assert {rule["labels"]["severity"] for rule in alerts.values()} == {"critical", "warning", "info"}
    assert all(rule["annotations"]["summary"] for rule in alerts.values())


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt install prometheus)"
)
@pytest.mark.parametrize("arguments", [("check", "rules", RULES), ("test", "rules", UNIT_TESTS)], ids=["check", "test"])
def test_promtool_agrees(arguments: tuple[str | Path, ...]) -> None:
    said = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
