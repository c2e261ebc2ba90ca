"""`farthing experiment` through the real command line, beside a farthing that runs and without one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.fakes.commands import farthing
from tests.fakes.upstream import scripted
from tests.scenario.test_serve import ask, serving

QUIET = {"FARTHING_SEMANTIC__MODE": "off"}
CONFIG = """
[[experiments]]
name = "shorter-life"
metric = "rating"
unit = "request"
minimum_days = 0
baseline = 0.8
least_effect = 0.1
slices = ["model"]
guardrails = [{metric = "error", at_most_worse = 0.05}]
arms = [
    {name = "as-is", share = 0.5},
    {name = "shorter", policy = "shorter.toml", share = 0.5},
]
"""


async def experiment(cwd: Path, *arguments: str, status: int = 0) -> str:
    given = ("experiment", *arguments, "--state", "state")
    done = await asyncio.to_thread(lambda: farthing(*given, cwd=cwd, **QUIET))
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


async def test_an_experiment_from_its_declaration_to_its_record(tmp_path: Path) -> None:
    (tmp_path / "farthing.toml").write_text(CONFIG)
    (tmp_path / "shorter.toml").write_text('[semantic]\nmode = "off"\n[cache]\nttl_s = 60\n')
    async with scripted() as up, serving(up, tmp_path) as (_, client):
        for number in range(40):
            answer = await ask(client, f"question {number}")
            said = {"id": answer.headers["x-farthing-id"], "rating": "good" if number % 4 else "bad"}
            await client.post("/farthing/api/feedback", json=said, headers={"x-farthing-admin": "1"})
        for _ in range(100):
            (one,) = json.loads(await experiment(tmp_path, "list", "--json"))["experiments"]
            if one["reading"] and sum(one["reading"]["candidates"]["shorter"]["metrics"]["rating"]["units"]) == 40:
                break
        assert (one["state"], one["reading"]["candidates"]["shorter"]["word"]) == ("running", "undecided")
        assert one["declaration"]["power"]["units_per_arm"] > 100
        shown = await experiment(tmp_path, "show", "shorter-life", "--html", "effect.html")
        assert "rating decides, at level 0.05, by request" in shown
        assert "guardrail: at most 0.05 worse" in shown
        assert "model = m" in shown
        page = (tmp_path / "effect.html").read_text()
        assert page.startswith("<!doctype html>")
        assert "<script" not in page
        assert "no experiment" in await experiment(tmp_path, "show", "another", status=1)
        assert "running" in await experiment(tmp_path, "stop", "another", status=1)
        assert "stopped: seen enough" in await experiment(tmp_path, "stop", "shorter-life", "--why", "seen enough")
        assert "doesn't run" not in await experiment(tmp_path, "list")
    assert "stopped" in await experiment(tmp_path, "list")
    assert "no farthing runs" in await experiment(tmp_path, "stop", "shorter-life", status=3)
    (record,) = (tmp_path / "state" / "experiments").glob("e-*.txt")
    kept: Any = json.loads(record.with_suffix(".json").read_text())
    assert (kept["state"], kept["why"]) == ("stopped", "seen enough")
    assert "From " in record.read_text()


async def test_what_it_takes_is_said_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "farthing.toml").write_text(CONFIG)
    done = await asyncio.to_thread(lambda: farthing("experiment", "power", cwd=tmp_path, **QUIET))
    assert done.returncode == 0 and "shorter-life: about " in done.stdout, done.stderr
    assert not (tmp_path / "state").exists()


async def test_where_there_was_none(tmp_path: Path) -> None:
    assert "no experiment was ever begun" in await experiment(tmp_path, "list")


def test_a_page_shows_the_effect_over_time() -> None:
    from farthing.proxy.experiment_book import Record, RecordArm
    from farthing.proxy.experiment_page import page

    arms = [RecordArm("a", "p-1", 0.5), RecordArm("<b>", "p-2", 0.5)]
    record = Record.begin("x", "d", {"metric": "rating"}, arms, 0.0)
    record.point(0.0, {"<b>": [0.1, None, None]})
    for day in range(1, 20):
        record.point(86_400.0 * day, {"<b>": [0.1, 0.1 - 1 / day, 0.1 + 1 / day]})
    shown = page(record).decode()

    assert shown.count("<polygon") == 1
    assert "&lt;b&gt; minus a" in shown
    assert "<b>" not in shown
    assert "td:first-child { min-width: 5rem; }" in shown  # a long note had left an arm's name a letter a line


def test_a_long_history_is_thinned() -> None:
    from farthing.proxy.experiment_book import Record

    record = Record.begin("x", "d", {}, [], 0.0)
    for number in range(2000):
        record.point(float(number), {})

    assert 200 <= len(record.points) <= 400
    assert record.points[0][0] == 0.0
    assert record.points[-1][0] > 1990.0
