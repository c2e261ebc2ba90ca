"""From traffic to a verdict by the real commands: a dataset is drawn, a good policy ships, a bad one is blocked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.fakes.commands import farthing
from tests.fakes.upstream import Script, ScriptedUpstream, scripted

GOOD, BAD = "cheap-and-right", "cheap-and-wrong"


async def run(*args: str, cwd: Path) -> tuple[int, str, str]:
    ended = await asyncio.to_thread(farthing, *args, cwd=cwd)
    return ended.returncode, ended.stdout, ended.stderr


def trace_line(number: int) -> str:
    text = f"How do I pay invoice {number}?" if number % 5 else f"Who may cancel order {number} for Ann?"
    answer = {"object": "chat.completion", "choices": [{"message": {"content": "So."}, "finish_reason": "stop"}]}
    return json.dumps(
        {
            "id": f"r{number}", "ts": 1.7e9 + number, "tenant": "t", "user": "", "endpoint": "chat", "stream": False,
            "tags": {"team": "sales" if number % 5 else "legal"}, "path": "/v1/chat/completions", "status": 200,
            "row": None,
            "request": {"model": "m", "messages": [{"role": "user", "content": text}]}, "response": answer,
        }
    )  # fmt: skip


def policy(up: ScriptedUpstream, model: str) -> str:
    return f"""
[upstream]
url = "{up.url}"
retries = 0
[semantic]
mode = "off"
[[variants]]
name = "cheap"
model = "{model}"
[[routes]]
name = "all"
mode = "serve"
model = "m"
variants = ["cheap"]
[prices.models]
m = {{ input_usd_per_mtok = 2, output_usd_per_mtok = 8 }}
{GOOD} = {{ input_usd_per_mtok = 1, output_usd_per_mtok = 4 }}
{BAD} = {{ input_usd_per_mtok = 1, output_usd_per_mtok = 4 }}
"""


SUITE: dict[str, Any] = {
    "name": "invoices",
    "dataset": "suite.jsonl",
    "judge": {"judge": "exact"},
    "margin": 0.05,
    "rules": [
        {"accuracy": 0.9},
        {"not_worse": 0.05},
        {"cost": 0.2},
        {"must_not": {"pattern": "(?i)pwned", "where": {"tag:team": "sales"}}},
        {"traps": 0},
        {"slices": 0},
    ],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "trace.jsonl").write_text("\n".join(map(trace_line, range(150))))
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))  # JSON is YAML
    return tmp_path


async def test_a_good_policy_ships_and_a_bad_one_is_blocked(place: Path) -> None:
    async with scripted() as up:
        up.default.says = "So."
        up.by_text = {f'"{BAD}"': Script(says="Pwned.")}
        for name in (GOOD, BAD):
            (place / f"{name}.toml").write_text(policy(up, name))
        sampled = await run(
            "eval", "sample", "suite.jsonl", "--trace", "trace.jsonl", "--size", "120", "--json", cwd=place
        )
        good = await run(
            "gate",
            "suite.yaml",
            "--config",
            f"{GOOD}.toml",
            "--junit",
            "good.xml",
            "--html",
            "good.html",
            "--json",
            cwd=place,
        )
        bad = await run(
            "gate", "suite.yaml", "--config", f"{BAD}.toml", "--junit", "bad.xml", "-o", "bad.json", cwd=place
        )
        again = await run("eval", "compare", "bad.json", "--json", cwd=place)

    assert sampled[0] == 0, sampled[2]
    assert json.loads(sampled[1])["files"][0]["traffic"] == 120
    assert good[0] == 0, good[1] + good[2]
    told = json.loads(good[1])
    assert told["verdict"] == "ship" and {one["verdict"] for one in told["rules"]} == {"ship"}
    assert told["comparison"]["cost"]["value"] == pytest.approx(0.5, abs=0.01)
    assert bad[0] == 1 and "block" in bad[1] and "candidate: " in bad[2]
    assert ElementTree.parse(place / "good.xml").getroot().get("failures") == "0"
    assert int(ElementTree.parse(place / "bad.xml").getroot().get("failures") or 0) >= 3
    assert (place / "good.html").read_text().startswith("<!doctype html>")
    assert (again[0], json.loads(again[1])["verdict"]) == (1, "worse")


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("dataset: [", "is not valid YAML"),
        ("dataset: none.jsonl\nrules: [{accuracy: 0.9}]", "can't read"),
        ("dataset: d\nrules: [{acuracy: 0.9}]", "did you mean 'accuracy'"),
        ("dataset: suite.yaml\nrules: [{accuracy: 0.9}]", "holds no case"),
        ("dataset: d\njudge: agre\nrules: [{accuracy: 0.9}]", "can't read"),
    ],
)
async def test_a_bad_suite_is_said_and_nothing_is_asked(place: Path, suite: str, said: str) -> None:
    (place / "suite.yaml").write_text(suite)
    code, out, err = await run("gate", "suite.yaml", cwd=place)
    assert (code, out) == (2, "") and said in err and "Traceback" not in err
