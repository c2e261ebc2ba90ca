"""The compressor's part of the configuration."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from farthing.proxy.config_section import Section

__all__ = ["Compress", "RetrievedContent"]

Mode = Literal["off", "observe", "serve"]
Role = Literal["user", "system", "developer"]


class RetrievedContent(Section):
    """What stands between these marks was retrieved by a program, and may be shortened as a tool's result may."""

    begin: str = Field(min_length=1)
    end: str = Field(min_length=1)
    roles: tuple[Role, ...] = ("user",)


_SPELT = {"x-ai": "xai", "google": "gemini", "azure": "openai"}


def _known(name: object) -> object:
    """Whose cache it is, where it is named as in upstream.provider."""
    return _SPELT.get(name, name) if isinstance(name, str) else name


class Compress(Section):
    """The compressor. `tidy` is lossless. `recode` says the same value in another form, `squeeze` leaves things out:
    each serves on a route once it is proved that few enough answers get worse.

    `unproven = true` serves both with nothing proved; and says so everywhere.
    """

    tidy: bool = True
    recode: Mode = "observe"
    squeeze: Mode = "off"
    reduce_html: bool = Field(False, description="HTML to Markdown where the original can be had again")
    squeeze_to: float = Field(0.3, gt=0, lt=1, description="share of its tokens that a text keeps at least")
    squeeze_keeps_tokens: int = Field(0, ge=0, description="that a text keeps at least")
    words_model: Path | None = Field(None, description="a folder with LLMLingua-2's weights; leaves out single words")
    max_worse: float = Field(0.02, gt=0, lt=1, description="share of answers that may be worse, at most")
    confidence: float = Field(0.95, ge=0.5, lt=1)
    unproven: bool = False
    shadow_share: float = Field(0.1, gt=0, le=1, description="of requests sent in both forms, while their form matters")
    shadow_daily_usd: Decimal = Field(Decimal(0), ge=0, description="what that may cost a day (UTC); 0: none is sent")
    provider_cache: Annotated[
        Literal["auto", "none", "openai", "anthropic", "deepseek", "gemini", "mistral", "xai"], BeforeValidator(_known)
    ] = "auto"
    latency_usd_per_s: Decimal = Field(Decimal("0.001"), ge=0, description="what a second of waiting is worth")
    decided_ttl_s: int = Field(86_400, ge=60, description="how long a message's form is remembered after its last use")
    retrieval: bool = Field(False, description="offer the model a tool to look at what was left out")
    retrieval_ttl_s: int = Field(3_600, ge=60, description="how long what was left out is kept")
    retrieved: tuple[RetrievedContent, ...] = ()

    @model_validator(mode="after")
    def _proof_needs_evidence(self) -> Compress:
        if self.reduce_html and not self.retrieval:
            raise ValueError("reduce_html takes markup away that the model may need: set retrieval = true too")
        serves = "serve" in (self.recode, self.squeeze)
        if serves and not self.unproven and not self.shadow_daily_usd:
            raise ValueError(
                'recode or squeeze = "serve" is proved by requests that are sent in both forms: say what these may '
                "cost with shadow_daily_usd, or take nothing as proof with unproven = true"
            )
        return self

    @property
    def shown(self) -> dict[str, str]:
        """How each step is told to people: a step that serves with nothing proved says so."""

        def told(mode: Mode) -> str:
            return "serve unproven" if mode == "serve" and self.unproven else mode

        return {"tidy": "on" if self.tidy else "off", "recode": told(self.recode), "squeeze": told(self.squeeze)}

    @property
    def all_off(self) -> bool:
        """Whether no request is touched."""
        return not self.tidy and "serve" not in (self.recode, self.squeeze)
