"""Experiments and hold-outs in the configuration, and what is refused of them at load."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, model_validator

from farthing.policies.assign import Unit
from farthing.policies.experiment_sums import Kind
from farthing.policies.implicit import ABANDONED, REASK, REGENERATE
from farthing.proxy.config_section import Section
from farthing.proxy.exchange import Endpoint

__all__ = [
    "HOLDOUT", "ArmSection", "ExperimentSection", "GuardrailSection", "HoldoutSection",
    "MetricSection", "WhereSection", "bounds_of", "kind_of", "overlaps", "up_of",
]  # fmt: skip

HOLDOUT = "holdout"
_RESERVED = (HOLDOUT, "rollout")
# Said only of the requests that it was about, as 1: what tells arms apart is how often.
_SIGNALS = (REASK, REGENERATE, ABANDONED)
_DOWN = ("cost_usd", "latency_ms", "error", *_SIGNALS)
_SHARES = ("error", "rating", "shadow", "audit", "fresh")
_METRIC = r"^[a-z][a-z0-9_.:-]{0,63}$"


class ArmSection(Section):
    """One arm. `policy`: `active`, a version (`p-…`), or a file whose policy sections are taken."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")
    policy: str = Field("active", min_length=1)
    share: float = Field(gt=0, le=1)


class WhereSection(Section):
    """Which requests take part: all conditions hold. For `model` the body has to be read before the arm is known."""

    tag: str = Field("", pattern="^$|^[^=]+=", description="NAME=VALUE")
    tenant: str = Field("", description="how the ledger's tenant begins")
    endpoint: Endpoint | Literal[""] = ""
    model: str = Field("", max_length=256, description="shell pattern of the model that is asked for")

    def apart(self, other: WhereSection) -> bool:
        """Whether no request can match both."""
        tags = self.tag and other.tag and self.tag.partition("=")[0] == other.tag.partition("=")[0]
        tenants = self.tenant and other.tenant
        begins = tenants and (self.tenant.startswith(other.tenant) or other.tenant.startswith(self.tenant))
        return bool(
            (tags and self.tag != other.tag)
            or (tenants and not begins)
            or (self.endpoint and other.endpoint and self.endpoint != other.endpoint)
            or _no_model_of_both(self.model, other.model)
        )


def _no_model_of_both(one: str, other: str) -> bool:
    """Whether surely no name fits both patterns; of two with wild cards nothing is sure."""
    if not one or not other or (_is_pattern(one) and _is_pattern(other)):
        return False
    return not (fnmatchcase(one, other) or fnmatchcase(other, one))


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


class MetricSection(Section):
    """A metric, and how it is counted; what is left out is what is usual for it."""

    metric: str = Field(pattern=_METRIC)
    kind: Kind | Literal[""] = ""
    direction: Literal["up", "down", ""] = ""
    bounds: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _bounded(self) -> MetricSection:
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError("bounds are two numbers, the smaller one first")
        return self


class GuardrailSection(MetricSection):
    """A metric that must not get worse by more than so much, in its own unit."""

    at_most_worse: float = Field(ge=0)


class ExperimentSection(MetricSection):
    """One experiment: arms, who takes part, and what decides it. The first arm is the control."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")
    arms: tuple[ArmSection, ...] = Field(min_length=2, max_length=8)
    unit: Unit = "user"
    where: WhereSection = WhereSection.model_construct()
    guardrails: tuple[GuardrailSection, ...] = ()
    slices: tuple[str, ...] = Field((), description="endpoint, model, tenant, tag:NAME")
    minimum_days: float = Field(7.0, ge=0)
    maximum_days: float = Field(28.0, ge=0, description="0: no end")
    level: float = Field(0.05, gt=0, le=0.5)
    least_effect: float = Field(0.0, ge=0, description="the smallest difference that matters; 0: none")
    baseline: float | None = Field(None, description="what the control is expected to have")
    deviation: float | None = Field(None, gt=0, description="expected standard deviation of one unit")
    covariate_days: float = Field(14.0, ge=0, description="before the start; 0: none")
    most_units: int = Field(50_000, ge=100)

    @model_validator(mode="after")
    def _fits(self) -> ExperimentSection:
        if self.name in _RESERVED:
            raise ValueError(f"name {self.name!r} is farthing's own")
        if len({arm.name for arm in self.arms}) < len(self.arms):
            raise ValueError("two arms have one name")
        if abs(sum(arm.share for arm in self.arms) - 1) > 1e-9:
            raise ValueError("the arms' shares make 1; who is to stay out of it is left out by where")
        if len({arm.policy for arm in self.arms}) < 2:
            raise ValueError("all arms have one policy")
        if self.maximum_days and self.maximum_days < self.minimum_days:
            raise ValueError("maximum_days is less than minimum_days")
        strange = [one for one in self.slices if one not in ("endpoint", "model", "tenant") and one[:4] != "tag:"]
        if strange:
            raise ValueError(f"slices: {strange[0]!r} is none of endpoint, model, tenant, tag:NAME")
        return self


class HoldoutSection(Section):
    """A random share of traffic that goes without optimisers, so that what they do is known by comparison."""

    share: float = Field(0.0, ge=0, le=0.5, description="of units, for all its arms together")
    arms: tuple[
        Literal["all-off", "no-exact", "no-semantic", "no-compress", "no-route", "no-student", "no-prompt-cache"],
        ...,
    ] = ("all-off", "no-exact", "no-semantic", "no-compress", "no-route", "no-student", "no-prompt-cache")
    unit: Literal["request", "user", "tenant"] = "request"
    most_units: int = Field(50_000, ge=100)
    compared: float = Field(
        0.0, ge=0, le=1, description="of its requests, asked once more without optimisers; and as many of all others"
    )


def kind_of(metric: MetricSection) -> Kind:
    """As declared, or what is usual for this metric."""
    usual: Kind = "ratio" if metric.metric in _SIGNALS else "proportion" if metric.metric in _SHARES else "mean"
    return metric.kind or usual


def bounds_of(metric: MetricSection) -> tuple[float, float] | None:
    """As declared, or 0 to 1 for a proportion."""
    return metric.bounds or ((0.0, 1.0) if kind_of(metric) == "proportion" else None)


def up_of(metric: MetricSection) -> bool:
    """Whether more is better: as declared, or what is usual for this metric."""
    return metric.direction == "up" if metric.direction else metric.metric not in _DOWN


def overlaps(experiments: Sequence[ExperimentSection]) -> list[tuple[str, str]]:
    """Faults (path, message) of experiments that the same request would take part in, or that share a name."""
    found = []
    for (i, one), (j, other) in itertools.combinations(enumerate(experiments), 2):
        if one.name == other.name:
            found.append((f"experiments.{j}.name", f"{one.name!r} is experiments.{i}'s name too"))
        elif not one.where.apart(other.where):
            said = f"a request may match this and experiments.{i}.where: it can be in one experiment only"
            found.append((f"experiments.{j}.where", said))
    return found
