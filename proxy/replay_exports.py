"""Exports of LiteLLM, Helicone and Langfuse, a line at a time. Pure. The mapping, field by field: docs/replay.md.

Sources: LiteLLM `SpendLogsPayload` and `StandardLoggingPayload`; Helicone API reference, `HeliconeRequest`; Langfuse
API reference and blob storage export fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farthing.proxy.exchange import Endpoint
from farthing.proxy.replay_values import (
    TARGETS,
    NotARequest,
    Recorded,
    choice,
    endpoint_of_body,
    first,
    model_of,
    number,
    object_of,
    plain_usage,
    said,
    seconds,
    tags_of,
    tokens_of,
    usage_of,
    value_of,
    whole,
)
from farthing.proxy.usage import Usage, from_payload

__all__ = ["helicone", "langfuse", "litellm"]

# -- LiteLLM

_CALL_TYPES = {
    "completion": (Endpoint.CHAT, "messages"),
    "embedding": (Endpoint.EMBEDDINGS, "input"),
    "text_completion": (Endpoint.COMPLETIONS, "prompt"),
    "responses": (Endpoint.RESPONSES, "input"),
    "anthropic_messages": (Endpoint.MESSAGES, "messages"),
}


def litellm(value: Mapping[str, Any]) -> Recorded:
    call = str(value.get("call_type") or "completion")
    known = _CALL_TYPES.get(call) or _CALL_TYPES.get(call.removeprefix("a"))
    if known is None:
        raise NotARequest(f"call_type {call[:40]!r} is no text request", "calls that are no text requests")
    endpoint, member = known
    metadata = object_of(value.get("metadata")) or {}
    sent = object_of(value.get("proxy_server_request"))
    body = object_of(sent.get("body")) or sent if sent else None
    if not body or not body.get(member):
        told = value_of(value.get("messages"))
        if not isinstance(told, list | str) or not told or told == "redacted-by-litellm":
            raise NotARequest("the prompt was not logged", "requests whose prompt was not logged")
        parameters = object_of(value.get("model_parameters")) or {}
        model = value.get("model_group") or value.get("model") or ""
        body = {**parameters, "model": model, member: told}
        if value.get("stream") is True:
            body["stream"] = True
    response = object_of(value.get("response")) or None
    usage = usage_of(endpoint, response) or usage_of(endpoint, {"usage": metadata.get("usage_object")})
    began, ended = seconds(value.get("startTime")), seconds(value.get("endTime"))
    failed = value.get("status") == "failure"
    error = object_of(value.get("error_information")) or {}
    tags = value_of(value.get("request_tags"))
    return Recorded(
        "litellm",
        began,
        str(value.get("api_key") or metadata.get("user_api_key_hash") or ""),
        str(value.get("end_user") or value.get("user") or ""),
        tags_of(tags),
        endpoint,
        TARGETS[endpoint],
        body,
        response,
        (whole(error.get("error_code")) or 500) if failed else 200,
        None if began is None or ended is None else max(0.0, ended - began),
        usage or plain_usage(value, "prompt_tokens", "completion_tokens"),
        model_of(response) or str(value.get("model") or ""),
    )


# -- Helicone


def helicone(value: Mapping[str, Any]) -> Recorded:
    body = object_of(value.get("request_body"))
    if not body or ("model" not in body and "messages" not in body):
        raise NotARequest("no request body (export with bodies)", "requests whose prompt was not exported")
    endpoint = endpoint_of_body(str(value.get("request_path") or ""), body)
    if endpoint is Endpoint.OTHER:
        raise NotARequest("request_body is no request that is known", "calls that are no text requests")
    if "model" not in body and value.get("request_model"):
        body["model"] = value["request_model"]
    body.pop("streamed_data", None)
    response = object_of(value.get("response_body")) or None
    if response is not None:
        response.pop("streamed_data", None)
    delay_ms = number(value.get("delay_ms"))
    return Recorded(
        "helicone",
        seconds(value.get("request_created_at")),
        str(value.get("auth_hash") or ""),
        str(first(value, "request_user_id", "user_id") or ""),
        tags_of(value_of(value.get("request_properties") or value.get("properties"))),
        endpoint,
        TARGETS[endpoint],
        body,
        response,
        whole(value.get("response_status")) or 0,
        None if delay_ms is None else delay_ms / 1000,
        usage_of(endpoint, response)
        or plain_usage(
            value, "prompt_tokens", "completion_tokens", "prompt_cache_read_tokens", "prompt_cache_write_tokens"
        ),
        str(first(value, "response_model") or model_of(response) or ""),
    )


# -- Langfuse


def langfuse(value: Mapping[str, Any]) -> Recorded:
    kind = str(value.get("type") or "").upper()
    if kind not in ("GENERATION", "EMBEDDING"):
        raise NotARequest(f"an observation of type {kind[:20]}", "observations that are no generations")
    model = str(first(value, "model", "providedModelName", "provided_model_name") or "")
    parameters = object_of(first(value, "modelParameters", "model_parameters")) or {}
    given = value_of(value.get("input"))
    body = _langfuse_body(given, model, parameters)
    if body is None:
        raise NotARequest("its input was not logged, or is no prompt", "requests whose prompt was not logged")
    endpoint = Endpoint.EMBEDDINGS if kind == "EMBEDDING" else endpoint_of_body("", body)
    if endpoint is Endpoint.OTHER:
        raise NotARequest("its input is no prompt", "requests whose prompt was not logged")
    began = seconds(first(value, "startTime", "start_time"))
    ended = seconds(first(value, "endTime", "end_time"))
    return Recorded(
        "langfuse",
        began,
        str(first(value, "projectId", "project_id") or ""),
        str(first(value, "userId", "user_id") or ""),
        tags_of(first(value, "tags", "traceTags", "trace_tags")),
        endpoint,
        TARGETS[endpoint],
        body,
        _langfuse_answer(value_of(value.get("output"))),
        500 if value.get("level") == "ERROR" else 200,
        None if began is None or ended is None else max(0.0, ended - began),
        _langfuse_usage(object_of(first(value, "usageDetails", "usage_details", "usage"))),
        model,
    )


def _langfuse_body(given: Any, model: str, parameters: dict[str, Any]) -> dict[str, Any] | None:
    """Integrations log the messages, the whole request, or the messages with the tools."""
    if isinstance(given, Mapping) and isinstance(given.get("messages"), list):
        return {**parameters, "model": model, **given}
    if isinstance(given, list) and given and all(isinstance(turn, Mapping) and "role" in turn for turn in given):
        return {**parameters, "model": model, "messages": given}
    if isinstance(given, str) and given:
        return {**parameters, "model": model, "messages": [{"role": "user", "content": given}]}
    return None


def _langfuse_answer(output: Any) -> dict[str, Any] | None:
    if isinstance(output, str) and output:
        return said(output)
    if not isinstance(output, Mapping) or not output:
        return None
    if "choices" in output or output.get("type") == "message" or output.get("object") == "response":
        return dict(output)
    if "content" in output or "tool_calls" in output:
        return choice({"role": "assistant", "content": None, **output})
    return None


def _langfuse_usage(told: Mapping[str, Any] | None) -> Usage | None:
    """Langfuse's buckets are disjoint: `input` without the `input_*` beside it. None where a count is none."""
    if told is None:
        return None
    if "prompt_tokens" in told:
        return from_payload(Endpoint.CHAT, told)
    parts = {str(name): 0 if one is None else tokens_of(one) for name, one in told.items()}
    if ("input" not in parts and "output" not in parts) or None in parts.values():
        return None

    def sums(*beginnings: str) -> int:
        return sum(parts.pop(name) or 0 for name in [*parts] if name.startswith(beginnings))

    made, thought = parts.pop("output", 0) or 0, sums("output_reasoning")
    sound, picture = (sums(f"output_{kind}") for kind in ("audio", "image"))
    heard, seen = (sums(f"input_{kind}") for kind in ("audio", "image"))
    written = sum(count or 0 for name, count in parts.items() if "cache_creation" in name)
    cached = sum(count or 0 for name, count in parts.items() if "cache" in name and "creation" not in name)
    return Usage(
        parts.get("input") or 0,
        cached,
        written,
        made,
        thought,
        audio_in=heard,
        audio_out=sound,
        image_in=seen,
        image_out=picture,
    )
