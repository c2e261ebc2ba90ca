"""The section [prompt_cache]: care for the providers' own prompt caches."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field, model_validator

from farthing.proxy.config_section import Section

__all__ = ["PromptCache"]


class PromptCache(Section):
    """With `mode = "serve"` requests are marked for the provider's prompt cache where that is expected to pay; in
    `observe` it is only told what would have been marked."""

    mode: Literal["off", "observe", "serve"] = "observe"
    one_hour: bool = Field(True, description="whether marks may ask for an hour, which costs twice the input's price")
    stable_tools: bool = Field(False, description="tools in the order in which the same set was seen first")
    keep_warm: bool = Field(False, description="read hot prefixes again before they are forgotten, where that pays")
    keep_warm_daily_usd: Decimal = Field(Decimal(1), ge=0, description="what that may cost a day (UTC)")
    most_prefixes: int = Field(32_768, ge=64, description="that are remembered, about 400 bytes each")

    @model_validator(mode="after")
    def _serving_needed(self) -> PromptCache:
        if self.mode != "serve" and (self.stable_tools or self.keep_warm):
            raise ValueError('stable_tools and keep_warm change what is sent: set mode = "serve" too')
        return self
