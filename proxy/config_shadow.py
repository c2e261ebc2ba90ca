"""Shadows of routed requests, in the configuration."""

from __future__ import annotations

from decimal import Decimal

from pydantic import Field

from farthing.proxy.config_section import Section

__all__ = ["Shadow"]


class Shadow(Section):
    """Routed requests that are sent once more to the model that was asked for, to see whether it says the same."""

    share: float = Field(0.0, ge=0, le=1, description="of answers by another model than was asked for; 0: none")
    daily_usd: Decimal = Field(Decimal(1), ge=0, description="what all shadows together may have cost that day (UTC)")
