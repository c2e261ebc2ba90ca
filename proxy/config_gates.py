"""Gates that run by themselves."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from farthing.proxy.config_section import Section

__all__ = ["Gates"]


class Gates(Section):
    """Each suite of `suites` is run in a process of its own when what it depends on has changed, and on a schedule."""

    suites: tuple[Path, ...] = ()
    every_hours: float = Field(24.0, ge=0, description="0: no schedule")
    refresh_days: float = Field(
        0.0, ge=0, description="how old a suite's cases become before a scheduled run draws them anew; 0: they stay"
    )
    on_change: bool = Field(True, description="of the policy, of prices, of the model that a provider serves")
    roll_back: bool = Field(False, description="go back to the policy before where a suite blocks the one in force")
    max_usd: float = Field(5.0, gt=0, description="what each arm of a run may spend")
    key_env: str = Field("OPENAI_API_KEY", description="the environment variable with the upstream's key")
    timeout_s: float = Field(3600.0, gt=0)
