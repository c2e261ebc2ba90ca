"""The section [upstream]: who answers what no cache does."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from farthing.proxy.config_section import Secret, Section
from farthing.proxy.styles import StyleName, base_of

__all__ = ["KNOWN_PROVIDERS", "Upstream"]

MOST_REPLICAS = 64
_USUAL_FAILURES = 5


def _base(url: str, style: StyleName) -> str:
    """The API's base: `/v1` is added where no version stands. Raises ValueError."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    if "?" in url or "#" in url:
        raise ValueError("must not carry a query or a fragment")
    return base_of(url, style)


def _bases(urls: Any, info: ValidationInfo) -> Any:
    style: StyleName = info.data.get("style", "any")
    if not isinstance(urls, list | tuple):
        return urls
    return tuple(_base(url, style) if isinstance(url, str) else url for url in urls)


KNOWN_PROVIDERS = frozenset({"anthropic", "azure", "deepseek", "google", "mistral", "openai", "x-ai"})
"""By genai-prices' names: those whose prompt caches farthing knows. Others have prices alone."""
_SPELT = {"xai": "x-ai", "gemini": "google"}


def _known(name: object) -> object:
    """The name that genai-prices has, where it is known by another: compress.provider_cache's."""
    return _SPELT.get(name.lower(), name) if isinstance(name, str) else name


class Upstream(Section):
    """The provider behind farthing: `url` is the API's base as an SDK would have it.

    `replicas`: the same API at several addresses; then `url` is the first one, which stands for all in cache keys and
    prices. `api_keys`: several, of which each request gets one.
    """

    name: str = "default"
    style: StyleName = "any"
    url: str = "https://api.openai.com/v1"
    replicas: Annotated[tuple[str, ...], BeforeValidator(_bases)] = Field((), max_length=MOST_REPLICAS)
    api_key: Secret = None
    api_keys: tuple[SecretStr, ...] = Field((), max_length=MOST_REPLICAS)
    balance: Literal["least", "affinity", "round_robin"] = "least"
    max_in_flight: int = Field(0, ge=0, description="on each replica, 429 when all are full; 0: no limit")
    breaker_failures: int | None = Field(None, ge=0, description="in a row; 0: none; None: 5 with several replicas")
    breaker_pause_s: float = Field(10.0, gt=0)
    health_path: str = Field("", pattern=r"^(/[!-~]*)?$", description="asked of each replica; empty: no probes")
    health_every_s: float = Field(5.0, gt=0)
    provider: Annotated[str, BeforeValidator(_known)] = ""
    api_version: str = Field("", pattern=r"^[\w.-]*$", description="Azure's dated API; '': its v1 API")
    max_tokens_default: int = Field(4096, ge=1, description="for style = anthropic, where a chat names no limit")
    thinking: Literal["adaptive", "budget"] = "adaptive"
    stream_usage: bool = True
    connect_timeout_s: float = Field(10.0, gt=0)
    first_byte_timeout_s: float = Field(600.0, gt=0)
    idle_timeout_s: float = Field(300.0, gt=0)
    total_timeout_s: float = Field(3600.0, gt=0)
    max_connections: int = Field(0, ge=0, description="to each replica; 0: no limit")
    retries: int = Field(2, ge=0, le=10)
    retry_base_s: float = Field(0.25, gt=0)
    retry_max_s: float = Field(8.0, gt=0)
    retry_after_send: bool = False
    batch: bool | None = Field(None, description="it has a batch API; None: OpenAI's and Anthropic's own hosts have it")
    batch_price_times: float | None = Field(None, gt=0, le=1, description="None: defer.price_times")
    batch_max_items: int = Field(0, ge=0, description="requests in a batch; 0: what the provider takes")
    batch_max_bytes: int = Field(0, ge=0, description="of a batch; 0: what the provider takes")
    batch_window_s: float = Field(86_400.0, gt=0, description="within which the provider means to answer a batch")

    @field_validator("url")
    @classmethod
    def _url(cls, url: str, info: ValidationInfo) -> str:
        return _base(url, info.data.get("style", "any"))

    @model_validator(mode="before")
    @classmethod
    def _url_of_replicas(cls, given: Any) -> Any:
        """`url` follows from `replicas`."""
        if not isinstance(given, dict) or not isinstance(given.get("replicas"), list | tuple) or not given["replicas"]:
            return given
        first, url = given["replicas"][0], given.get("url")
        if isinstance(first, str) and isinstance(url, str) and base_of(url, "any") != base_of(first, "any"):
            raise ValueError("url and replicas are both given: leave url out (it is the first of the replicas)")
        return given | {"url": first}

    @model_validator(mode="after")
    def _each_once(self) -> Upstream:
        if len(set(self.replicas)) < len(self.replicas):
            raise ValueError("replicas: the same address stands there twice")
        if self.api_key is not None and self.api_keys:
            raise ValueError("give api_key or api_keys, not both")
        secrets = [key.get_secret_value() for key in self.api_keys]
        if "" in secrets:
            raise ValueError("api_keys: an empty key")
        if len(set(secrets)) < len(secrets):
            raise ValueError("api_keys: the same key stands there twice")
        return self

    @property
    def identity(self) -> str:
        """What of it can change an answer: answers of one identity are never given for another's."""
        if self.style == "any":
            return self.url
        return f"{self.url} {self.style} {self.api_version} {self.max_tokens_default} {self.thinking}"

    @property
    def bases(self) -> tuple[str, ...]:
        """The addresses that are called."""
        return self.replicas or (self.url,)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in plain text; none: the client's own goes upstream."""
        if self.api_key is not None:
            return (self.api_key.get_secret_value(),)
        return tuple(key.get_secret_value() for key in self.api_keys)

    @property
    def spendable(self) -> bool:
        """Whether whoever reaches farthing could spend a credential of the operator's."""
        return bool(self.keys) or any(urlsplit(url).username is not None for url in self.bases)

    @property
    def failures_to_open(self) -> int:
        """Failures in a row that open a replica's circuit; 0: never. A single address is left out only where asked."""
        if self.breaker_failures is not None:
            return self.breaker_failures
        return _USUAL_FAILURES if len(self.bases) > 1 else 0
