"""The example for a CI system: it is YAML, and its commands are farthing's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from farthing.proxy.cli import app

EXAMPLE = Path(__file__).parents[2] / "deploy" / "ci" / "github-gate.yml"


def test_every_option_of_the_example_exists() -> None:
    value: Any = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    runs = [step["run"] for step in value["jobs"]["gate"]["steps"] if "run" in step]
    command = next(run for run in runs if run.startswith("farthing gate"))
    told = CliRunner().invoke(app, ["gate", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for option in re.findall(r"--[a-z-]+", command):
        assert option in told
