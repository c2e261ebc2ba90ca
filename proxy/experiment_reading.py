"""A reading of an experiment as plain values: what the admin call, the record and the terminal show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from farthing.policies.experiment_sums import DAY_S
from farthing.policies.outcome import FRESH
from farthing.proxy.config_experiments import ExperimentSection, MetricSection, bounds_of, kind_of, up_of
from farthing.proxy.experiment_data import Data
from farthing.proxy.experiment_total import Sums

if TYPE_CHECKING:
    from farthing.policies.estimate import Interval
    from farthing.policies.experiment import Effect, Measure

Watched = Data | Sums
"""Of this process, or of what replicas agree upon."""

__all__ = ["QUALITIES", "Plan", "Verdict", "plan_of", "power", "reading", "verdict_of"]


QUALITIES = ("shadow", "audit")
"""Metrics by which farthing itself says how good answers were: 1 where the model that was asked for says the same."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be looked at. `metrics`: the deciding one first. `limits`: of guardrails, by metric."""

    metrics: tuple[MetricSection, ...]
    limits: dict[str, float]
    shares: tuple[float, ...]
    level: float
    least: float
    days: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a running experiment: '' to go on, else its new state, and why."""

    state: str = ""
    why: str = ""


def plan_of(section: ExperimentSection) -> Plan:
    """Of a declared experiment; cost, latency, errors and ratings are looked at too."""
    named = {section.metric: MetricSection.model_validate(section.model_dump(include=set(MetricSection.model_fields)))}
    for one in section.guardrails:
        shown = one.model_dump(include=set(MetricSection.model_fields))
        named.setdefault(one.metric, MetricSection.model_validate(shown))
    for name in ("cost_usd", "latency_ms", "error", "rating"):
        named.setdefault(name, MetricSection(metric=name))
    limits = {one.metric: one.at_most_worse for one in section.guardrails}
    shares = tuple(arm.share for arm in section.arms)
    days = (section.minimum_days, section.maximum_days)
    return Plan(tuple(named.values()), limits, shares, section.level, section.least_effect, days)


def reading(plan: Plan, data: Watched, now_s: float, least_p: float) -> dict[str, Any]:
    """All that may be said now. Where the shares are wrong, nothing of the results. Works for some milliseconds."""
    from farthing.policies import experiment as said
    from farthing.proxy.errors import ConfigFault

    days = max(0.0, (now_s - data.since_s) / DAY_S)
    with data.lock:
        units = [sums.units for sums in data.assigned.sums]
        p = min(least_p, said.shares_p(data.assigned, plan.shares))
        shares = {"p": p, "broken": p < said.SRM_LEVEL, "units": dict(zip(data.arms, units, strict=True))}
        told: dict[str, Any] = {"at": now_s, "days": round(days, 4), "shares": shares, "left_out": _left_out(data)}
        if shares["broken"]:
            return told
        count = len(data.arms) - 1
        found: dict[str, Any] = {}
        for number, name in enumerate(data.arms[1:], 1):
            metrics: dict[str, Any] = {}
            for one in plan.metrics:
                metrics[one.metric] = _metric(plan, data, one, number, count)
            measure = measure_of(plan, plan.metrics[0], data)
            tracker = data.trackers[plan.metrics[0].metric]
            seen = said.effect(measure, tracker.sums[0], tracker.sums[number], plan.level / count)
            arm: dict[str, Any] = {"metrics": metrics, "lasts": "", "slices": [], "slices_why": ""}
            if days >= plan.days[0]:
                arm["lasts"] = said.lasting(tracker, number, plan.level / count).word
            try:
                if data.slices:
                    arm["slices"] = [
                        one._asdict() | {"apart": _ends(one.apart)}
                        for one in said.slices(measure, data.slices, number, plan.level)
                    ]
            except ConfigFault:
                arm["slices_why"] = "not looked at: farthing[eval] isn't installed"
            words = said.read(measure, seen, days, plan.days, arm["lasts"])
            if data.rest and FRESH in metrics:
                arm["does"] = {"saves_usd": metrics["cost_usd"]["apart"], "loses": metrics[FRESH]["apart"]}
            arm |= {"word": words.word, "final": words.final, "why": words.why, "needed": words.needed}
            found[name] = arm
        return told | {"control": data.arms[0], "candidates": found, "quality": _qualities(plan, data)}


def verdict_of(plan: Plan, told: dict[str, Any]) -> Verdict:
    """What is to become of the experiment after this reading."""
    if told["shares"]["broken"]:
        return Verdict("broken", f"the arms didn't get their shares (p = {told['shares']['p']:.2g})")
    for name, arm in told["candidates"].items():
        for metric, limit in plan.limits.items():
            worse = arm["metrics"][metric]["guardrail"]
            if worse is not None and worse["broken"]:
                return Verdict(
                    "guardrail",
                    f"{name}: {metric} is worse by {worse['least']:.6g} at least; {limit:.6g} were accepted",
                )
    arms = told["candidates"]
    if arms and all(arm["final"] for arm in arms.values()):
        return Verdict("decided", "; ".join(f"{name}: {phrase(arm['word'])}" for name, arm in arms.items()))
    return Verdict()


def phrase(word: str) -> str:
    """A decision in words."""
    return f"candidate is {word}" if word in ("better", "worse") else word


def power(section: ExperimentSection) -> dict[str, Any] | None:
    """Units of each arm that show the least effect, by what is expected; None where too little was declared."""
    from farthing.policies.experiment import Measure, units_needed

    kind, bounds = kind_of(section), bounds_of(section)
    deviation = section.deviation
    if section.baseline is None or not section.least_effect:
        return None
    if deviation is None and kind == "proportion" and bounds is not None:
        share = (section.baseline - bounds[0]) / (bounds[1] - bounds[0])
        deviation = math.sqrt(max(0.0, share * (1 - share))) * (bounds[1] - bounds[0])
    if not deviation:
        return None
    alone = section.unit == "request"
    level = section.level / (len(section.arms) - 1)
    measure = Measure(kind, up_of(section), alone, level, bounds, section.least_effect)
    needed = units_needed(measure, section.baseline, deviation, section.least_effect, level)
    return {"units_per_arm": needed, "least_effect": section.least_effect, "deviation": deviation}


def measure_of(plan: Plan, metric: MetricSection, data: Watched) -> Measure:
    """The metric as the statistics know it."""
    from farthing.policies.experiment import Measure

    least = plan.least if metric is plan.metrics[0] else 0.0
    return Measure(kind_of(metric), up_of(metric), data.alone, plan.level, bounds_of(metric), least)


def _metric(plan: Plan, data: Watched, one: MetricSection, number: int, count: int) -> dict[str, Any]:
    from farthing.policies.experiment import effect, guard

    measure, tracker = measure_of(plan, one, data), data.trackers[one.metric]
    guarded = one.metric in plan.limits
    seen = effect(measure, tracker.sums[0], tracker.sums[number], plan.level / count)
    found = _effect(seen)
    found["guardrail"] = None
    if guarded:
        level = plan.level / (count * len(plan.limits))
        strict = effect(measure, tracker.sums[0], tracker.sums[number], level)
        said = guard(one.metric, measure, strict, plan.limits[one.metric])
        found["guardrail"] = {"at_most": said.at_most, "least": _number(said.worse.low), "broken": said.broken}
    return found


def _qualities(plan: Plan, data: Watched) -> list[dict[str, Any]]:
    """How good the answers of each arm were, by each of `QUALITIES` that is followed and has said something: a share
    with a confidence sequence. All of them hold together, at all times, but for the plan's level.

    An arm in which the optimiser is off has nothing to be compared, so this stands by itself. What is short of 1 is
    all that differs: what the optimisers cost in quality, and how often the asked-for model would have differed from
    itself. By betting, whatever the unit: an interval by the variance has no width where nothing differed yet.
    """
    from farthing.policies.sequence import Evidence, interval

    followed = [one.metric for one in plan.metrics if one.metric in QUALITIES and kind_of(one) != "ratio"]
    level = plan.level / max(1, len(followed) * len(data.arms))
    found: list[dict[str, Any]] = []
    for metric in followed:
        for name, sums in zip(data.arms, data.trackers[metric].sums, strict=True):
            if not sums.units:
                continue
            good = min(float(sums.units), max(0.0, sums.a))  # but for rounding
            low, high = interval(Evidence(float(sums.units), good), level)
            found.append({"metric": metric, "arm": name, "unit": data.unit, "units": sums.units,
                          "share": good / sums.units, "low": low, "high": high})  # fmt: skip
    return found


def _effect(seen: Effect) -> dict[str, Any]:
    return {
        "control": _number(seen.control), "candidate": _number(seen.candidate), "units": list(seen.units),
        "apart": _ends(seen.apart), "method": seen.method, "noise_taken_out": round(seen.gone, 4),
    }  # fmt: skip


def _ends(apart: Interval) -> list[float | None]:
    return [_number(apart.value), _number(apart.low), _number(apart.high)]


def _number(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None


def _left_out(data: Watched) -> int:
    return max([0, data.assigned.left_out, *(one.left_out for one in data.trackers.values())])
