"""The story of `make demo-evals`: a good policy passes, a bad one is blocked, a regression is taken back by itself."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from farthing.proxy.demo_world import World, asked
from farthing.proxy.traffic import load_questions
from tests.scenario.test_serve import CLEAN


async def test_the_story_ends_as_it_should(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "farthing.proxy.cli", "demo", "--evals", "--once", "--state", str(tmp_path)),
        cwd=tmp_path,
        env=CLEAN,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(child.communicate(), 280)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told == {"shipped": True, "blocked": True, "rolled_back": True, "alarms": True}, out.decode()
    assert child.returncode == 0
    assert (tmp_path / "gate-small.html").read_text().startswith("<!doctype html>")
    assert b"was rolled back at" in out


def test_the_world_is_as_right_as_it_says() -> None:
    world = World(load_questions())
    rate = {}
    for model in ("world-large", "world-small", "world-hasty"):
        bodies = [asked(question, number, model) for number in range(10) for question in load_questions()]
        messages = [body["messages"][-1]["content"] for body in bodies]  # type: ignore[index]
        rate[model] = sum(world.says(model, message) == world.right(message) for message in messages) / len(messages)
    assert rate["world-large"] > 0.98 and 0.96 < rate["world-small"] < 0.995 and 0.7 < rate["world-hasty"] < 0.8
    world.regressed = True
    assert world.says("world-large", messages[0]) == world.right(messages[0])
