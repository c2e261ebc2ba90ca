"""What is watched for drift, and how often it may be wrong."""

from __future__ import annotations

from pydantic import Field

from farthing.policies.shares import Reference
from farthing.policies.watch import Rules
from farthing.proxy.config_section import Section

__all__ = ["Watch"]


class Watch(Section):
    """Watching for drift: on, and off every request's way. Fed by the ledger, so without it nothing is watched."""

    enabled: bool = True
    per_s: float = Field(10.0, gt=0, le=1000, description="requests that are looked at in a second, at most")
    reference_requests: int = Field(2_000, ge=50, le=1_000_000, description="that a series learns what is normal from")
    reference_days: float = Field(1.0, ge=0, le=90, description="that this takes at least: a week sees Sundays too")
    alarms_per_year: float = Field(1.0, gt=0, le=1000, description="false ones to be expected, of all series together")
    tolerance: float = Field(1.25, ge=1, le=10, description="what the odds of anything may grow to; beyond it is drift")
    distance: float = Field(0.02, ge=0, le=1, description="the same for the mean embedding")
    slices: int = Field(30, ge=0, le=1000, description="tenants, tags, languages and so on that are watched apart")

    @property
    def rules(self) -> Rules:
        """As the board has it."""
        reference = Reference(self.reference_requests, self.reference_days * 86_400.0)
        return Rules(reference, self.alarms_per_year, self.tolerance, self.distance, self.slices)
