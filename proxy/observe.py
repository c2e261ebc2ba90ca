"""Reads an answer while it passes: usage, model, errors. Pure; keeps no text.

Sources: OpenAI API reference (chat, completions, responses streaming events), Anthropic API reference (messages
streaming: message_start carries the input, message_delta the output).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from farthing.proxy.exchange import Endpoint
from farthing.proxy.jsontext import loads_loosely
from farthing.proxy.sse import events
from farthing.proxy.usage import Usage, from_payload, tier_of

__all__ = ["StreamObserver", "decoded", "loads", "read_whole"]

# A quote inside a JSON string is escaped, so these bytes can only be a member of an object.
_USAGE = re.compile(rb'"usage"\s*:\s*\{')


class StreamObserver:
    """Watches the events of one stream."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._counted: dict[str, Any] = {}
        self._begun = False
        self._tier: object = ""
        self.model = ""

    def see(self, piece: bytes) -> bool:
        """Take note of one event. True: it carries nothing but usage."""
        first = not self._begun
        counts = b'"usage"' in piece and _USAGE.search(piece) is not None
        if not first and not counts:
            return False
        usage_only = False
        for event in events(piece):
            value = loads(event.data)
            if value is None and counts:
                value = loads_loosely(event.data)
            if value is None:
                continue
            self._begun = True
            inner = _inner(self._endpoint, value)
            if not self.model and isinstance(model := inner.get("model"), str):
                self.model = model
            # The last one that is told: a stream may be begun at one tier and answered at another.
            self._tier = inner.get("service_tier") or self._tier
            if isinstance(usage := value.get("usage") or inner.get("usage"), dict):
                self._counted.update(
                    {name: count for name, count in usage.items() if count or name not in self._counted}
                )
                usage_only = value.get("choices") == []
        return usage_only

    @property
    def tier(self) -> str:
        """The service tier that the stream named last; '' for the standard one."""
        return tier_of(self._tier) if self._tier else ""

    @property
    def usage(self) -> Usage | None:
        """The upstream's own count, once it has come."""
        return from_payload(self._endpoint, self._counted, self._tier) if self._counted else None


def _inner(endpoint: Endpoint, value: dict[str, Any]) -> dict[str, Any]:
    """The object that names the model: the event itself, or what a Responses or Anthropic event wraps."""
    name = {Endpoint.RESPONSES: "response", Endpoint.MESSAGES: "message"}.get(endpoint)
    inner = value.get(name) if name else None
    return inner if isinstance(inner, dict) else value


def loads(body: bytes) -> dict[str, Any] | None:
    """The object that the bytes are, if they are one."""
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_whole(endpoint: Endpoint, value: dict[str, Any] | None) -> tuple[Usage | None, str]:
    """Usage and model of a whole answer; (None, '') where it has none. `value`: of `loads`."""
    if value is None:
        return None, ""
    usage = value.get("usage")
    model = value.get("model")
    return (
        from_payload(endpoint, usage, value.get("service_tier")) if isinstance(usage, dict) else None,
        model if isinstance(model, str) else "",
    )


def decoded(body: bytes, headers: Mapping[str, str], limit_bytes: int) -> bytes | None:
    """The body without its content encoding; None where it can't be had, or would be larger than the limit, or where
    something stands behind its end (another member of gzip, RFC 1952, 2.2): half an answer is none.

    RFC 9110, 8.4: gzip and deflate, identity. The limit keeps a decompression bomb small.
    """
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        plain = unzip.decompress(body, limit_bytes)
    except zlib.error:
        return None
    return plain if unzip.eof and not unzip.unconsumed_tail and not unzip.unused_data else None
