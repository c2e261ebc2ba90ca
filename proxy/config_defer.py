"""The section [defer]: requests that may wait, and go through the provider's batch API."""

from __future__ import annotations

from pydantic import Field

from farthing.policies.defer import Rules
from farthing.proxy.config_section import Section

__all__ = ["Defer"]


class Defer(Section):
    """What becomes of `x-farthing-defer`. Whether an upstream has a batch API is said by its own key `batch`."""

    enabled: bool = True
    min_s: float = Field(3600.0, ge=0, description="who can wait for less is answered at once")
    flush_s: float = Field(60.0, gt=0, description="a batch is sent so long after its first request, or when full")
    max_items: int = Field(10_000, ge=1, le=50_000, description="requests in a batch")
    max_bytes: int = Field(32 * 2**20, ge=1024, le=200 * 10**6, description="of a batch's file")
    poll_s: float = Field(60.0, gt=0, description="how often a batch is asked for")
    keep_s: float = Field(86_400.0, gt=0, description="how long a result can be fetched")
    max_waiting: int = Field(100_000, ge=1, description="beyond it requests are answered at once")
    price_times: float = Field(0.5, gt=0, le=1, description="where the prices know no tier `batch`")

    @property
    def rules(self) -> Rules:
        """For the policy."""
        return Rules(self.min_s, self.flush_s, self.max_items, self.max_bytes)
