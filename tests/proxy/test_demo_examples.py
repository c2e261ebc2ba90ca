"""Examples that `farthing demo` writes as comments: each, taken from its comment, is a valid configuration."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from farthing.policies.routes import Strategy
from farthing.proxy.config import Config, load
from farthing.proxy.demo import COMPRESS, SIMULATED, Demo, examples

SEPARATOR = "# == "
VARIANTS = "Variants"


def blocks() -> dict[str, str]:
    """The settings of each example, without their comment sign, by the example's title."""
    found = {}
    for block in examples().split(SEPARATOR)[1:]:
        title, _, lines = block.partition("\n")
        found[title] = "\n".join(line[1:] for line in lines.splitlines() if line[:1] == "#" and line[1:2] != " ")
    return found


def written(folder: Path) -> str:
    """The demo's own configuration, as it comes."""
    demo = Demo(Console(file=io.StringIO()), SIMULATED, folder, 0)
    return demo._configure("demo.toml", folder / "state", "http://127.0.0.1:9001", "", COMPRESS).read_text("utf-8")


def loaded(folder: Path, text: str) -> Config:
    path = folder / "tried.toml"
    path.write_text(text, "utf-8")
    return load(path, {})


def test_as_written_nothing_of_it_is_on(tmp_path: Path) -> None:
    config = loaded(tmp_path, written(tmp_path))
    assert not config.routed
    assert not config.budgets
    assert not config.auth.virtual_keys


@pytest.mark.parametrize("title", list(blocks()))
def test_each_example_is_valid_and_changes_what_it_names(tmp_path: Path, title: str) -> None:
    needed = "".join(text for name, text in blocks().items() if name.startswith(VARIANTS) and name != title)
    config = loaded(tmp_path, "\n".join([written(tmp_path), needed, blocks()[title]]))
    sections = tomllib.loads(blocks()[title])
    assert sections
    assert sections.keys() <= config.model_fields_set


def test_all_together_are_valid_and_leave_nothing_out(tmp_path: Path) -> None:
    """A line that was neither comment nor setting would be lost above; here the text itself is uncommented."""
    lines = [line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in written(tmp_path).splitlines()]
    config = loaded(tmp_path, "\n".join(lines))
    assert {route.strategy for route in config.routes} == set(get_args(Strategy))
    assert {route.mode for route in config.routes} == {"observe", "serve"}
    assert any(route.fallbacks for route in config.routes)
    assert any(route.hedge_after_ms for route in config.routes)
    assert any(one.replicas for one in config.upstreams)
    assert any(one.api_keys for one in config.upstreams)
    assert {one.hard for one in config.budgets} == {True, False}
    named = "aliases prompt_cache auth budgets rate_limits alerts spend store rollout gates defer cache"
    assert set(named.split()) <= config.model_fields_set
