"""Judges in an evaluation: a real private proxy asks the model and knows the price; code is run only where allowed."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from farthing.policies.answer import Answer
from farthing.policies.judges import JudgeCase
from farthing.proxy.cli import app
from farthing.proxy.config import Config, load
from farthing.proxy.eval_judge import EvalJudge
from farthing.proxy.judge_code import CodeLimits
from farthing.proxy.judging import any_judge
from tests.fakes.proxying import PRICES
from tests.fakes.upstream import Script, ScriptedUpstream

PAIRWISE = {"judge": "pairwise", "model": "m"}


def config(up: ScriptedUpstream) -> Config:
    flags: dict[str, Any] = {"upstream.url": up.url, "upstream.retries": 0, "semantic.mode": "off", "prices": PRICES}
    return load(None, {}, flags)


def case(answer: str, reference: str) -> JudgeCase:
    return JudgeCase({"messages": [{"role": "user", "content": "6 x 7?"}]}, Answer(answer), Answer(reference))


async def test_a_model_judge_is_asked_through_a_private_proxy_and_its_bill_is_the_upstreams(
    up: ScriptedUpstream,
) -> None:
    up.default.says = "2"
    up.by_text = {'answer_1\\": \\"right\\"': Script(says="1")}
    judge = EvalJudge(any_judge(PAIRWISE), config(up))
    found = await judge.judge([case("right", "wrong"), case("wrong", "right"), case("right", "right")])

    assert [score.value for score in found] == [1.0, 0.0, 0.5]
    assert len(up.calls) == 4
    assert sum(score.cost_pico or 0 for score in found) == up.bill(("2", "1", "8")) * 10**12
    assert judge.name == "pairwise"


async def test_without_money_a_model_judge_says_nothing(up: ScriptedUpstream) -> None:
    judge = EvalJudge(any_judge(PAIRWISE), config(up), max_usd=Decimal(0))
    found = await judge.judge([case("right", "wrong")])

    assert found[0].value is None
    assert not up.calls


@pytest.mark.parametrize(("code", "value"), [(CodeLimits(), 1.0), (None, None)])
async def test_code_is_run_only_where_allowed(up: ScriptedUpstream, code: CodeLimits | None, value: Any) -> None:
    judge = EvalJudge(any_judge({"judge": "code", "tests": "assert x == 42"}), config(up), code=code)

    assert (await judge.judge([case("x = 6 * 7", "")]))[0].value == value


async def test_a_judge_of_ones_own_beside_the_suite_by_the_real_command(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default.says = "Forty-two."
    (tmp_path / "house_style.py").write_text("def full_stop(case): return case.answer.text.rstrip().endswith('.')\n")
    (tmp_path / "suite.jsonl").write_text(
        "".join(json.dumps({"prompt": f"6 x {n}?", "reference": "-"}) + "\n" for n in range(6))
    )
    (tmp_path / "c.toml").write_text(f'[upstream]\nurl = "{up.url}"\n[semantic]\nmode = "off"\n')
    table = '{judge = "custom", path = "house_style:full_stop"}'
    command = ["eval", "run", str(tmp_path / "suite.jsonl"), "--config", str(tmp_path / "c.toml"), "--judge", table]

    result = await asyncio.to_thread(CliRunner().invoke, app, [*command, "--json"])

    told = json.loads(result.stdout)
    assert told["judge"] == "custom"
    assert (told["baseline"], told["candidate"]) == (1.0, 1.0)


def labelled(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


async def test_a_judge_beside_people_by_the_real_command(up: ScriptedUpstream, tmp_path: Path) -> None:
    """A model that always names the first answer agrees with nobody, and one that knows agrees with all."""
    lines = [
        {"prompt": f"{n}?", "answer": "right" if n % 2 else "wrong", "reference": "wrong" if n % 2 else "right",
         "label": "better" if n % 2 else "worse"} for n in range(12)
    ]  # fmt: skip
    file = labelled(tmp_path / "l.jsonl", *lines, "{no json")
    (tmp_path / "c.toml").write_text(
        f'[upstream]\nurl = "{up.url}"\n[semantic]\nmode = "off"\n'
        '[prices.models.m]\ninput_usd_per_mtok = "2"\noutput_usd_per_mtok = "8"\n'
    )
    told = '{judge = "pairwise", model = "m"}'
    command = ["eval", "judge", str(file), "--judge", told, "--config", str(tmp_path / "c.toml"), "--json"]
    up.default.says = "1"
    deaf = await asyncio.to_thread(CliRunner().invoke, app, command)
    spent = up.bill(("2", "1", "8"))
    up.default.says, up.by_text = "2", {'answer_1\\": \\"right\\"': Script(says="1")}
    wise = await asyncio.to_thread(CliRunner().invoke, app, command)

    first, second = json.loads(deaf.stdout), json.loads(wise.stdout)
    assert (first["cases"], first["unsaid"], first["agreed"]["value"]) == (12, 12, None)
    assert first["unsaid_reasons"] == {"its verdict turns with the order": 12}
    assert first["judge_usd"] == pytest.approx(float(spent))
    assert (second["unsaid"], second["kappa"]["value"]) == (0, 1.0)
    assert second["found"]["worse"]["low"] < 0.7  # six cases are few
    assert "line 13 left out" in wise.stderr


def test_a_labelled_set_for_a_person_and_a_wrong_one(tmp_path: Path) -> None:
    good = {"prompt": "?", "answer": "Yes.", "reference": "yes", "label": "good"}
    bad = {"prompt": "?", "answer": "No.", "reference": "yes", "label": "bad"}
    shown = CliRunner().invoke(app, ["eval", "judge", str(labelled(tmp_path / "a", good, bad)), "--judge", "text"])

    assert shown.exit_code == 0
    assert "agrees with people" in shown.stdout and "100.0%" in shown.stdout and "$0.000000" in shown.stdout
    for lines in ([], [good, bad | {"label": "tie"}]):
        refused = CliRunner().invoke(app, ["eval", "judge", str(labelled(tmp_path / "b", *lines))])
        assert refused.exit_code != 0
