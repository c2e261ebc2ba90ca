"""Errors between OpenAI's shape and Anthropic's, both ways: what is said, and the status. Pure; never raises.

Sources: OpenAI API reference, "Error codes"; Anthropic API reference, "Errors" (529 is theirs: overloaded).
"""

from __future__ import annotations

from typing import Any

import orjson

from farthing.proxy.errors import error_body

__all__ = [
    "chat_error",
    "error_in",
    "error_to_chat",
    "error_to_message",
    "message_error",
    "status_to_chat",
    "status_to_message",
]

_MOST_CHARS = 2000
_OVERLOADED = 529
# Anthropic's word for each status.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    _OVERLOADED: "overloaded_error",
}
# OpenAI's codes, where it has one that clients look at.
_CODES = {
    "authentication_error": "invalid_api_key",
    "rate_limit_error": "rate_limit_exceeded",
    "billing_error": "insufficient_quota",
}


def status_to_chat(status: int) -> int:
    """Anthropic's status as OpenAI's."""
    return 503 if status == _OVERLOADED else status


def status_to_message(status: int) -> int:
    """OpenAI's status as Anthropic's."""
    return _OVERLOADED if status == 503 else status


def error_to_chat(value: Any) -> dict[str, Any]:
    """What stands under `error` for OpenAI's clients. `value`: an Anthropic error object, or text that is none."""
    kind, message = _told(value)
    kind = kind or "upstream_error"
    return {"message": message, "type": kind, "param": None, "code": _CODES.get(kind)}


def error_to_message(status: int, value: Any) -> bytes:
    """The whole error for Anthropic's clients. `value`: an OpenAI error object, or text that is none."""
    _, message = _told(value)
    param = value.get("param") if isinstance(value, dict) else None
    if isinstance(param, str) and param not in message:
        message = f"{param}: {message}"
    return message_error(status, message)


def message_error(status: int, message: str) -> bytes:
    """An error in Anthropic's shape."""
    kind = _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": _writable(message)}})


def chat_error(told: dict[str, Any]) -> bytes:
    """An error in OpenAI's shape."""
    return error_body(_writable(told["message"]), kind=told["type"], code=told["code"], param=told["param"])


def error_in(body: bytes) -> Any:
    """The error object of a body, of either shape; its text where it has none."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return body[: 4 * _MOST_CHARS].decode("utf-8", "replace")
    if isinstance(value, list) and value:
        value = value[0]  # Gemini's compatible endpoint
    return value.get("error", value) if isinstance(value, dict) else value


def _told(value: Any) -> tuple[str, str]:
    if isinstance(value, dict):
        kind, message = value.get("type"), value.get("message")
        text = message if isinstance(message, str) else orjson.dumps(value, default=str).decode()
        return (kind if isinstance(kind, str) else ""), text[:_MOST_CHARS]
    return "", str(value)[:_MOST_CHARS] or "the upstream gave an error without a word"


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
