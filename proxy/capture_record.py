"""What is captured of an exchange, and the line that it becomes. Pure but for redaction's clock.

The line's format is read by `farthing replay`: one JSON object with id, ts, tenant, user, tags, endpoint, path,
stream, request (the client's own body), response (whole, never a stream; null where it can't be had), status, row (the
ledger's).
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import orjson

from farthing.cache.exact_json import dumps, loads
from farthing.cache.reshape import assemble
from farthing.proxy.config_capture import Capture
from farthing.proxy.exchange import Endpoint, Exchange
from farthing.proxy.redact import Redactor
from farthing.proxy.row import Row

__all__ = ["Captured", "Line", "Said", "answer_of", "is_chosen", "line_of", "said_in", "whole"]


class Said(NamedTuple):
    """What went in and came out of one exchange. `answer`: whole or a stream; None where it was too long to be held."""

    path: str
    request: bytes
    answer: bytes | None


class Captured(NamedTuple):
    """An exchange that may be kept, as the event loop hands it over."""

    said: Said
    row: Row

    @property
    def size(self) -> int:
        """Bytes that it holds in memory."""
        return len(self.said.request) + len(self.said.answer or b"") + 4096


class Line(NamedTuple):
    """A record ready for the disk."""

    id: str
    ts: float
    tenant: str
    user: str
    endpoint: str
    text: bytes


def said_in(ex: Exchange, chosen: Capture) -> Said | None:
    """What may be kept of this exchange under `chosen`; None where nothing may.

    Never of a request that asked for `no-store` (or another gateway's word for it) or `x-farthing-off`, nor of one
    that isn't understood.
    """
    controls, body = ex.controls, ex.body_in or ex.body
    if body is None or ex.payload is None or ex.endpoint is Endpoint.OTHER:
        return None
    if controls.off or controls.no_store or controls.ttl_s == 0:
        return None
    if chosen.endpoints and ex.endpoint not in chosen.endpoints:
        return None
    if chosen.tenants and ex.tenant not in chosen.tenants:
        return None
    if chosen.tags and not any(f"{name}={value}" in chosen.tags for name, value in controls.tags):
        return None
    return Said(ex.original.path, body, answer_of(ex))


def answer_of(ex: Exchange) -> bytes | None:
    """The answer's bytes as they are held already."""
    call = ex.call
    if ex.given is not None or call is None:
        return ex.given
    if call.answer is None and call.served is not None and ex.sink is not None:
        return ex.sink.body()
    return call.answer


def line_of(captured: Captured, share: float, redactor: Redactor) -> Line | None:
    """The record; None where its conversation is not in the share.

    Raises ValueError, TypeError, RecursionError: it is no JSON that can be kept. Unredacted.
    """
    (path, body, answer), row = captured
    request = loads(body)
    if not isinstance(request, dict):
        raise ValueError("the body is not a JSON object")
    if not is_chosen(row.tenant, request, share):
        return None
    user = row.user or _user_in(request)
    request, response = redactor.clean(request, whole(answer, row.endpoint))
    text = dumps(
        {
            "id": row.id,
            "ts": row.ts,
            "tenant": row.tenant,
            "user": user,
            "tags": orjson.loads(row.tags),
            "endpoint": row.endpoint,
            "path": path,
            "stream": bool(row.stream),
            "request": request,
            "response": response,
            "status": row.status,
            "row": row._asdict(),
        }
    )
    return Line(row.id, row.ts, row.tenant, user, row.endpoint, text)


def is_chosen(tenant: str, request: dict[str, Any], share: float) -> bool:
    """Whether the conversation that this request belongs to is among the share that is kept.

    By a hash of the tenant and how the conversation begins (up to the first thing that a user says), so that later
    turns and repetitions of a request are kept along with it: single requests drawn at random would show no repeats.
    """
    if share >= 1:
        return True
    digest = hashlib.sha256(dumps([tenant, _beginning(request)])).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def _beginning(request: dict[str, Any]) -> Any:
    turns = request.get("messages", request.get("input", request.get("prompt")))
    if not isinstance(turns, list):
        return [request.get("instructions"), turns]
    for at, turn in enumerate(turns):
        if isinstance(turn, dict) and turn.get("role") == "user":
            return [request.get("instructions"), request.get("system"), turns[: at + 1]]
    return turns


def _user_in(request: dict[str, Any]) -> str:
    """Whom the body names as its user, as OpenAI's and Anthropic's APIs have it."""
    inner = request.get("metadata")
    named = request.get("user") or request.get("safety_identifier")
    named = named or (inner.get("user_id") if isinstance(inner, dict) else None)
    return named if isinstance(named, str) else ""


def whole(answer: bytes | None, endpoint: str) -> Any:
    """The answer as one JSON value; None where it is none, or a stream that can't be put together."""
    if answer is None:
        return None
    if answer.lstrip()[:1] not in (b"{", b"["):
        answer = assemble(answer, endpoint)
    try:
        return None if answer is None else loads(answer)
    except (ValueError, RecursionError):
        return None
