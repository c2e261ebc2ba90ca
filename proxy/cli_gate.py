"""`farthing gate SUITE`: an evaluation with declared rules; the exit status is the verdict. Thin."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from farthing.policies.gate import Gate, gate_of
from farthing.proxy.cli_judge import judging_of
from farthing.proxy.errors import ConfigFault

if TYPE_CHECKING:
    from farthing.proxy.eval_run import Judging

__all__ = ["gate", "read_gate"]

_PIPED = Path("-")


def read_gate(path: Path) -> Gate:
    """The suite's gate. Raises ConfigFault: it can't be read, or a key is wrong."""
    try:
        import yaml
    except ImportError:
        raise ConfigFault(
            "a gate's suite is YAML, and pyyaml isn't installed here: pip install 'farthing[eval]'"
        ) from None
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFault(f"can't read {path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise ConfigFault(f"{path} is not valid YAML: {error}") from None
    try:
        return gate_of(value)
    except ConfigFault as fault:
        raise ConfigFault(f"{path}: {fault}") from None


def gate(
    suite: Path,
    config: Path | None,
    out: Path | None,
    junit: Path | None,
    html: Path | None,
    key_env: str,
    at_once: int,
    max_usd: float,
    learnt: Path | None,
    seed: int,
    *,
    run_code: bool,
    as_json: bool,
) -> int:
    """Run the evaluation and decide; 0: ship, 1: block or inconclusive. Raises ConfigFault."""
    import numpy as np

    from farthing.policies.gate import decide
    from farthing.proxy import gate_report
    from farthing.proxy.clock import SystemClock
    from farthing.proxy.config import load, piped
    from farthing.proxy.eval_arm import Arm, plain
    from farthing.proxy.eval_run import Run, load_cases, run, save_run
    from farthing.proxy.logs import set_up
    from farthing.proxy.progress import Steps

    declared = read_gate(suite)
    beside = suite.parent
    candidate = (
        piped(sys.stdin.buffer.read())
        if config == _PIPED
        else load(beside / declared.candidate if declared.candidate and config is None else config)
    )
    baseline = load(beside / declared.baseline) if declared.baseline else plain(candidate)
    cases, broken = load_cases(beside / declared.dataset)
    for line, why in broken[:10]:
        typer.echo(f"{declared.dataset}, line {line}: {why}", err=True)
    key, money = os.environ.get(key_env, ""), Decimal(str(max_usd))

    def judge_of(table: Mapping[str, Any]) -> Judging:
        return judging_of(table, candidate, beside, key, money, run_code=run_code)

    checks = tuple((str(at), judge_of(rule.check)) for at, rule in enumerate(declared.rules) if rule.check is not None)
    wanted = Run(
        Arm("baseline", baseline),
        Arm("candidate", candidate, learnt),
        cases,
        judge_of(declared.judge),
        key,
        at_once,
        money,
        checks=checks,
    )
    set_up(candidate.log.model_copy(update={"level": "error"}))
    with Steps(sys.stderr.isatty()) as steps:
        found = asyncio.run(run(wanted, SystemClock().now_s(), steps.tell))
    if out is not None:
        save_run(out, found)
    try:
        word, verdicts, whole = decide(declared, found.results, np.random.default_rng(seed))
    except ValueError as error:
        raise ConfigFault(str(error)) from None
    if junit is not None:
        _write(junit, gate_report.junit(declared, verdicts).encode())
    if html is not None:
        from farthing.proxy.eval_page import page

        _write(html, page(whole, f"gate {declared.name}: {word}"))
    if as_json:
        typer.echo(json.dumps(gate_report.as_json(declared, word, verdicts, whole), indent=2))
    else:
        width = None if sys.stdout.isatty() else 130
        Console(width=width).print(gate_report.terminal(declared, word, verdicts, whole))
    return 0 if word == "ship" else 1


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigFault(f"can't write {path}: {error.strerror}") from None
