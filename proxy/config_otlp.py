"""The part of the configuration that says whereto telemetry is sent."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from farthing.proxy.config_section import Section

__all__ = ["Otlp"]


class Otlp(Section):
    """Spans and metrics for an OpenTelemetry collector, over OTLP/HTTP. `endpoint` empty: nothing is sent.

    No prompt and no answer is among what is sent, unless `content` asks for them.
    """

    endpoint: str = Field("", description="the collector's base, http://collector:4318; /v1/traces is added")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="sent with every call, as an API key is")
    spans: bool = True
    metrics: bool = True
    conventions: Literal["1.41", "next"] = Field("1.41", description="which edition of the GenAI names")
    attributes: dict[str, str] = Field(default_factory=dict, description="of the resource: deployment.environment.name")
    timeout_s: float = Field(10.0, gt=0, description="for one call, with all its tries")
    every_s: float = Field(5.0, gt=0, description="the longest that a span waits to be sent")
    metrics_every_s: float = Field(60.0, gt=0)
    queue_rows: int = Field(20_000, ge=1, description="spans that wait while the collector is away; then the oldest go")

    content: bool = Field(False, description="send prompts and answers too, looked through as `[capture]` says")
    content_bytes: int = Field(65_536, ge=1024, le=2**20, description="of one span's content; beyond it texts are cut")

    @field_validator("endpoint")
    @classmethod
    def _base(cls, url: str) -> str:
        url = url.rstrip("/")
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        if "?" in url or "#" in url:
            raise ValueError("must not carry a query or a fragment")
        return url.removesuffix("/v1/traces").removesuffix("/v1/metrics")

    @model_validator(mode="after")
    def _content_needs_spans(self) -> Otlp:
        if self.content and not self.spans:
            raise ValueError("content is told on spans: set spans = true too")
        return self

    @property
    def on(self) -> bool:
        """Whether anything is sent."""
        return bool(self.endpoint) and (self.spans or self.metrics)
