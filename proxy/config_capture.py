"""What of the traffic is kept for evaluation and replay, and for how long."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from farthing.proxy.config_section import Section
from farthing.proxy.exchange import Endpoint
from farthing.proxy.redact import KINDS, Kind, compiled

__all__ = ["Capture", "OwnPattern"]


class OwnPattern(Section):
    """Something of one's own that is taken out before anything is kept: `[NAME-digest]` stands in its place."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")
    pattern: str = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _is_usable(self) -> OwnPattern:
        compiled(self.name, self.pattern)
        return self


class Capture(Section):
    """The capture store: whole requests and answers, off by default. Empty lists of filters mean all."""

    enabled: bool = False
    share: float = Field(1.0, ge=0, le=1, description="of conversations")
    keep_days: float = Field(30.0, gt=0, le=3650)
    max_bytes: int = Field(2**30, ge=2**20, description="of what is kept; beyond it the oldest leaves")
    redact: tuple[Kind, ...] = KINDS
    patterns: tuple[OwnPattern, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    tenants: tuple[str, ...] = ()
    tags: tuple[str, ...] = Field((), description="NAME=VALUE: requests with any of these")

    @field_validator("tags")
    @classmethod
    def _are_tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [tag for tag in tags if not all(tag.partition("="))]:
            raise ValueError(f"a tag looks like team=search, not {bad[0]!r}")
        return tags

    @field_validator("endpoints")
    @classmethod
    def _are_understood(cls, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        if Endpoint.OTHER in endpoints:
            raise ValueError("only endpoints that are understood can be captured, so not 'other'")
        return endpoints

    @property
    def shown(self) -> str:
        """Its state in a word, for screens."""
        return f"on, {self.share:.0%} of conversations" if self.enabled else "off"
