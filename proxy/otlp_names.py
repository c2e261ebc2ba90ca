"""A ledger row in the words of OpenTelemetry's GenAI conventions. Pure; knows no SDK.

Two editions of the names stand in one table. `1.41` is the last that open-telemetry/semantic-conventions published;
`next` is what open-telemetry/semantic-conventions-genai has made of it since (not released, all of it in development):
docs/gen-ai/gen-ai-spans.md, gen-ai-metrics.md, gen-ai-token-metrics.md and non-normative/migration.md there.

Rules of this file: what has no agreed name begins with `farthing.`; token counts under an agreed name are those that an
upstream billed, so an answer of farthing's own has none; unknown is left out, never zero; no text of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from farthing.proxy.row import ERRANDS, SAVED_COLUMNS, Row

__all__ = [
    "CAUSES", "DURATION_BUCKETS_S", "EDITIONS", "OPERATIONS", "TOKEN_BUCKETS", "Edition", "Target", "attributes_of",
    "error_of", "is_billed", "operation_of", "provider_of", "span_name", "target_of",
]  # fmt: skip

Value = str | int | float | bool

DURATION_BUCKETS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""Those that the conventions ask for."""

CAUSES = {column.removeprefix("saved_").removesuffix("_usd"): column for column in SAVED_COLUMNS}
"""The ledger's column of each cause of saving."""

OPERATIONS: Mapping[str, str] = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    # Farthing's own calls repeat, shorten or judge a client's request, all of them as chat.
    **dict.fromkeys(ERRANDS, "chat"),
}
_BILLED = ("miss", "bypass")
_MOST_TAGS = 16
_DOLLAR_PICO = 1e12


@dataclass(frozen=True, slots=True)
class Edition:
    """The names that differ. `token_usage`: one histogram of both directions; '': counters, and a histogram of each."""

    schema_url: str
    cache_write: str
    duration: str
    first_chunk: str
    token_usage: str = ""


EDITIONS: Mapping[str, Edition] = {
    "1.41": Edition(
        schema_url="https://opentelemetry.io/schemas/1.41.0",
        cache_write="gen_ai.usage.cache_creation.input_tokens",
        duration="gen_ai.client.operation.duration",
        first_chunk="gen_ai.client.operation.time_to_first_chunk",
        token_usage="gen_ai.client.token.usage",
    ),
    "next": Edition(
        schema_url="",
        cache_write="gen_ai.usage.cache_write.input_tokens",
        duration="gen_ai.client.inference.duration",
        first_chunk="gen_ai.client.inference.time_to_first_chunk",
    ),
}


class Target(NamedTuple):
    """The upstream behind farthing. `provider`: '' where only the request's shape tells it."""

    provider: str
    address: str
    port: int


_BY_ID = {
    "anthropic": "anthropic",
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "google": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai",
    "openai": "openai",
    "perplexity": "perplexity",
    "x-ai": "x_ai",
}
"""genai-prices' ids, as the conventions write them."""
_BY_HOST = {
    "api.anthropic.com": "anthropic",
    ".amazonaws.com": "aws.bedrock",
    ".openai.azure.com": "azure.ai.openai",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}


def target_of(url: str, provider: str = "") -> Target:
    """Whom an upstream's URL reaches. `provider`: genai-prices' id, '' to tell it by the address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    named = _BY_ID.get(provider, provider)
    if not named:
        named = next((name for end, name in _BY_HOST.items() if host == end or host.endswith(end)), "")
    return Target(named, host, parts.port or (443 if parts.scheme == "https" else 80))


def operation_of(row: Row) -> str:
    """The conventions' word for what was asked; '' for what is no GenAI operation."""
    return OPERATIONS.get(row.endpoint, "")


def span_name(row: Row) -> str:
    """`chat gpt-4o`; for what is no GenAI operation its endpoint."""
    operation = operation_of(row)
    return f"{operation} {row.model_requested}".rstrip() if operation else row.endpoint


def is_billed(row: Row) -> bool:
    """Whether an upstream was asked for this very request, so that its tokens are paid for."""
    return row.cache in _BILLED


def error_of(row: Row) -> str:
    """A class of error of low cardinality: a status, `incomplete` for an answer that broke off, '' for none.

    That the client left is no error of the operation.
    """
    if row.status >= 400:
        return str(row.status)
    return "incomplete" if row.outcome == "failed" else ""


def attributes_of(row: Row, target: Target, edition: Edition) -> dict[str, Value]:
    """Everything that a span says of a row. Dollars are floats: below $1,000 a request each holds its pico-dollars.

    What was saved or spent by the way is left out where it is nothing; cost and baseline only where no price is known.
    """
    said: dict[str, Value | None] = {
        **_agreed(row, target, edition),
        "error.type": error_of(row) or None,
        "farthing.id": row.id,
        "farthing.cache": row.cache,
        "farthing.cache.reason": row.cache_reason or None,
        "farthing.cache.similarity": row.similarity,
        "farthing.cache.p_wrong": row.p_wrong,
        "farthing.compress": row.compress or None,
        "farthing.errand": row.endpoint if row.endpoint in ERRANDS else None,
        "farthing.endpoint": row.endpoint,
        "farthing.outcome": row.outcome,
        "farthing.flight.id": row.flight_id or None,
        "farthing.tenant": row.tenant or None,
        "farthing.user": row.user or None,
        "farthing.policy": row.policy or None,
        "farthing.experiment": row.experiment or None,
        "farthing.arm": row.arm or None,
        "farthing.config.id": row.config_id or None,
        "farthing.attempts": row.attempts,
        "farthing.overhead.seconds": row.overhead_ms / 1000,
        "farthing.tokens.in_original": row.tokens_in_original,
        "farthing.tokens.in_sent": row.tokens_in_sent,
        "farthing.tokens.out": row.tokens_out,
        "farthing.usage.source": row.usage_source or None,
        "farthing.usage.modelled": bool(row.modelled),
        "farthing.price.source": row.price_source or None,
        "farthing.baseline.usd": _dollars(row.baseline_usd),
        "farthing.cost.usd": _dollars(row.cost_usd),
        "farthing.overhead.usd": _dollars(row.overhead_usd or None),
    }
    for cause, column in CAUSES.items():
        said[f"farthing.saved.{cause}.usd"] = _dollars(getattr(row, column) or None)
    if row.tags not in ("", "{}"):
        said |= {f"farthing.tag.{name}": value for name, value in _tags(row.tags)}
    return {name: value for name, value in said.items() if value is not None}


def _agreed(row: Row, target: Target, edition: Edition) -> dict[str, Value | None]:
    """What the conventions have names for."""
    where: dict[str, Value | None] = {"server.address": target.address, "server.port": target.port}
    operation = operation_of(row)
    if not operation:
        return where
    billed = is_billed(row)
    return where | {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider_of(row, target),
        "gen_ai.request.model": row.model_requested or None,
        "gen_ai.request.stream": True if row.stream else None,
        "gen_ai.response.model": row.model_served or None,
        "gen_ai.response.time_to_first_chunk": _seconds(row.ttft_ms) if row.stream else None,
        "gen_ai.usage.input_tokens": row.tokens_in_sent if billed else None,
        "gen_ai.usage.output_tokens": row.tokens_out if billed else None,
        "gen_ai.usage.cache_read.input_tokens": (row.tokens_in_cached or None) if billed else None,
        edition.cache_write: (row.tokens_in_cache_write or None) if billed else None,
        "gen_ai.usage.reasoning.output_tokens": (row.tokens_reasoning or None) if billed else None,
    }


def provider_of(row: Row, target: Target) -> str:
    """The provider, or whose API the request speaks: that is what the conventions tell formats apart by."""
    return target.provider or ("anthropic" if row.endpoint == "messages" else "openai")


def _dollars(pico: int | None) -> float | None:
    return None if pico is None else pico / _DOLLAR_PICO


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _tags(text: str) -> list[tuple[str, str]]:
    try:
        tags = orjson.loads(text)
    except ValueError:
        return []
    if not isinstance(tags, dict):
        return []
    return [(name, value) for name, value in tags.items() if isinstance(value, str)][:_MOST_TAGS]
