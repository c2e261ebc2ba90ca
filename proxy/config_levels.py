"""What is promised to whom, month by month: service levels in the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from farthing.policies.levels import Target
from farthing.proxy.config_section import Section
from farthing.proxy.exchange import Endpoint

__all__ = ["ServiceLevel", "ServiceLevels"]


class ServiceLevel(Section):
    """One promise, about the requests that all of `route`, `model`, `tenant`, `endpoint` and `tag` are true of.

    `model`, `tenant`: shell patterns. Shares are those that must be good; `wrong_rate` is what may be wrong.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_ -]{1,64}$")
    route: str = ""
    model: str = ""
    tenant: str = ""
    endpoint: Endpoint | None = None
    tag: str = Field("", pattern=r'^$|^[^="\\]{1,100}=.+$', description="NAME=VALUE")
    latency_ms: float | None = Field(None, gt=0)
    latency_percentile: float = Field(99.0, ge=50, lt=100)
    availability: float | None = Field(None, ge=0.5, lt=1)
    wrong_rate: float | None = Field(None, gt=0, le=0.5)
    cost_per_request_usd: Decimal | None = Field(None, gt=0, le=1000)
    window_days: int = Field(30, ge=1, le=90)

    @model_validator(mode="after")
    def _promises_something(self) -> ServiceLevel:
        if not self.targets:
            raise ValueError(
                "a service level needs a target: latency_ms, availability, wrong_rate or cost_per_request_usd"
            )
        return self

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is promised, as policies know it."""
        found = []
        if self.latency_ms is not None:
            found.append(Target("latency", self.latency_percentile / 100, self.latency_ms))
        if self.availability is not None:
            found.append(Target("availability", self.availability))
        if self.wrong_rate is not None:
            found.append(Target("wrong", 1 - self.wrong_rate))
        if self.cost_per_request_usd is not None:
            found.append(Target("cost", 0.0, float(self.cost_per_request_usd)))
        return tuple(found)

    @property
    def where(self) -> dict[str, str]:
        """Which requests it is about, by what is said of them."""
        said = {"route": self.route, "model": self.model, "tenant": self.tenant, "tag": self.tag}
        if self.endpoint is not None:
            said["endpoint"] = self.endpoint.value
        return {name: value for name, value in said.items() if value}


def _names_differ(levels: Sequence[ServiceLevel]) -> Sequence[ServiceLevel]:
    names = [one.name for one in levels]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"there are two of the name {name!r}")
    return levels


ServiceLevels = Annotated[tuple[ServiceLevel, ...], AfterValidator(_names_differ)]
