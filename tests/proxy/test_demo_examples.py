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
from farthing.proxy.config_warnings import warnings
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
    assert {route.mode for route in config.routes} == {"observe", "prove", "serve"}
    assert any(route.fallbacks for route in config.routes)
    assert any(route.hedge_after_ms for route in config.routes)
    assert any(one.replicas for one in config.upstreams)
    assert any(one.api_keys for one in config.upstreams)
    assert {one.hard for one in config.budgets} == {True, False}
    named = "aliases prompt_cache auth budgets rate_limits alerts spend store rollout gates defer cache shadow"
    assert set(named.split()) <= config.model_fields_set
    assert len({route.name for route in config.routes}) == len(config.routes)
    assert warnings(config) == []


SHOWN = {
    "upstreams": "name style url replicas balance max_in_flight health_path breaker_failures breaker_pause_s retries"
    " retry_base_s retry_max_s retry_after_send api_key api_keys api_version provider thinking max_tokens_default batch"
    " batch_price_times batch_max_items batch_window_s",
    "variants": "name upstream model kind context_tokens images files params quality quality_source",
    "routes": "name mode model tag tenant endpoint min_tokens_in tools images strategy after variants weights"
    " min_quality usd_per_s fallbacks on accept hedge_after_ms hedge_share max_worse",
    "prompt_cache": "mode one_hour stable_tools keep_warm keep_warm_daily_usd",
    "spend": "daily_usd unpriced",
    "alerts": "webhook secret key_budgets",
    "rollout": "level steps hold_s min_requests unit error_ratio latency_ratio cost_ratio gate",
    "shadow": "share daily_usd",
}


@pytest.mark.parametrize("section", SHOWN)
def test_each_key_that_somebody_may_look_for_is_shown(section: str) -> None:
    found: set[str] = set()
    for text in blocks().values():
        shown = tomllib.loads(text).get(section, {})
        found |= {key for one in (shown if isinstance(shown, list) else [shown]) for key in one}
    assert set(SHOWN[section].split()) - found == set()


def test_styles_checks_and_commands_are_shown(tmp_path: Path) -> None:
    needed = "\n".join(blocks().values())
    config = loaded(tmp_path, "\n".join([written(tmp_path), needed]))
    assert {one.style for one in config.upstreams} >= {"anthropic", "azure", "gemini", "ollama", "openai", "vllm"}
    checks = [route.accept for route in config.routes if route.strategy == "cascade"]
    assert any(one.agree > 1 for one in checks)
    assert any(one.judge for one in checks)
    assert any(one.min_confidence for one in checks)
    for words in ("farthing policy rollback", "farthing policy off", "a file OFF", "replicas/drain"):
        assert words in examples()
