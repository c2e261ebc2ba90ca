"""An evaluation over real private proxies and a scripted upstream whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farthing.policies.compare import Comparison, compare
from farthing.policies.dataset import EvalCase
from farthing.policies.judges import Judge, JudgeCase, Score, judge_of
from farthing.proxy.config import Config, load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.eval_arm import Arm, _prepare, isolated, plain
from farthing.proxy.eval_run import Run, RunFile, load_cases, load_run, run, save_run
from tests.fakes.proxying import PRICES, chat
from tests.fakes.upstream import Script, ScriptedUpstream

NOW_S = 1_800_000_000.0


@dataclass(frozen=True, slots=True)
class FreeJudge:
    """A judge that needs nobody."""

    one: Judge

    @property
    def name(self) -> str:
        return self.one.name

    async def judge(self, cases: Sequence[JudgeCase]) -> list[Score]:
        return [self.one.judge(case) for case in cases]


def config(up: ScriptedUpstream, **more: Any) -> Config:
    flags = {"upstream.url": up.url, "upstream.retries": 0, "semantic.mode": "off", "prices": PRICES}
    return load(None, {}, flags | {name.replace("__", "."): value for name, value in more.items()})


def cases(count: int = 12, **more: Any) -> tuple[EvalCase, ...]:
    return tuple(EvalCase(f"c{number}", chat(f"question number {number}?"), **more) for number in range(count))


async def ran(up: ScriptedUpstream, candidate: Config, of: tuple[EvalCase, ...], **more: Any) -> RunFile:
    base = Arm("baseline", plain(config(up)))
    return await run(Run(base, Arm("candidate", candidate), of, FreeJudge(judge_of({"judge": "exact"})), **more), NOW_S)


def compared(found: RunFile) -> Comparison:
    return compare(found.results, np.random.default_rng(1))


async def test_an_arm_that_answers_alike_is_as_good_and_its_money_is_the_ledgers(up: ScriptedUpstream) -> None:
    up.default.says = "Forty-two."
    told: list[tuple[str, int, int]] = []
    base, of = Arm("baseline", plain(config(up))), cases(reference=None)
    wanted = Run(base, Arm("candidate", config(up)), of, FreeJudge(judge_of({"judge": "exact"})))
    found = await run(wanted, NOW_S, lambda *said: told.append(said))
    assert [one.candidate.score for one in found.results] == [1.0] * 12
    assert [one.noise for one in found.results] == [1.0] * 12
    assert len(up.calls) == 36  # the baseline twice, since there was no reference, the candidate once
    assert sum(one.candidate.cost_pico or 0 for one in found.results) * 3 == up.bill(("2", "1", "8")) * 10**12
    assert told[-1] == ("judged", 12, 12) and ("candidate", 12, 12) in told


async def test_a_cheaper_model_that_is_wrong_is_found_worse(up: ScriptedUpstream) -> None:
    up.default.says = "right"
    up.by_text = {'"cheap"': Script(says="wrong")}
    routed = config(
        up,
        variants=[{"name": "small", "model": "cheap"}],
        routes=[{"name": "all", "mode": "serve", "model": "m", "strategy": "fixed", "variants": ["small"]}],
        prices={"models": PRICES["models"] | {"cheap": {"input_usd_per_mtok": "0.2", "output_usd_per_mtok": "0.8"}}},
    )
    found = compared(await ran(up, routed, cases(60)))
    assert (found.verdict.word, found.baseline, found.candidate) == ("worse", 1.0, 0.0)
    assert found.cost is not None and found.cost.value < 0.2


async def test_recorded_references_judge_both_arms(up: ScriptedUpstream) -> None:
    up.default.says = "A"
    answer = {"choices": [{"message": {"role": "assistant", "content": "B "}, "finish_reason": "stop"}]}
    found = compared(await ran(up, config(up), cases(reference=answer)))
    assert (found.baseline, found.candidate, found.noise, len(up.calls)) == (0.0, 0.0, None, 24)


async def test_a_trap_that_is_answered_by_its_originals_answer_is_told(up: ScriptedUpstream) -> None:
    up.by_text = {"30 days": Script(says="thirty"), "31 days": Script(says="thirty-one")}
    unproven = config(
        up,
        semantic__mode="serve",
        semantic__unproven=True,
        semantic__threshold=0.0,
        semantic__deadline_ms=5000,
        semantic__audit_daily_usd=0,
    )
    original = EvalCase("a", chat("How do I get my money back within 30 days?"))
    rewording = EvalCase("b", chat("How can I get my money back within 30 days?"), of="a")
    trap = EvalCase(
        "a~number",
        chat("How do I get my money back within 31 days?"),
        source="generated:number",
        of="a",
        expect="other",
    )
    found = await ran(up, unproven, (original, rewording, trap))
    results = {one.id: one for one in found.results}
    assert results["b"].candidate.cache == "hit-semantic" and results["b"].candidate.score == 1.0
    assert [(one.kind, one.baseline, one.candidate, one.reused) for one in compared(found).traps] == [
        ("number", 1.0, 0.0, 1)
    ]


async def test_an_arm_is_its_policy_alone(up: ScriptedUpstream, tmp_path: Path) -> None:
    """The baseline optimises nothing; experiments, hold-outs, TLS and the ledger's settings aren't the policy's."""
    everything = config(
        up,
        compress__retrieval=True,
        compress__reduce_html=True,
        holdout__share=0.5,
        ledger__jsonl=str(tmp_path / "live.jsonl"),
    )
    base = plain(everything)
    assert not (base.compress.retrieval or base.compress.reduce_html or base.prompt_cache.stable_tools)
    up.default.says = "Forty-two."
    assert compared(await ran(up, everything, cases(4))).failed == 0
    assert not (tmp_path / "live.jsonl").exists()
    arm = isolated(everything, tmp_path, None)
    assert arm.holdout.share == 0 and not arm.experiments and arm.server.tls_cert is None


async def test_an_arm_brings_its_students_and_what_routes_have_proved(up: ScriptedUpstream, tmp_path: Path) -> None:
    (tmp_path / "learnt/students/kept").mkdir(parents=True)
    (tmp_path / "learnt/students/kept/a@b.standing.json").write_text("{}")
    (tmp_path / "learnt/route-standings.json").write_text("{}")
    _prepare(tmp_path / "arm", tmp_path / "learnt")
    assert (tmp_path / "arm/route-standings.json").is_file()
    assert (tmp_path / "arm/students/kept/a@b.standing.json").is_file()


async def test_a_failing_arm_ends_nothing_and_counts_against_it(up: ScriptedUpstream) -> None:
    up.by_text = {'"broken"': Script(status=500)}
    broken = config(
        up,
        aliases={"m": "broken"},
    )
    found = compared(await ran(up, broken, cases(8)))
    assert (found.failed, found.candidate, found.baseline) == (8, 0.0, 1.0)


async def test_money_that_is_used_up_ends_the_calls(up: ScriptedUpstream) -> None:
    found = await ran(up, config(up), cases(30), max_usd=Decimal("0.0001"), at_once=1)
    assert {one.candidate.status for one in found.results} == {200, 402}
    assert len(up.calls) < 90


async def test_a_run_is_written_and_read_again(up: ScriptedUpstream, tmp_path: Path) -> None:
    found = await ran(up, config(up), cases(3, slices={"length": "short"}))
    save_run(tmp_path / "run.json", found)
    assert load_run(tmp_path / "run.json") == found
    assert b"question number" not in (tmp_path / "run.json").read_bytes()
    (tmp_path / "other.json").write_text('{"version": 1}')
    for name in ("other.json", "none.json"):
        with pytest.raises(ConfigFault):
            load_run(tmp_path / name)


def test_a_dataset_without_a_case_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": 1}\n')
    with pytest.raises(ConfigFault, match="line 1: no request"):
        load_cases(tmp_path / "a.jsonl")
    with pytest.raises(ConfigFault, match="can't read"):
        load_cases(tmp_path / "b.jsonl")
