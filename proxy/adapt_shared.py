"""What the adapters between APIs share: careful reading, refusals, and the words that both sides have. Pure.

Rules of the adapters (`adapt*.py`):
1. What one side says and the other can't is refused with the field's name. Fields are taken out one by one (`Fields`),
   so one that nobody thought of is refused too. What may be left out without changing an answer is listed by name.
2. null is the same as absent, as both APIs have it.
3. Whatever comes, nothing but `Refused` is raised.

Sources: OpenAI API reference (chat), Anthropic API reference (messages), and the types of openai 3 and anthropic 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from farthing.cache.exact_json import dumps, loads
from farthing.proxy.usage import Usage, from_payload

__all__ = [
    "CUT_SHORT",
    "EFFORTS",
    "FINISHES",
    "STOPS",
    "Fields",
    "Options",
    "Piece",
    "Refused",
    "cached",
    "chat_usage",
    "dumped",
    "failing_safely",
    "message_usage",
    "named_user",
    "object_of",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_NO_COUNTERPART = "has no counterpart in the upstream's API"
_MOST_USER_CHARS = 64  # OpenAI; others take 128

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Anthropic's stop reasons as OpenAI's finish reasons."""
STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "model_length": "model_context_window_exceeded",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
"""OpenAI's finish reasons, and Mistral's own one, as Anthropic's stop reasons."""
CUT_SHORT = frozenset({"length", "model_length", "content_filter"})
"""The finish reasons after which the last call of an answer may be half of one."""
EFFORTS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_768, "max": 65_536}
"""Reasoning efforts, and the thinking budget in tokens that stands for each where a model wants a budget."""


class Refused(Exception):
    """One API says what the other can't. `param`: the field, as a path in the body; `why`: the rest of the sentence."""

    def __init__(self, param: str, why: str = _NO_COUNTERPART) -> None:
        super().__init__(f"{param} {why}")
        self.param = param
        self.why = why


class Options(NamedTuple):
    """What can't be known from a body.

    `max_tokens`: for an Anthropic upstream, where the client names none (it must be named there). `budgets`: whether
    reasoning efforts become thinking budgets, for Anthropic models before 4.6, instead of adaptive thinking.
    `max_tokens_field`, `top_k`, `cache_control`, `tool_images`: what an upstream of OpenAI's API calls the limit, and
    whether it takes `top_k`, `cache_control` marks, images in tool messages, and being asked for the usage of streams.
    """

    max_tokens: int = 4096
    budgets: bool = False
    max_tokens_field: str = "max_completion_tokens"
    top_k: bool = False
    cache_control: bool = False
    tool_images: bool = False
    stream_usage: bool = True


class Piece(NamedTuple):
    """One event of a stream. `usage_only`: one that only a client which asked for the usage may see."""

    body: bytes
    usage_only: bool = False


class Fields:
    """An object whose fields are taken one by one. `where`: its path. Raises Refused: it is no object."""

    def __init__(self, value: Any, where: str = "") -> None:
        if not isinstance(value, dict):
            raise Refused(where or "body", "must be an object")
        self.where = where
        self._left = {name: item for name, item in value.items() if item is not None}

    def path(self, name: str) -> str:
        """A field's path."""
        return f"{self.where}.{name}" if self.where else name

    def take(self, name: str, kind: type[_T]) -> _T | None:
        """The field, taken; None where it isn't there. Raises Refused: it is of another type."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Refused(self.path(name), f"must be {_KINDS.get(kind, kind.__name__)}")
        return value

    def need(self, name: str, kind: type[_T]) -> _T:
        """The field, which must be there."""
        value = self.take(name, kind)
        if value is None:
            raise Refused(self.path(name), "is missing")
        return value

    def number(self, name: str) -> Any:
        """A number; None where it isn't there."""
        value = self._left.pop(name, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | Decimal)):
            raise Refused(self.path(name), "must be a number")
        return value

    def word(self, name: str, known: Mapping[str, _T]) -> _T | None:
        """What a word means; None where the field isn't there. Raises Refused: nobody knows the word."""
        value = self.take(name, str)
        if value is None:
            return None
        if value not in known:
            raise Refused(self.path(name), f"= {value[:40]!r} {_NO_COUNTERPART}")
        return known[value]

    def may_be(self, name: str, *harmless: Any, why: str = _NO_COUNTERPART) -> None:
        """Take a field that says nothing where it has one of these values; otherwise raises Refused."""
        value = self._left.pop(name, None)
        if value is not None and not any(type(value) is type(one) and value == one for one in harmless):
            raise Refused(self.path(name), why)

    def leave_out(self, *names: str) -> None:
        """Take fields that change no answer."""
        for name in names:
            self._left.pop(name, None)

    def done(self) -> None:
        """Raises Refused: a field was not taken."""
        for name in self._left:
            raise Refused(self.path(str(name)[:80]))


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true or false",
}


def failing_safely(work: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same, but what hostile JSON makes Python raise is Refused."""

    @wraps(work)
    def safely(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return work(*args, **kwargs)
        except (ValueError, TypeError, RecursionError, ArithmeticError):
            raise Refused("body", "is not JSON that can be turned into the upstream's API") from None

    return safely


def object_of(text: str | bytes, where: str) -> dict[str, Any]:
    """The object that a text is. Raises Refused."""
    try:
        value = loads(text.encode() if isinstance(text, str) else text)
    except (ValueError, RecursionError):
        raise Refused(where, "is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(where, "must be a JSON object")
    return value


def named_user(user: str) -> str:
    """An end user's name as OpenAI and servers like it take one: a longer one is told as its SHA-256."""
    return user if len(user) <= _MOST_USER_CHARS else hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()


def dumped(value: Any) -> str:
    """JSON as text."""
    return dumps(value).decode()


def cached(fields: Fields, block: dict[str, Any], *, keep: bool = True) -> dict[str, Any]:
    """The block, with the mark of a cache's breakpoint if the fields have one. A mark changes a price, no answer."""
    mark = fields.take("cache_control", dict)
    return block | {"cache_control": mark} if mark is not None and keep else block


def chat_usage(usage: Any) -> tuple[dict[str, Any] | None, str]:
    """Anthropic's usage as a chat's, and the service tier as OpenAI says it; (None, '') where nothing was counted.

    Both are the same to `usage.from_payload`, but that a chat can't tell writes to a cache for five minutes from those
    for an hour.
    """
    read = from_payload("messages", usage) if isinstance(usage, dict) else None
    if read is None:
        return None, ""
    told: dict[str, Any] = {
        "prompt_tokens": read.tokens_in,
        "completion_tokens": read.tokens_out,
        "total_tokens": read.tokens_in + read.tokens_out,
        "prompt_tokens_details": {"cached_tokens": read.tokens_read}
        | ({"cache_write_tokens": read.tokens_written} if read.tokens_written else {}),
        "completion_tokens_details": {"reasoning_tokens": read.reasoning},
    }
    return told, read.tier or ("default" if usage.get("service_tier") else "")


def message_usage(usage: Any, tier: Any) -> dict[str, Any]:
    """A chat's usage as Anthropic's, where it must be told: zeros where nothing was counted."""
    read = (from_payload("chat", usage, tier) if isinstance(usage, dict) else None) or Usage()
    told: dict[str, Any] = {
        "input_tokens": read.tokens_in - read.tokens_read - read.tokens_written,
        "cache_creation_input_tokens": read.tokens_written,
        "cache_read_input_tokens": read.tokens_read,
        "output_tokens": read.tokens_out,
    }
    if read.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": read.reasoning}
    if isinstance(tier, str) and tier:
        told["service_tier"] = read.tier or "standard"
    return told
