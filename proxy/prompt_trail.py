"""A prompt as the chain of its prefixes, as a provider's prompt cache would tell them apart. Pure.

Rules of this file:
1. The order is the provider's: tools, system, turns. What isn't part of the prompt (temperature, limits) isn't in it.
2. A prefix ends where a turn or a block ends and, within a long text, every PIECE_CHARS characters; behind the first
   FINE_CHARS of a prompt every COARSE_CHARS. A difference inside of a piece so hides at most that much of what two
   prompts share: below 1 % of it.
3. Cache marks are no content: they wander from turn to turn while the prefix stays the same.
4. Keys are hashes of 64 bits, chained; what hangs on them is an estimate. In a proxy they are Python's own salted
   ones, which live in this process's memory only and cost a quarter of what BLAKE2b does; `lasting` ones are the same
   in every process.

Sources: OpenAI, "Prompt caching" (exact prefixes, tools and schemas among them); Anthropic API reference, "Prompt
caching" (tools, then system, then messages; tool choice and thinking change the messages' part only).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from farthing.compress.provider_cache import Kind, ProviderCache

__all__ = ["COARSE_CHARS", "FINE_CHARS", "PIECE_CHARS", "Trail", "lasting", "trail_of"]

PIECE_CHARS = 512
"""About 128 tokens of English, which is the step in which OpenAI counts reads."""
FINE_CHARS, COARSE_CHARS = 1_000_000, 8_192
"""Prompts of megabytes would else have so many prefixes that looking them up holds the event loop for a while."""

_OTHER_CHARS = 3_000  # what an image or a sound weighs at the most, whatever its encoding's length
_MARKS = ("cache_control", "prompt_cache_breakpoint")
_TURNS = {"chat": "messages", "messages": "messages", "responses": "input"}
_TEXTS = ("text", "input_text", "output_text")
_HOUR_S, _DAY_S = 3600.0, 86_400.0
Hashed = Callable[[tuple[int | str | bytes, ...]], int]


class Mark(NamedTuple):
    """A breakpoint behind the prefix with the number `at`; what is written there is kept for `ttl_s`."""

    at: int
    ttl_s: float


class Trail(NamedTuple):
    """`keys`: of the prefixes, each longer than the one before. `ends`: their lengths, in characters. `ttl_s`: how long
    what is cached of it is kept. `marks`: where the request says what is cached; None where the provider does."""

    keys: Sequence[int]
    ends: Sequence[int]
    cache: ProviderCache
    ttl_s: float
    marks: list[Mark] | None = None


def lasting(parts: tuple[int | str | bytes, ...]) -> int:
    """A hash of 64 bits, signed, that is the same in every process and every run."""
    made = blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, int):
            raw = part.to_bytes(8, "little", signed=True)
        else:
            raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            made.update(len(raw).to_bytes(8, "little"))
        made.update(raw)
    return int.from_bytes(made.digest(), "little", signed=True)


def trail_of(
    endpoint: str, payload: dict[str, Any], cache: ProviderCache, scope: tuple[str, ...], hashed: Hashed = hash
) -> Trail | None:
    """The prompt's trail; None where it has none: an endpoint without prompts, or nested too deep.

    `scope`: whose cache it is, and for which model. `hashed`: `hash`, or `lasting`. Cost: linear in the bytes, 0.5
    microseconds a kilobyte with `hash`.
    """
    if cache.kind is Kind.NONE:
        return None
    options = payload.get("prompt_cache_options")
    by_marks = cache.kind is Kind.EXPLICIT or (isinstance(options, dict) and options.get("mode") == "explicit")
    walk = _Walk(hashed, hashed(scope), cache.ttl_s if by_marks else None)
    try:
        if endpoint == "completions":
            prompt = payload.get("prompt")
            if not isinstance(prompt, str):
                return None
            walk.text(prompt)
        elif endpoint in _TURNS:
            _head(walk, endpoint, payload)
            turns = payload.get(_TURNS[endpoint])
            if isinstance(turns, str):  # a user's, who isn't named
                turns = [{"role": "user", "content": turns}]
            for turn in turns if isinstance(turns, list) else ():
                _turn(walk, turn)
        else:
            return None
    except RecursionError:
        return None
    if not walk.keys:
        return None
    if by_marks and payload.get("cache_control") is not None:
        walk.mark(payload["cache_control"])
    kept_s = _DAY_S if payload.get("prompt_cache_retention") == "24h" else cache.kept_s
    return Trail(walk.keys, walk.ends, cache, kept_s, walk.marks if by_marks else None)


class _Walk:
    """The chain as it grows. `mark_s`: how long a mark of no length lasts; None where marks mean nothing."""

    __slots__ = ("_chars", "_hashed", "_key", "_mark_s", "ends", "keys", "marks")

    def __init__(self, hashed: Hashed, key: int, mark_s: float | None) -> None:
        self._hashed = hashed
        self._key, self._chars, self._mark_s = key, 0, mark_s
        self.keys: list[int] = []
        self.ends: list[int] = []
        self.marks: list[Mark] = []

    def text(self, text: str) -> None:
        """A text that one can be a part of another; where marks say what is cached, only ends count."""
        if self._mark_s is not None:
            step = len(text) or 1
        elif self._chars >= FINE_CHARS:
            step = COARSE_CHARS
        else:
            step = PIECE_CHARS
            fine = -(-(FINE_CHARS - self._chars) // step) * step
            if fine < len(text):
                self.text(text[:fine])
                self.text(text[fine:])
                return
        key, chars, keys, ends, hashed = self._key, self._chars, self.keys, self.ends, self._hashed
        for at in range(0, len(text), step):
            piece = text[at : at + step]
            chars += len(piece)
            key = hashed((key, piece))
            keys.append(key)
            ends.append(chars)
        self._key, self._chars = key, chars

    def whole(self, value: Any, most_chars: int = 10**9) -> None:
        """Something that is the same or another."""
        raw = _plain(value)
        self._chars += min(len(raw), most_chars)
        self._key = self._hashed((self._key, raw))
        self.keys.append(self._key)
        self.ends.append(self._chars)

    def within(self, name: str) -> None:
        """What follows belongs to this."""
        self._key = self._hashed((self._key, name))
        self._chars += len(name)

    def mark(self, said: Any) -> None:
        """A breakpoint stands here."""
        if self._mark_s is not None and self.keys:
            hour = isinstance(said, dict) and said.get("ttl") == "1h"
            self.marks.append(Mark(len(self.keys) - 1, _HOUR_S if hour else self._mark_s))


def _head(walk: _Walk, endpoint: str, payload: dict[str, Any]) -> None:
    """What stands before the turns."""
    for name in ("tools", "functions"):
        tools = payload.get(name)
        for tool in tools if isinstance(tools, list) else ():
            _block(walk, tool)
    if endpoint == "messages":
        system = payload.get("system")
        if isinstance(system, str):
            walk.text(system)
        else:
            for block in system if isinstance(system, list) else ():
                _block(walk, block)
        for name in ("tool_choice", "thinking"):
            if payload.get(name) is not None:
                walk.within(_plain([name, payload[name]]).decode())
        return
    for name in ("response_format", "text"):  # a schema stands before the system message
        if payload.get(name) is not None:
            walk.within(_plain([name, payload[name]]).decode())
    if isinstance(payload.get("instructions"), str):
        walk.text(payload["instructions"])


def _turn(walk: _Walk, turn: Any) -> None:
    if not isinstance(turn, dict):
        walk.text(turn) if isinstance(turn, str) else walk.whole(turn)
        return
    role, content = turn.get("role"), turn.get("content")
    if isinstance(role, str):
        walk.within(role)
    if isinstance(content, str):
        walk.text(content)
    elif isinstance(content, list):
        for block in content:
            _block(walk, block)
    if len(turn) > 2 or content is None:
        rest = {name: value for name, value in turn.items() if name not in ("role", "content", *_MARKS)}
        if rest:
            walk.whole(_bare(rest))
        for name in _MARKS:
            if turn.get(name) is not None:
                walk.mark(turn[name])


def _block(walk: _Walk, block: Any) -> None:
    if not isinstance(block, dict):
        walk.text(block) if isinstance(block, str) else walk.whole(block)
        return
    text = block.get("text")
    if isinstance(text, str) and block.get("type") in _TEXTS and not set(block) - {"type", "text", *_MARKS}:
        walk.text(text)
    else:
        told = block.get("type") in ("tool_use", "tool_result", "function", "document", "search_result")
        walk.whole(_bare(block), 10**9 if told or "type" not in block else _OTHER_CHARS)
    for name in _MARKS:
        if block.get(name) is not None:
            walk.mark(block[name])


def _bare(value: Any) -> Any:
    """Without marks, where they may stand: on it, and on what its content holds."""
    if not isinstance(value, dict):
        return value
    bare = {name: inner for name, inner in value.items() if name not in _MARKS}
    if isinstance(inner := bare.get("content"), list):
        bare["content"] = [_bare(block) for block in inner]
    return bare


def _plain(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # lone surrogates, integers beyond 64 bits, nesting
        return repr(value).encode(errors="backslashreplace")
