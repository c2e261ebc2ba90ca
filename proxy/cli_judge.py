"""Judges on the command line: the one that a table declares, and `farthing eval judge`, which puts it beside people."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from farthing.proxy.errors import ConfigFault

if TYPE_CHECKING:
    from farthing.policies.judge_agreement import LabelledCase
    from farthing.proxy.config import Config
    from farthing.proxy.eval_run import Judging

__all__ = ["EXAMPLE", "RunCodeOption", "judge_labelled", "judging_of"]

EXAMPLE = """Example: farthing eval judge labelled.jsonl --judge '{judge="pairwise", model="gpt-5-mini"}'"""
RunCodeOption = Annotated[
    bool, typer.Option("--run-code", help="Judges may run code out of answers here, as this user: see the docs.")
]


def judge_labelled(
    labelled: Annotated[Path, typer.Argument(help="JSON lines {prompt, answer, reference, label, group}.")],
    judge: Annotated[str, typer.Option(help='A judge: agree, or {judge="number", tolerance=0.01}.')] = "agree",
    config: Annotated[Path | None, typer.Option(help="Configuration file (default: ./farthing.toml).")] = None,
    key_env: Annotated[str, typer.Option(help="The environment variable with the upstream's key.")] = "OPENAI_API_KEY",
    max_usd: Annotated[float, typer.Option(min=0, help="What a model judge may spend.")] = 5.0,
    run_code: RunCodeOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine to read.")] = False,
) -> None:
    """How far a judge can be trusted: its verdicts beside people's labels (good, bad; or better, worse, tie)."""
    import asyncio

    from farthing.policies.judge_agreement import PREFERENCE, QUALITY, Verdict, agreement, word_of
    from farthing.proxy import eval_agreement
    from farthing.proxy.config import load
    from farthing.proxy.logs import set_up

    cases = _read(labelled)
    loaded = load(config)
    key, money = os.environ.get(key_env, ""), Decimal(str(max_usd))
    judging = judging_of(judge, loaded, labelled.parent, key, money, run_code=run_code)
    words = PREFERENCE if any(one.label in PREFERENCE for one in cases) else QUALITY
    set_up(loaded.log.model_copy(update={"level": "error"}))
    scores = asyncio.run(judging.judge([one.case for one in cases]))
    found = agreement(
        [Verdict(one.label, word_of(score, words), one.group) for one, score in zip(cases, scores, strict=True)]
    )
    costs = [score.cost_pico for score in scores]
    pico = None if any(cost is None for cost in costs) else sum(cost or 0 for cost in costs)
    reasons = Counter(score.reason for score in scores if score.value is None)
    if as_json:
        typer.echo(json.dumps({"judge": judging.name, **eval_agreement.as_json(found, pico, reasons)}, indent=2))
    else:
        width = None if sys.stdout.isatty() else 120
        Console(width=width).print(eval_agreement.terminal(found, judging.name, pico, reasons))


def _read(path: Path) -> list[LabelledCase]:
    """Raises ConfigFault: it can't be read, holds no case, or labels of both kinds."""
    from farthing.policies.judge_agreement import PREFERENCE, LabelledCase, read_labelled

    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigFault(f"can't read {path}: {error.strerror}") from None
    found = list(read_labelled(lines))
    for one in found:
        if not isinstance(one, LabelledCase):
            typer.echo(f"line {one[0]} left out: {one[1]}", err=True)
    cases = [one for one in found if isinstance(one, LabelledCase)]
    if not cases:
        raise ConfigFault(f"{path} holds no labelled case")
    if len({one.label in PREFERENCE for one in cases}) > 1:
        raise ConfigFault(f"{path} holds labels of both kinds: good and bad, and better, worse and tie")
    return cases


def judging_of(
    said: str | Mapping[str, Any],
    config: Config,
    folder: Path,
    key: str = "",
    max_usd: Decimal | None = None,
    *,
    run_code: bool = False,
) -> Judging:
    """The judge that `--judge` names, or a table declares. `folder`: where a custom judge's module may lie. `config`,
    `key`, `max_usd`: of a model judge's upstream. Raises ConfigFault."""
    from farthing.cache.embedder import EmbedderUnavailable, open_embedder
    from farthing.proxy.eval_judge import EvalJudge
    from farthing.proxy.judge_code import CodeLimits
    from farthing.proxy.judging import any_judge

    table: Mapping[str, Any] = {"judge": said} if isinstance(said, str) else said
    if isinstance(said, str) and said.lstrip().startswith("{"):
        import tomllib

        try:
            table = tomllib.loads(f"v = {said}")["v"]
        except tomllib.TOMLDecodeError as error:
            raise ConfigFault(f"--judge: {error}") from None
    embed = None
    if table.get("judge", "agree") in ("agree", "similar"):
        try:
            embed = open_embedder(config.semantic.model).embed
        except EmbedderUnavailable:
            embed = None
    code = CodeLimits() if run_code else None
    return EvalJudge(any_judge(table, embed, folder), config, key, max_usd, code)
