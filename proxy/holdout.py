"""Hold-outs: the active policy with an optimiser switched off, for a random share of traffic. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from farthing.proxy.config import Config
from farthing.proxy.config_experiments import MetricSection
from farthing.proxy.experiment_reading import Plan
from farthing.proxy.versions import policy_version

__all__ = ["arms_of", "holdout_plan"]


def arms_of(config: Config, names: Sequence[str]) -> list[tuple[str, Config]]:
    """The arms that differ from the active policy and from each other, in the order of `names`."""
    found: list[tuple[str, Config]] = []
    known = {policy_version(config)}
    for name in dict.fromkeys(names):
        arm = without(config, name)
        version = policy_version(arm)
        if version not in known:
            known.add(version)
            found.append((name, arm))
    return found


def without(config: Config, name: str) -> Config:
    """With one optimiser off, or all of them."""
    routes = tuple(one.model_copy(update={"mode": "off"}) for one in config.routes)
    semantic = config.semantic.model_copy(update={"mode": "off"})
    off = {"tidy": False, "recode": "off", "squeeze": "off", "retrieval": False, "reduce_html": False}
    compress = config.compress.model_copy(update=off)
    changes: dict[str, dict[str, Any]] = {
        "no-semantic": {"semantic": semantic},
        "no-compress": {"compress": compress},
        "no-route": {"routes": routes},
        "all-off": {
            "semantic": semantic,
            "compress": compress,
            "routes": routes,
            "cache": config.cache.model_copy(update={"mode": "off"}),
            "prompt_cache": config.prompt_cache.model_copy(
                update={"mode": "off", "stable_tools": False, "keep_warm": False}
            ),
        },
    }
    return config.model_copy(update=changes[name])


def holdout_plan(shares: tuple[float, ...]) -> Plan:
    """Cost decides, which never ends it; latency, errors and ratings stand beside it."""
    metrics = tuple(MetricSection(metric=name) for name in ("cost_usd", "rating", "error", "latency_ms"))
    return Plan(metrics, {}, shares, 0.05, 0.0, (float("inf"), 0.0))
