"""What stands on the terminal when farthing starts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from farthing.proxy.config import load
from farthing.proxy.serve import banner, spending_lines


def shown(state_dir: Path, **flags: Any) -> dict[str, str]:
    """The banner's lines by their names."""
    out = io.StringIO()
    named = {f"compress.{name}": value for name, value in flags.items()}
    config = load(None, {}, {"state_dir": state_dir, "upstream.url": "http://127.0.0.1:9/v1", **named})
    banner(config, "http://127.0.0.1:8080", Console(file=out, width=200, force_terminal=True, color_system=None))
    lines = [line.split(None, 1) for line in out.getvalue().splitlines()]
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


@pytest.mark.parametrize(
    ("flags", "recode", "squeeze"),
    [
        ({}, "observe (told in the ledger, nothing is sent so)", "off"),
        ({"recode": "serve", "shadow_daily_usd": "1"}, "serve where at most 2.00% worse answers are proved", "off"),
        ({"recode": "off", "squeeze": "serve", "unproven": True}, "off", "serve, unproven (no bound on worse answers"),
    ],
)
def test_each_step_of_compression_says_how_far_it_goes(
    tmp_path: Path, flags: dict[str, Any], recode: str, squeeze: str
) -> None:
    lines = shown(tmp_path, **flags)
    assert lines["tidy"] == "on"
    assert lines["recode"].startswith(recode)
    assert lines["squeeze"].startswith(squeeze)


def test_tidy_off_is_said(tmp_path: Path) -> None:
    assert shown(tmp_path, tidy=False)["tidy"] == "off"


LIMITED = """
[[rate_limits]]
name = "burst"
of = "key"
requests_per_min = 5
tokens_per_min = 900
[[rate_limits]]
name = "all"
requests_per_min = 7
[[budgets]]
name = "dear"
of = "model"
only = ["gpt-[45]*", "o[a-z]*"]
usd = 3
"""


def test_limits_say_whose_they_are(tmp_path: Path) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text(LIMITED)
    config = load(file, {}, {"state_dir": tmp_path, "upstream.url": "http://127.0.0.1:9/v1"})
    told = {
        "budgets": "dear: $3 a day for each model of gpt-[45]* or o[a-z]*",
        "rate limits": (
            "burst: 5 requests a minute for each key, burst: 900 tokens a minute for each key, all: 7 requests a minute"
        ),
    }
    assert dict(spending_lines(config)) == told
    out = io.StringIO()
    banner(config, "http://127.0.0.1:8080", Console(file=out, width=200, force_terminal=True, color_system=None))
    assert all(words in out.getvalue() for words in told.values())
