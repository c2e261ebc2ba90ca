"""Conversations as they grow, and providers that cache and charge: the world of `bench.compress_money`.

A prompt is a list of pieces (head, then turns), each with its tokens. The provider's cache is simulated by what is
documented of it: exact prefixes, a least length, reads in steps, a lifetime after the last use. It holds one
conversation's prompts; what conversations share (the head) is the same for all methods.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

from bench.compress_data import Item, Messages
from farthing.compress.provider_cache import Kind, ProviderCache
from farthing.proxy.prices import Rates
from farthing.proxy.usage import Usage

__all__ = [
    "Conversation",
    "Piece",
    "Pieces",
    "PriceModel",
    "Provider",
    "Request",
    "grown",
    "length",
    "pauses",
    "sessions",
    "stable",
]

_FRAME_TOKENS = 4  # of a turn's role and borders, in the chat format
_LOOK_BACK_BLOCKS = 20
# Seconds between an answer and the next request, log-normal: an agent's tool, and a person who reads and types.
_TOOL_PAUSE = (4.0, 0.8)
_USER_PAUSE = (45.0, 1.1)
_ITEMS_PER_SESSION = 6
_KEPT_SHARE = 0.8


class Piece(NamedTuple):
    """One part of a prompt."""

    text: str
    tokens: int


Prompt = Sequence[Piece]
Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Conversation:
    """`turns`: all of them. `ends`: each request sends the turns before one. `pause_s`: before each request. `heads`:
    for each request, what stands in the place of the first turn; none: it stays.
    """

    name: str
    group: str
    turns: Messages
    ends: tuple[int, ...]
    pause_s: tuple[float, ...]
    heads: tuple[dict[str, Any], ...] = ()

    def requests(self) -> Iterator[tuple[Messages, float]]:
        """The turns of each request, and when it is sent, in seconds from the beginning."""
        at_s = 0.0
        for number, (end, pause_s) in enumerate(zip(self.ends, self.pause_s, strict=True)):
            at_s += pause_s
            turns = self.turns[:end]
            yield [self.heads[number], *turns[1:]] if self.heads else turns, at_s


class Request(NamedTuple):
    """What goes upstream at one step, and when (seconds from the beginning)."""

    prompt: Prompt
    at_s: float


def grown(name: str, group: str, turns: Messages, seed: int) -> Conversation:
    """The conversation as it grew: one request before each of the assistant's answers, and the last."""
    ends = [number for number, turn in enumerate(turns) if turn["role"] == "assistant" and number]
    ends = [end for end in ends if turns[end - 1]["role"] != "assistant"] + [len(turns)]
    return Conversation(name, group, turns, tuple(ends), tuple(pauses(turns, ends, Random(f"{seed} {name}"))))


def with_clock(one: Conversation, group: str) -> Conversation:
    """The same with the time in its system prompt, to the second, as many agents have it."""
    system = one.turns[0]
    heads = tuple({**system, "content": f"{system['content']}\nNow: {at_s:.0f} s"} for _, at_s in one.requests())
    return replace(one, name=f"{one.name} clock", group=group, heads=heads)


def pauses(turns: Messages, ends: Sequence[int], chance: Random) -> Iterator[float]:
    """The time before each request, by who spoke last."""
    for end in ends:
        median, sigma = _TOOL_PAUSE if turns[end - 1]["role"] == "tool" else _USER_PAUSE
        yield median * chance.lognormvariate(0.0, sigma)


def sessions(items: Sequence[Item], seed: int) -> Iterator[Conversation]:
    """Tool calls of several items, one after the other in one conversation: an agent at work.

    The first one's system prompt; an item's question is answered with the strings that it needs.
    """
    pool = [item for item in items if any(turn["role"] == "tool" for turn in item.messages)]
    Random(seed).shuffle(pool)
    for at in range(0, len(pool) - _ITEMS_PER_SESSION + 1, _ITEMS_PER_SESSION):
        part = pool[at : at + _ITEMS_PER_SESSION]
        turns: Messages = [turn for turn in part[0].messages if turn["role"] == "system"]
        for item in part:
            turns += [turn for turn in item.messages if turn["role"] != "system"]
            turns.append({"role": "assistant", "content": "It says: " + "; ".join(item.must_keep)})
        yield grown(f"session-{at}", "agent sessions", turns[:-1], seed)


def shuffled(chats: Sequence[Item], count: int, seed: int) -> Iterator[Conversation]:
    """Other long chats out of the same ones: exchanges left out by chance, put in another order, cut off somewhere."""
    chance = Random(seed)
    for number in range(count):
        item = chance.choice(chats)
        exchanges: list[Messages] = []
        for turn in item.messages[1:]:
            if turn["role"] == "user" or not exchanges:
                exchanges.append([])
            exchanges[-1].append(turn)
        chosen = [exchange for exchange in exchanges if chance.random() < _KEPT_SHARE] or exchanges
        chance.shuffle(chosen)
        turns = [turn for exchange in chosen[: chance.randint(2, 12)] for turn in exchange]
        while turns and turns[-1]["role"] == "assistant":
            turns.pop()
        if turns:
            yield grown(f"{item.id}-{number}", "shuffled chats", [item.messages[0], *turns], seed)


def text_of(turn: dict[str, Any]) -> str:
    """A turn as the text that a model reads, near enough."""
    content = turn.get("content") or ""
    calls = turn.get("tool_calls")
    return f"{turn['role']}\n{content}" + (json.dumps(calls, ensure_ascii=False) if calls else "")


class Pieces:
    """Turns as parts of prompts, each made once. Turns are known by identity: they live as long as the bench."""

    def __init__(self, count: Count) -> None:
        self.count = count
        self._made: dict[tuple[int, str], Piece] = {}

    def __call__(self, turn: dict[str, Any], content: str | None = None) -> Piece:
        """The turn as it is, or with another content."""
        key = (id(turn), (turn.get("content") or "") if content is None else content)
        made = self._made.get(key)
        if made is None:
            text = text_of({**turn, "content": key[1]})
            made = self._made[key] = Piece(text, self.count(text) + _FRAME_TOKENS)
        return made


def common(one: str, other: str) -> str:
    """What both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if other.startswith(one[:middle]) else (low, middle - 1)
    return one[:low]


def stable(requests: Sequence[Request], first: int = 0) -> tuple[int, int]:
    """(steps where all of the request before, from the `first` turn on, stands unchanged in the next, steps)."""
    same = sum(
        list(after.prompt[first : len(before.prompt)]) == list(before.prompt[first:])
        for before, after in pairwise(requests)
    )
    return same, len(requests) - 1


@dataclass(frozen=True, slots=True)
class PriceModel:
    """How a provider charges. `marks`: 'head' or 'last': behind which piece a client's cache marks stand, where caching
    is explicit (behind the head always)."""

    name: str
    rates: Rates
    cache: ProviderCache
    marks: str = "last"

    @property
    def marked(self) -> bool:
        """Whether new turns stand before a mark."""
        return self.marks == "last"


@dataclass(slots=True)
class Provider:
    """One provider's cache for one conversation."""

    model: PriceModel
    count: Count
    # Prompts by the time of their last use: whole ones where caching is automatic, marked prefixes where explicit.
    _held: dict[tuple[Piece, ...], float] = field(default_factory=dict)

    def ask(self, request: Request) -> Usage:
        """What this request is charged for."""
        cache = self.model.cache
        alive = {prompt: used for prompt, used in self._held.items() if request.at_s - used <= cache.ttl_s}
        self._held = alive
        if cache.kind is Kind.AUTOMATIC:
            return self._automatic(request)
        if cache.kind is Kind.EXPLICIT:
            return self._explicit(request)
        return Usage(fresh=length(request.prompt))

    def _automatic(self, request: Request) -> Usage:
        cache, prompt = self.model.cache, tuple(request.prompt)
        total = length(prompt)
        if total < cache.minimum_tokens:
            return Usage(fresh=total)
        best: tuple[int, tuple[Piece, ...]] = (0, ())
        for held in self._held:
            best = max(best, (self._common(held, prompt), held), key=lambda pair: pair[0])
        shared = min(best[0], total - 1)
        read = shared - shared % cache.step_tokens if shared >= cache.minimum_tokens else 0
        if read:
            self._held[best[1]] = request.at_s
        self._held[prompt] = request.at_s
        return Usage(cached=read, cache_write=total - read)

    def _explicit(self, request: Request) -> Usage:
        prompt, least = tuple(request.prompt), self.model.cache.minimum_tokens
        marks = [1, len(prompt)] if self.model.marked else [1]
        read = 0
        for mark in marks:
            for end in range(mark, max(0, mark - _LOOK_BACK_BLOCKS), -1):
                if (held := prompt[:end]) in self._held:
                    self._held[held] = request.at_s
                    read = max(read, length(held))
                    break
        written = read
        for mark in marks:
            held = prompt[:mark]
            if (size := length(held)) >= least:
                self._held[held] = request.at_s
                written = max(written, size)
        return Usage(cached=read, cache_write=written - read, fresh=length(prompt) - written)

    def _common(self, one: Prompt, other: Prompt) -> int:
        """Tokens that two prompts begin with alike; inside of the first piece that differs, to about a token."""
        shared = 0
        for left, right in zip(one, other, strict=False):
            if left != right:
                return shared + self.count(common(left.text, right.text))
            shared += left.tokens
        return shared


def length(prompt: Prompt) -> int:
    """All tokens of a prompt."""
    return sum(piece.tokens for piece in prompt)
