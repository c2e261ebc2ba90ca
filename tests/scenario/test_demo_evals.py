"""The story of `make demo-evals`: a good policy passes, a bad one is blocked, a regression is taken back by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farthing.proxy.demo_world import World, asked
from farthing.proxy.traffic import load_questions
from tests.scenario.test_demo import TIMEOUT_S, run_demo


@pytest.mark.timeout(TIMEOUT_S)
def test_the_story_ends_as_it_should(tmp_path: Path) -> None:
    ended = run_demo(tmp_path, "--once", target="demo-evals")
    told = json.loads((tmp_path / "told.json").read_text())
    assert told == {"shipped": True, "blocked": True, "rolled_back": True, "alarms": True}, ended.stdout
    assert ended.returncode == 0
    assert (tmp_path / "gate-small.html").read_text().startswith("<!doctype html>")
    assert "was rolled back at" in ended.stdout


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
