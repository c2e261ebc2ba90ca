"""A message's compression is decided once, when the message first appears, and replayed ever after. Pure.

A provider's prompt cache matches a request's first bytes with those of earlier requests, so whatever was sent once must
be sent again just so. Rules of this file:

1. The key of a decision is a hash over tenant, policy version, all turns before, and the turn, as the client sent them.
   A conversation that grows keeps its keys; an edit changes those from the edited turn on; branches share those of what
   they have in common.
2. What may differ from one request to the next without another meaning isn't hashed: the order of a turn's members, a
   client's cache marks (which wander to the newest message), and whether a lone text stands in a list or not.
3. A turn is new if no answer of the model follows it. Where one does, the turn was sent before: then a decision that
   can't be found is lost, and only what needs no decision (tidy) is done to it, which is kept as its decision.

Sources: OpenAI, "Prompt caching" (exact prefixes); Anthropic API reference, "Prompt caching" (`cache_control`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from farthing.proxy.seal import Seal, SealedElsewhere, closed, is_current, is_sealed, opened

__all__ = [
    "FROZEN",
    "KEY_BYTES",
    "LEFT",
    "LOST",
    "TAG_BYTES",
    "Decision",
    "anew",
    "chain",
    "decode",
    "encode",
    "first_new",
    "resealed",
    "tenant_tag",
]

TAG_BYTES = 8
KEY_BYTES = 24
"""A key: the tenant's tag, so that all of a tenant's can be removed, then the hash of the chain."""

_CHECK_BYTES = 8
_BOUND = b"decided\0"
_MARKS = ("cache_control", "prompt_cache_breakpoint")
_MARKS_RAW = tuple(f'"{name}"'.encode() for name in _MARKS)


class Decision(NamedTuple):
    """What is done to a turn. `texts`: for each of its texts that may be touched, in their order, what is sent in its
    place; None, and whatever is beyond the tuple's end: as it is, or tidied. `rules`: the names of those applied.

    `tokens`: what each of these rules saved, in their order, and behind that what tidying did; by the count of the
    model that it was decided for. `form`: the name of the form that it is in.
    """

    texts: tuple[str | None, ...] = ()
    rules: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    form: str = ""

    @property
    def tokens_saved(self) -> int:
        """By all of them."""
        return sum(self.tokens)


LEFT = Decision()
"""Nothing but tidying."""
LOST = Decision(rules=("lost",))
"""The same: what was decided is no longer known."""
FROZEN = Decision(rules=("frozen",))
"""Not even that: the client's bytes."""


def chain(tenant: str, policy: str, turns: Iterable[Any], before: Any = None) -> list[bytes]:
    """The keys of the turns, KEY_BYTES each, in one pass.

    `policy`: the version of all that a decision depends on: rules, settings, how texts are found. Not the model: each
    model has its own prompt cache, and the bytes may as well be the same. `before`: what stands before the first turn
    and isn't a turn (Anthropic's `system`, the responses API's `instructions`). A turn that can't be hashed (nested too
    deep) ends the list: it and those behind it are to be left alone. Cost: linear in the bytes.
    """
    tag = tenant_tag(tenant)
    state = blake2b(digest_size=KEY_BYTES - TAG_BYTES)
    keys: list[bytes] = []
    try:
        for part in (tenant.encode("utf-8", "surrogatepass"), policy.encode(), _canonical({"content": before})):
            _add(state, part)
        for turn in turns:
            _add(state, _canonical(turn))
            keys.append(tag + state.copy().digest())
    except (RecursionError, TypeError, ValueError):
        pass
    return keys


def tenant_tag(tenant: str) -> bytes:
    """What every key of the tenant begins with."""
    return blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=TAG_BYTES).digest()


def first_new(endpoint: str, turns: Sequence[Any]) -> int:
    """The number of the first turn that is new: those before it were sent upstream at some time.

    Not by being last: parallel results of tools, a user's words after a result, and several new turns at once are all
    new. An answer that is itself the last turn was begun by the client (a prefilled answer), and shows nothing.
    """
    for number in range(len(turns) - 2, -1, -1):
        if by_model(endpoint, turns[number]):
            return number + 1
    return 0


def request_ends(endpoint: str, turns: Sequence[Any]) -> list[int]:
    """The numbers of the turns that ended a request, this one's among them: those before an answer, and the last."""
    ends = [
        number
        for number in range(len(turns) - 1)
        if by_model(endpoint, turns[number + 1]) and not by_model(endpoint, turns[number])
    ]
    last = len(turns) - 1
    return ends if last < 0 or (ends and by_model(endpoint, turns[last])) else [*ends, last]


def encode(key: bytes, decision: Decision, seal: Seal | None = None) -> bytes:
    """The decision as bytes that are believed only under this key; closed, where there is a seal."""
    held = [decision.texts, decision.rules, decision.tokens, decision.form]
    try:
        raw = orjson.dumps(held)
    except TypeError:  # lone surrogates
        raw = json.dumps(held).encode()
    return closed(seal, _check(key, raw) + raw, _BOUND + key)


def decode(key: bytes, stored: bytes, seal: Seal | None = None) -> Decision | None:
    """What `encode` wrote under this key, with a seal or without; None for anything else. Raises SealedElsewhere."""
    found = _decoded(key, stored)
    if found is not None or not is_sealed(stored):
        return found
    try:
        return _decoded(key, opened(seal, stored, _BOUND + key))
    except SealedElsewhere:
        raise
    except ValueError:
        return None


def resealed(key: bytes, stored: bytes, seal: Seal | None) -> bytes | None:
    """The same as it is stored now; None where it is so already, or can't be opened."""
    try:
        return anew(key, stored, seal)
    except ValueError:
        return None


def anew(key: bytes, stored: bytes, seal: Seal | None) -> bytes | None:
    """The same as it is stored now; None where it is so already. Raises SealedElsewhere; ValueError: it is damaged."""
    if is_current(seal, stored):
        return None
    decision = decode(key, stored, seal)
    if decision is None:
        raise ValueError("no decision, or damaged")
    return encode(key, decision, seal)


def _decoded(key: bytes, plain: bytes) -> Decision | None:
    raw = plain[_CHECK_BYTES:]
    if plain[:_CHECK_BYTES] != _check(key, raw):
        return None
    try:
        texts, rules, tokens, form = json.loads(raw)
        return Decision(tuple(texts), tuple(rules), tuple(tokens), form)
    except (ValueError, TypeError):
        return None


def _check(key: bytes, raw: bytes) -> bytes:
    return blake2b(raw, digest_size=_CHECK_BYTES, key=key).digest()


def _add(state: Any, part: bytes) -> None:
    """Length first, so that no two lists of parts are the same bytes."""
    state.update(len(part).to_bytes(8, "big"))
    state.update(part)


def _canonical(turn: Any) -> bytes:
    """The turn as bytes, the same for all ways to write it that mean the same. Raises RecursionError, TypeError."""
    turn = _plain(turn)
    raw = _dumps(turn)
    return _dumps(_unmarked(turn)) if any(mark in raw for mark in _MARKS_RAW) else raw


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # lone surrogates, integers beyond 64 bits, nesting
        return json.dumps(value, sort_keys=True).encode()


def _plain(turn: Any) -> Any:
    """A turn whose content is a list of one text, with that text as its content."""
    content = turn.get("content") if isinstance(turn, dict) else None
    if type(content) is list and len(content) == 1 and isinstance(block := content[0], dict):
        text = block.get("text")
        if block.get("type") == "text" and isinstance(text, str) and not set(block) - {"type", "text", *_MARKS}:
            return {**turn, "content": text}
    return turn


def _unmarked(value: Any, depth: int = 0) -> Any:
    """Without cache marks, where a provider takes them: on turns, on their blocks and calls, and inside of these."""
    if not isinstance(value, dict) or depth > 2:
        return value
    bare = {name: inner for name, inner in value.items() if name not in _MARKS}
    for name in ("content", "output", "tool_calls"):
        if isinstance(inner := bare.get(name), list):
            bare[name] = [_unmarked(block, depth + 1) for block in inner]
    return bare


def by_model(endpoint: str, turn: Any) -> bool:
    """Whether the model wrote this turn."""
    if not isinstance(turn, Mapping):
        return False
    if turn.get("role") == "assistant":
        return True
    kind = turn.get("type")
    return endpoint == "responses" and isinstance(kind, str) and (kind == "reasoning" or kind.endswith("_call"))
