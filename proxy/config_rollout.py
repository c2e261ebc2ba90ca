"""How new policies come to all traffic, in the configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from farthing.policies.assign import Unit
from farthing.policies.guard import Bounds
from farthing.policies.rollout import DEFAULT_STEPS, Plan, checked
from farthing.proxy.config_section import Section

__all__ = ["Rollout", "Steps"]

Steps = Annotated[tuple[float, ...], AfterValidator(checked)]


class Rollout(Section):
    """Steps of a roll-out, and what the guard accepts of a candidate; see policies.guard.Bounds."""

    steps: Steps = DEFAULT_STEPS
    hold_s: float = Field(600.0, ge=0, description="each step lasts at least so long")
    min_requests: int = Field(100, ge=1, description="of the candidate, in each step")
    unit: Unit = Field("request", description="what never changes sides")
    level: float = Field(0.05, gt=0, le=0.5, description="chance that a candidate that is no worse is rolled back")
    error_ratio: float = Field(1.25, ge=1)
    error_points: float = Field(0.005, ge=0, lt=1)
    latency_ratio: float = Field(1.25, ge=1, description="of the 99th percentile")
    cost_ratio: float = Field(1.1, ge=1, description="of the cost per request")
    rating_ratio: float = Field(1.25, ge=1, description="of the share of answers rated bad")
    rating_points: float = Field(0.002, ge=0, lt=1)
    gate: str = Field("", description="a suite that must pass before any promotion")

    @property
    def plan(self) -> Plan:
        """As the roll-out wants it."""
        return Plan(self.steps, self.hold_s, self.min_requests)

    @property
    def bounds(self) -> Bounds:
        """As the guard wants them."""
        names = ("error_ratio", "error_points", "latency_ratio", "cost_ratio", "rating_ratio", "rating_points")
        return Bounds(level=self.level, **{name: getattr(self, name) for name in names})
