"""Identity: when are two requests the same? Pure.

Rules of this file:
1. Everything in the body is in the key unless `NOT_IN_KEY` names it; an unknown field makes another key.
2. Canonical means JSON-level only. Keys are sorted at the top level and in messages; inside tools, functions,
   schemas and unknown fields their order is kept, since structured output follows it. Numbers are exact decimals:
   1.0 and 1 are one number, 0.1 and 0.10000000000000000001 are two. White space inside strings is content.
3. The tenant is part of the key, and comes from the credential alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any

import orjson
from multidict import MultiMapping

from farthing.proxy.exchange import Controls, Endpoint
from farthing.proxy.wire import vendor_headers

__all__ = ["ECHOED", "NOT_IN_KEY", "Place", "Scope", "canonical", "digest_of", "key_of", "neighbourhood"]

VERSION = b"farthing-key-1"

# What does not change the answer: the transport's shape, and who asks on whose behalf (OpenAI and Anthropic API
# references). `store` is here because requests that store pass the cache by altogether.
NOT_IN_KEY = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "stream",
        "stream_options",
        "user",
    }
)
# A Responses answer repeats what the request said of itself, so there only the transport's shape is left out.
ECHOED = frozenset({"stream", "stream_options"})
_MESSAGE_LISTS = frozenset({"messages", "input"})
_SORTED_MEMBERS = frozenset({"content", "tool_calls", "image_url", "input_audio", "file", "source"})
_BIG = 2**63
_SHOWN_CHARS = 100
_MOST_DIGITS = 40  # larger whole numbers are written with an exponent


@dataclass(frozen=True, slots=True)
class Scope:
    """All of a request's identity that is not its body. `tenant` can't be left out. `lossy`: what may be done to the
    request that changes its answer."""

    tenant: str
    endpoint: Endpoint
    target: str
    upstream: str
    headers: MultiMapping[str]
    controls: Controls
    lossy: str = ""

    def material(self) -> bytes:
        """These parts as unambiguous bytes."""
        vendor = [(name, value) for name in vendor_headers(tuple(self.headers)) for value in self.headers.getall(name)]
        lossy = (self.controls.route, self.lossy)
        return orjson.dumps(
            [self.tenant, self.controls.scope, self.endpoint, self.target, self.upstream, vendor, lossy]
        )


def key_of(scope: bytes, body_digest: bytes) -> str:
    """The exact key, 32 hex digits (128 bits of SHA-256 over scope and body).

    `scope`: of `Scope.material`. `body_digest`: of `digest_of`.
    """
    return hashlib.sha256(VERSION + body_digest + scope).hexdigest()[:32]


def digest_of(payload: dict[str, Any], endpoint: Endpoint, *, plain: bool = False) -> bytes:
    """The body's part of the key: SHA-256 of its canonical form. `payload`, `plain`: of wire.Body, `exact`."""
    return hashlib.sha256(canonical(payload, endpoint, plain=plain)).digest()


def canonical(payload: dict[str, Any], endpoint: Endpoint = Endpoint.CHAT, *, plain: bool = False) -> bytes:
    """The canonical form of a body as JSON bytes. `plain`: what wire.is_plain said of it; False is never wrong."""
    left_out = ECHOED if endpoint is Endpoint.RESPONSES else NOT_IN_KEY
    kept = {name: value for name, value in payload.items() if name not in left_out}
    for name, value in kept.items():
        if not (plain and name in _MESSAGE_LISTS) and not _is_plain(name, value):
            break
    else:
        return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)  # the same bytes, the short way
    return orjson.dumps(
        {name: _messages(kept[name]) if name in _MESSAGE_LISTS else _exact(kept[name]) for name in sorted(kept)}
    )


def _is_plain(name: str, value: Any) -> bool:
    """Whether sorting every key is all that the canonical form does to it: no table but messages of role and text, no
    number with more than one spelling."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-_BIG <= value < _BIG)
    if kind is float:
        return not value.is_integer() and 1e-300 < abs(value) < 1e300
    if kind is not list or name not in _MESSAGE_LISTS:
        return False
    return all(map(_is_plain_message, value))


def _is_plain_message(item: Any) -> bool:
    return type(item) is dict and len(item) == 2 and type(item.get("content")) is str and type(item.get("role")) is str


def _messages(value: Any) -> Any:
    """Messages, with keys sorted where their order can't matter."""
    if isinstance(value, list):
        return [_messages(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 2 and type(text := value.get("content")) is str and type(role := value.get("role")) is str:
            return {"content": text, "role": role}  # the usual message, the short way
        return {
            name: value[name]
            if type(value[name]) is str
            else _messages(value[name])
            if name in _SORTED_MEMBERS
            else _exact(value[name])
            for name in sorted(value)
        }
    return _exact(value)


def _exact(value: Any) -> Any:
    """The value with order kept and every number in its one canonical spelling."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is dict:
        return {name: _exact(item) for name, item in value.items()}
    if kind is list:
        return [_exact(item) for item in value]
    if kind is int:
        return _whole(value) if abs(value) < 10**_MOST_DIGITS else _decimal(Decimal(value))
    return _decimal(Decimal(repr(value)) if kind is float else value)


def _whole(value: int) -> Any:
    return value if -_BIG <= value < _BIG else orjson.Fragment(str(value))


def _decimal(number: Decimal) -> Any:
    """An integer where the number is one, a float where that is exact, else its digits."""
    if number.adjusted() < _MOST_DIGITS and number == number.to_integral_value():
        return _whole(int(number))
    if -300 < number.adjusted() < 300 and Decimal(repr(nearest := float(number))) == number:
        return nearest
    digits = len(number.as_tuple().digits)
    return orjson.Fragment(str(number.normalize(Context(prec=max(1, digits), Emax=MAX_EMAX, Emin=MIN_EMIN))))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request stands among others. `scope`: 32 hex digits over everything but the last user message, a wall.

    `route`: the family of scopes that shares evidence: the same but for the turns of the conversation; model first,
    for screens. `text`: of the last user message; where it is `divided`, only what varies, the rest being in the wall.
    """

    scope: str
    route: str
    text: str
    divided: bool = False


def neighbourhood(scope: Scope, payload: dict[str, Any]) -> Place | str:
    """The request's place; or, where it has no such form, why."""
    found = _last_text(scope.endpoint, payload)
    if isinstance(found, str):
        return found
    text, without = found
    field = "input" if scope.endpoint is Endpoint.RESPONSES else "messages"
    common = scope.material()
    wall = hashlib.sha256(VERSION + b"-neighbourhood" + digest_of(without, scope.endpoint) + common).hexdigest()[:32]
    shared = {**without, field: _instructions(without.get(field))}
    family = hashlib.sha256(digest_of(shared, scope.endpoint) + common).hexdigest()[:8]
    return Place(wall, f"{str(payload.get('model', ''))[:_SHOWN_CHARS]} {family}", text)


def _instructions(turns: Any) -> Any:
    """What of the turns is said to every user: system and developer messages."""
    if not isinstance(turns, list):
        return None
    return [turn for turn in turns if isinstance(turn, dict) and turn.get("role") in ("system", "developer")]


def _last_text(endpoint: Endpoint, payload: dict[str, Any]) -> tuple[str, dict[str, Any]] | str:
    """The last user message's text, and the payload with that text taken out."""
    field = "input" if endpoint is Endpoint.RESPONSES else "messages"
    if endpoint not in (Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES):
        return "endpoint has no messages"
    turns = payload.get(field)
    if isinstance(turns, str):
        return turns, {**payload, field: None}
    if not isinstance(turns, list) or not turns or not isinstance(last := turns[-1], dict):
        return "no messages"
    if last.get("role") != "user":
        return "last message is not the user's"
    content = last.get("content")
    if isinstance(content, str):
        rest: Any = None
        text = content
    elif isinstance(content, list):
        spoken = [part for part in content if isinstance(part, dict) and part.get("type") in ("text", "input_text")]
        if len(spoken) != 1 or not isinstance(spoken[0].get("text"), str):
            return "last message is not one text"
        text = spoken[0]["text"]
        rest = [{**part, "text": None} if part is spoken[0] else part for part in content]
    else:
        return "last message has no text"
    return text, {**payload, field: [*turns[:-1], {**last, "content": rest}]}
