"""One recorded line, in any of the formats that people have, as a request with its answer. Pure.

Formats: farthing's captures, farthing's ledger as JSON lines (no prompts), OpenAI-style logs and batch files, LiteLLM's
spend logs and standard payloads, Helicone's and Langfuse's exports. The mapping, field by field: docs/replay.md.

Rules of this file:
1. A format only says where things stand; what they mean is said once, in `Recorded`.
2. What a log doesn't say is None or empty, and never made up.

Sources: OpenAI API reference (Batch); LiteLLM `SpendLogsPayload` and `StandardLoggingPayload`; Helicone API reference,
`HeliconeRequest`; Langfuse API reference and blob storage export fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import orjson

from farthing.proxy.exchange import Endpoint
from farthing.proxy.replay_exports import helicone, langfuse, litellm
from farthing.proxy.replay_values import (
    TARGETS,
    NotARequest,
    Recorded,
    endpoint_of_body,
    first,
    model_of,
    number,
    object_of,
    said,
    seconds,
    tags_of,
    tokens_of,
    usage_of,
    value_of,
    whole,
)
from farthing.proxy.row import ERRANDS
from farthing.proxy.usage import EXTRAS, Usage, UsageSource

__all__ = ["FORMATS", "body_of", "detected", "recorded"]

# Of a line, not of a request: what APIs don't know would be refused by some of them.
_TIMES = ("ts", "timestamp", "created_at", "time", "start_time", "startTime")
_ENDS = ("end_time", "endTime")
_OF_THE_LINE = frozenset(
    ("id", "slice", "tags", "class", "tenant", "path", "url", "headers", "response", "answer", "usage", "status",
     "status_code", "latency_ms", "latency_s", "duration_s", *_TIMES, *_ENDS)
)  # fmt: skip


def detected(value: Mapping[str, Any]) -> str:
    """The format of a line, a key of FORMATS."""
    if "key_hash" in value and "cache_reason" in value:
        return "ledger"
    if "ts" in value and "endpoint" in value and "request" in value:
        return "farthing"
    if "request_body" in value and ("request_created_at" in value or "response_body" in value):
        return "helicone"
    if "startTime" in value and ("call_type" in value or "completion_tokens" in value):
        return "litellm"
    if "type" in value and "input" in value and ("traceId" in value or "trace_id" in value):
        return "langfuse"
    return "openai"


def recorded(value: Any, format: str = "") -> Recorded:
    """The request of a decoded line. `format`: a key of FORMATS, '' to tell it by the fields. Raises NotARequest."""
    if not isinstance(value, Mapping):
        raise NotARequest("not an object")
    return FORMATS[format or detected(value)](value)


# -- farthing's own


def _farthing(value: Mapping[str, Any]) -> Recorded:
    row = value.get("row")
    row = row if isinstance(row, Mapping) else None
    named = str(value.get("endpoint", ""))
    if named in ERRANDS:
        raise NotARequest("a call of farthing's own", "calls of farthing's own")
    endpoint = _endpoint(named)
    body = object_of(value.get("request"))
    if body is None and endpoint is not Endpoint.OTHER:
        raise NotARequest("no request in it")
    response = object_of(value.get("response"))
    told = row or {}
    return Recorded(
        "farthing",
        seconds(value.get("ts")),
        str(value.get("tenant") or ""),
        str(value.get("user") or ""),
        tags_of(value.get("tags")),
        endpoint,
        str(value.get("path") or TARGETS.get(endpoint, "")),
        body,
        response,
        whole(value.get("status")) or 0,
        _row_latency_s(told),
        usage_of(endpoint, response) or _row_usage(told),
        str(told.get("model_served") or model_of(response)),
        row,
    )


def _ledger(value: Mapping[str, Any]) -> Recorded:
    """A row of the ledger: identity is its `key_hash`, and nothing else can be told of the request."""
    named = str(value.get("endpoint", ""))
    if named in ERRANDS:
        raise NotARequest("a call of farthing's own", "calls of farthing's own")
    return Recorded(
        "ledger",
        seconds(value.get("ts")),
        str(value.get("tenant") or ""),
        str(value.get("user") or ""),
        tags_of(value_of(value.get("tags"))),
        _endpoint(named),
        "",
        None,
        None,
        whole(value.get("status")) or 0,
        _row_latency_s(value),
        _row_usage(value),
        str(value.get("model_served") or ""),
        value,
    )


def _endpoint(named: str) -> Endpoint:
    try:
        return Endpoint(named)
    except ValueError:
        return Endpoint.OTHER


def _row_latency_s(row: Mapping[str, Any]) -> float | None:
    """How long the flight took, from the request on: until the client had its answer, or the upstream had given all of
    it to farthing, where the client had left by then."""
    known = [ms for name in ("upstream_ms", "latency_ms") if (ms := number(row.get(name))) is not None]
    return max(known) / 1000 if known else None


def _row_usage(row: Mapping[str, Any]) -> Usage | None:
    """What a row says was used; of a hit or a joined call, what its answer had used."""
    output, original = tokens_of(row.get("tokens_out")), tokens_of(row.get("tokens_in_original"))
    sent = tokens_of(row.get("tokens_in_sent"))
    if output is None or original is None or sent is None:
        return None
    taken = sent or original
    cached = min(taken, tokens_of(row.get("tokens_in_cached")) or 0)
    written = min(taken - cached, tokens_of(row.get("tokens_in_cache_write")) or 0)
    reasoning = min(output, tokens_of(row.get("tokens_reasoning")) or 0)
    counted = row.get("usage_source") == UsageSource.COUNTED
    plain = Usage(
        fresh=taken - cached - written,
        cached=cached,
        cache_write=written,
        output=output - reasoning,
        reasoning=reasoning,
        source=UsageSource.COUNTED if counted else UsageSource.UPSTREAM,
    )
    return _with_detail(plain, row) if sent else plain


def _with_detail(plain: Usage, row: Mapping[str, Any]) -> Usage:
    """With what the last attempt tells apart and the columns don't (usage_row.py); without it where they disagree."""
    try:
        told = orjson.loads(row["attempts_detail"])[-1]["usage"]
        parts = {name: tokens_of(told.get(name)) or 0 for name in EXTRAS}
        tier = str(told.get("tier", ""))
    except (ValueError, LookupError, TypeError, AttributeError):
        return plain
    apart = Usage(**parts, source=plain.source, tier=tier)
    usage = apart._replace(
        fresh=plain.fresh - apart.audio_in - apart.image_in,
        cached=plain.cached - apart.audio_cached - apart.image_cached,
        cache_write=plain.cache_write - apart.cache_write_1h,
        output=plain.output - apart.audio_out - apart.image_out,
        reasoning=plain.reasoning,
    )
    return usage if min(usage.fresh, usage.cached, usage.cache_write, usage.output) >= 0 else plain._replace(tier=tier)


# -- OpenAI-style


def _openai(value: Mapping[str, Any]) -> Recorded:
    """A body, alone or as `body` or `request` beside its answer; a line of a batch's input file."""
    body = body_of(value)
    if body is None:
        raise NotARequest("no request in it")
    path = str(value.get("path") or value.get("url") or "")
    endpoint = endpoint_of_body(path, body)
    if endpoint is Endpoint.OTHER:
        raise NotARequest("no request in it: neither messages, nor input or prompt with a model")
    answer, status = _answer(value)
    began = seconds(first(value, *_TIMES))
    ended = seconds(first(value, *_ENDS))
    latency = number(value.get("latency_ms"))
    latency_s = latency / 1000 if latency is not None else number(first(value, "latency_s", "duration_s"))
    if latency_s is None and began is not None and ended is not None:
        latency_s = max(0.0, ended - began)
    usage = value.get("usage")
    return Recorded(
        "openai",
        began,
        str(value.get("tenant") or ""),
        str(value.get("user") or body.get("user") or ""),
        tags_of(_tags_field(value)),
        endpoint,
        TARGETS[endpoint],
        body,
        answer,
        status,
        latency_s,
        usage_of(endpoint, answer) or usage_of(endpoint, {"usage": usage, "service_tier": value.get("service_tier")}),
        model_of(answer),
    )


def body_of(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request's body in an OpenAI-style line: `body`, `request`, or the line itself; None where there is none."""
    held = value.get("body", value.get("request"))
    if held is None:
        return {name: one for name, one in value.items() if name not in _OF_THE_LINE}
    held = value_of(held)
    if isinstance(held, Mapping) and isinstance(held.get("body"), Mapping | str):
        held = value_of(held["body"])  # a request with its path and headers round it
    return dict(held) if isinstance(held, Mapping) else None


def _answer(value: Mapping[str, Any]) -> tuple[dict[str, Any] | None, int]:
    held = value_of(first(value, "response", "answer"))
    status = whole(first(value, "status", "status_code")) or 0
    if isinstance(held, Mapping) and "body" in held:
        status = whole(first(held, "status_code", "status")) or status
        held = value_of(held["body"])
    if isinstance(held, str) and held:
        held = said(held)
    return (dict(held) if isinstance(held, Mapping) and held else None), status


def _tags_field(value: Mapping[str, Any]) -> Any:
    if value.get("tags") is not None:
        return value["tags"]
    headers = value.get("headers")
    if isinstance(headers, Mapping):
        return next((held for name, held in headers.items() if str(name).lower() == "x-farthing-tags"), None)
    return {"slice": value["slice"]} if isinstance(value.get("slice"), str) else None


FORMATS: Mapping[str, Callable[[Mapping[str, Any]], Recorded]] = MappingProxyType(
    {
        "farthing": _farthing,
        "ledger": _ledger,
        "openai": _openai,
        "litellm": litellm,
        "helicone": helicone,
        "langfuse": langfuse,
    }
)
