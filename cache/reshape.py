"""A complete stream as the whole answer that it amounts to, and a whole answer as a stream: of every API. Pure.

Rules of this file:
1. What isn't surely the same answer isn't given: None, and the caller counts a miss.
2. `split` proves itself: it returns a stream only where assembling it gives the same value again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from farthing.cache import chat_assemble, chat_split, completion_shapes, message_shapes, response_shapes
from farthing.cache.exact_json import dumps, loads
from farthing.cache.shaping import Unsure, a
from farthing.proxy.exchange import Endpoint

__all__ = ["assemble", "split"]


class _Streaming(Protocol):
    def __call__(self, value: dict[str, Any], *, usage: bool) -> bytes: ...


class _Form(NamedTuple):
    """The two ways of one API."""

    merged: Callable[[bytes], dict[str, Any]]
    stream: _Streaming


_FORMS: dict[str, _Form] = {
    Endpoint.CHAT: _Form(chat_assemble.merged, chat_split.stream),
    Endpoint.COMPLETIONS: _Form(completion_shapes.merged, completion_shapes.stream),
    Endpoint.RESPONSES: _Form(response_shapes.merged, response_shapes.stream),
    Endpoint.MESSAGES: _Form(message_shapes.merged, message_shapes.stream),
}
_NOT_SURE = (Unsure, ValueError, TypeError, RecursionError)


def assemble(sse: bytes, endpoint: str) -> bytes | None:
    """The whole answer that a complete stream amounts to, as JSON; None where that isn't certain."""
    form = _FORMS.get(endpoint)
    try:
        return None if form is None else dumps(form.merged(sse))
    except _NOT_SURE:
        return None


def split(whole: bytes, endpoint: str, *, include_usage: bool) -> bytes | None:
    """The stream that amounts to a whole answer; None where that isn't certain.

    `include_usage`: whether the client asked for the event with the usage, where that has to be asked for.
    """
    form = _FORMS.get(endpoint)
    if form is None:
        return None
    try:
        value = a(dict, loads(whole))
        stream = form.stream(value, usage=True)
        if form.merged(stream) != value:
            return None
        return stream if include_usage else form.stream(value, usage=False)
    except _NOT_SURE:
        return None
