"""Hold-outs: the active policy with an optimiser switched off, for a random share of traffic. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from farthing.policies.outcome import FRESH
from farthing.proxy.config import Config
from farthing.proxy.config_experiments import HoldoutSection, MetricSection
from farthing.proxy.config_routes import RouteSection
from farthing.proxy.experiment_book import hash_of
from farthing.proxy.experiment_reading import QUALITIES, Plan
from farthing.proxy.versions import policy_version

__all__ = ["arms_of", "declared", "holdout_plan"]


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
    """With one optimiser off, or all of them; where it does nothing now, the configuration itself.

    Near-duplicates need the exact cache, so `no-exact` is without both.
    """
    routes = tuple(one.model_copy(update={"mode": "off"}) for one in config.routes)
    semantic = config.semantic.model_copy(update={"mode": "off"})
    off = {"tidy": False, "recode": "off", "squeeze": "off", "retrieval": False, "reduce_html": False}
    compress = config.compress.model_copy(update=off)
    unmarked = {"mode": "off", "stable_tools": False, "keep_warm": False}
    prompt_cache = config.prompt_cache.model_copy(update=unmarked)
    exact = config.cache.model_copy(update={"mode": "off"})
    students = {one.name for one in config.variants if one.student}
    changes: dict[str, dict[str, Any]] = {
        "no-exact": {"cache": exact},
        "no-student": {"routes": tuple(_taught_by_none(one, students) for one in config.routes)},
        "no-prompt-cache": {"prompt_cache": prompt_cache} if config.prompt_cache.mode == "serve" else {},
        "no-semantic": {"semantic": semantic},
        "no-compress": {"compress": compress},
        "no-route": {"routes": routes},
        "all-off": {
            "semantic": semantic,
            "compress": compress,
            "routes": routes,
            "cache": exact,
            "prompt_cache": prompt_cache,
        },
    }
    return config.model_copy(update=changes[name])


def _taught_by_none(route: RouteSection, students: Collection[str]) -> RouteSection:
    """The route with its teachers alone. A cascade that has one variant left asks it, and checks nothing."""
    left = tuple(name for name in route.variants if name not in students)
    if left == route.variants:
        return route
    if len(left) > 1:
        return route.model_copy(update={"variants": left})
    given = route.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"accept"})
    return RouteSection.model_validate(given | {"variants": left, "strategy": "fixed"})


def declared(section: HoldoutSection) -> str:
    """Changes where the declaration does; nothing compared is as if that could not be declared."""
    return hash_of(section.model_dump(mode="json", exclude=None if section.compared else {"compared"}))


def holdout_plan(shares: tuple[float, ...], *, compared: bool = False) -> Plan:
    """Cost decides, which never ends it; latency, errors, ratings, and what shadows, audits and fresh answers said
    stand beside it."""
    names = ("cost_usd", "rating", "error", "latency_ms", *QUALITIES, *((FRESH,) if compared else ()))
    metrics = tuple(MetricSection(metric=name) for name in names)
    return Plan(metrics, {}, shares, 0.05, 0.0, (float("inf"), 0.0))
