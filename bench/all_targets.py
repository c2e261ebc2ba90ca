"""Every target in one table: what each experiment's last run left in its JSON, with the command that measures it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.report import Target, table

__all__ = ["collected", "lacking", "told"]


def collected(results: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """The reports of the names that have one, in their order."""
    return [json.loads(path.read_text("utf-8")) for name in names if (path := results / f"{name}.json").exists()]


def lacking(results: Path, names: Iterable[str]) -> list[str]:
    """The names of those that have no run to be read from."""
    return [name for name in names if not (results / f"{name}.json").exists()]


def told(reports: Iterable[dict[str, Any]], without: Iterable[str] = ()) -> str:
    """The section: a row for each target, those of one run together, then how many were missed. `without`: the names
    of experiments that have no row."""
    rows = []
    missed = 0
    for report in reports:
        for one in report["targets"]:
            target = Target(**one)
            missed += target.passed is False
            command = f"`{command_of(report['experiment'])}`"
            rows.append([target.what, target.goal, target.measured, target.baseline, target.verdict, command])
    if not rows:
        return "No run yet."
    columns = ["target", "goal", "measured", "baseline", "verdict", "command"]
    more = [f"Without rows, since it has not been run here: `{command_of(name)}`." for name in without]
    return "\n".join([*table(columns, rows), "", " ".join([f"{len(rows)} targets, {missed} of them missed.", *more])])


def command_of(name: str) -> str:
    """What measures an experiment's targets."""
    return f"python -m bench.run {name}"
