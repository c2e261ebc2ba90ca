"""What a provider's prompt cache would have given, had every client asked it directly: a simulation over all traffic.

It holds prefixes of prompts in two worlds. In the *direct* one each client's request arrived as the client wrote it:
hits and joined requests too. In the *sent* one arrived what really went upstream. Where nothing was done to the traffic
the two are the same, and then what a request would have read is what it was billed; where they differ, it is what it
was billed and the difference between the two.

Rules of this file:
1. Nothing is invented: a read counts to the share to which the sent world's reads were billed (`Record`); until
   something is known of a model, to the whole, which makes savings smaller.
2. A prefix can be read from the moment on at which the answer to the request that brought it began.
3. Memory is bounded: what was longest not used goes first. No text is kept, only hashes.

Sources: compress/provider_cache.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from farthing.compress.provider_cache import NO_CACHE, ProviderCache, provider_cache
from farthing.proxy.prompt_trail import Trail, trail_of
from farthing.proxy.usage import Usage, UsageSource

__all__ = ["ProviderReads", "World"]

_MODELS = 1024
_FIRST_TOKENS = 20_000  # what is believed of a model beforehand: as if so many tokens had been promised, and read
_RECENT_TOKENS = 5_000_000  # of the record; beyond, half of it is forgotten


class World(IntEnum):
    """Which of a prefix's two lives: the place of its first moment in a node; the last one's is behind it."""

    DIRECT = 0
    SENT = 2


BOTH = (World.DIRECT, World.SENT)
_TOKENS = 4
Node = list[Any]
"""[readable from, until (direct), readable from, until (sent), tokens of a request that ended here or 0]"""


@dataclass(slots=True)
class Record:
    """How much of what was promised for a model's requests was billed as read, in tokens."""

    promised: int = _FIRST_TOKENS
    kept: int = _FIRST_TOKENS

    def note(self, promised: int, billed: int) -> None:
        """A request of which the simulation promised so many tokens was billed with so many reads."""
        self.promised += promised
        self.kept += min(promised, billed)
        if self.promised > _RECENT_TOKENS:
            self.promised, self.kept = (self.promised + 1) // 2, (self.kept + 1) // 2

    def of(self, promised: int) -> int:
        """What such a promise is worth."""
        return promised * self.kept // self.promised


class ProviderReads:
    """The simulation. `most`: prefixes that are held, 300 bytes each."""

    def __init__(self, most: int = 131_072) -> None:
        self._half = max(1, most // 2)
        self._young: dict[int, Node] = {}
        self._old: dict[int, Node] = {}
        self._caches: OrderedDict[tuple[str, str], ProviderCache] = OrderedDict()
        self._records: OrderedDict[str, Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def cache(self, model: str, provider: str) -> ProviderCache:
        """The rules before this model."""
        place = (model, provider)
        found = self._caches.get(place)
        if found is None:
            found = self._caches[place] = provider_cache(model, provider) if model else NO_CACHE
            if len(self._caches) > _MODELS:
                self._caches.popitem(last=False)
        return found

    def trail(
        self, endpoint: str, payload: dict[str, Any] | None, model: str, provider: str, tenant: str, tokens_in: int
    ) -> Trail | None:
        """The prompt's trail where a provider would cache it; None, at next to no cost, where it is too short.

        `tokens_in`: of the prompt.
        """
        cache = self.cache(model, provider)
        if tokens_in < cache.minimum_tokens or payload is None:
            return None
        return trail_of(endpoint, payload, cache, (tenant, model))

    def arrive(
        self, trail: Trail, usage: Usage, at_s: float, ready_s: float, worlds: Sequence[World] = BOTH
    ) -> tuple[int, ...]:
        """A prompt arrives: the tokens that it reads in each of the worlds. What it leaves there can be read later on.

        `usage`: the prompt's tokens. `at_s`: when it arrives; `ready_s`: when its answer begins (seconds since the
        epoch). Requests may be told out of order. Cost: 0.1 microseconds for each prefix and world.
        """
        nodes = self._nodes(trail.keys)
        reads = []
        for world in worlds:
            if trail.marks is None:
                place = _longest(nodes, world, at_s)
                _keep(nodes[: place + 1], world, at_s + trail.ttl_s)
                _touch(nodes[place + 1 :], world, at_s, ready_s, at_s + trail.ttl_s)
            else:
                place = _marked(trail, nodes, world, at_s)
                if place >= 0:
                    _keep(nodes[place : place + 1], world, at_s + trail.cache.ttl_s)
                for mark in trail.marks:
                    if _tokens(trail, nodes, usage, mark.at) >= trail.cache.minimum_tokens:
                        _touch(nodes[mark.at : mark.at + 1], world, at_s, ready_s, at_s + mark.ttl_s)
            read = _tokens(trail, nodes, usage, place) if place >= 0 else 0
            read -= read % trail.cache.step_tokens
            reads.append(read if read >= trail.cache.minimum_tokens else 0)
        last, known = _whole(trail, usage)
        if known:
            nodes[last][_TOKENS] = known
        return tuple(reads)

    def note(self, model: str, promised: int, usage: Usage) -> None:
        """What the sent world promised for a request to this model, and what it was billed with."""
        if promised <= 0 or usage.source is not UsageSource.UPSTREAM:
            return
        record = self._records.get(model)
        if record is None:
            record = self._records[model] = Record()
            if len(self._records) > _MODELS:
                self._records.popitem(last=False)
        record.note(promised, usage.cached)

    def worth(self, model: str, promised: int) -> int:
        """How many tokens a promise of reads is worth, by what was kept of earlier ones."""
        record = self._records.get(model)
        return promised if record is None else record.of(promised)

    def _nodes(self, keys: Sequence[int]) -> list[Node]:
        """The prefixes' nodes, those that are new among them. Two generations stand in for an order of use."""
        young, old = self._young, self._old
        nodes = []
        for key in keys:
            node = young.get(key)
            if node is None:
                node = young[key] = old.pop(key, []) or [0.0, 0.0, 0.0, 0.0, 0]
            nodes.append(node)
        if len(young) > self._half:
            self._young, self._old = {}, young
        return nodes


def _longest(nodes: Sequence[Node], world: int, at_s: float) -> int:
    """The number of the longest prefix that can be read; -1 where there is none. Whoever uses a prefix uses all that
    are shorter, so these can be read where it can."""
    low, high = 0, len(nodes)
    while low < high:
        middle = (low + high) // 2
        node = nodes[middle]
        if node[world] < at_s < node[world + 1]:
            low = middle + 1
        else:
            high = middle
    return low - 1


def _marked(trail: Trail, nodes: Sequence[Node], world: int, at_s: float) -> int:
    """The same where marks say what is written: an earlier mark's prefix is looked for at each mark and before it."""
    best, back = -1, trail.cache.look_back_blocks or len(nodes)
    for mark in trail.marks or ():
        for number in range(mark.at, max(best, mark.at - back), -1):
            if nodes[number][world] < at_s < nodes[number][world + 1]:
                best = number
                break
    return best


def _keep(nodes: Sequence[Node], world: int, until_s: float) -> None:
    """They were read: they are kept on."""
    end = world + 1
    for node in nodes:
        if until_s > node[end]:
            node[end] = until_s


def _touch(nodes: Sequence[Node], world: int, at_s: float, ready_s: float, until_s: float) -> None:
    """They were written at that moment, where they weren't already: they can be read once the answer has begun."""
    end = world + 1
    for node in nodes:
        if node[end] <= at_s or ready_s < node[world]:
            node[world] = ready_s
        if until_s > node[end]:
            node[end] = until_s


def _whole(trail: Trail, usage: Usage) -> tuple[int, int]:
    """The longest prefix that may be cached, and how many tokens it has by the provider's own count; 0: not said."""
    if trail.marks is None:
        return len(trail.keys) - 1, usage.tokens_in
    return (trail.marks[-1].at, usage.cached + usage.cache_write) if trail.marks else (0, 0)


def _tokens(trail: Trail, nodes: Sequence[Node], usage: Usage, place: int) -> int:
    """Of a prefix: as counted when a prompt ended there, else by its share of the characters."""
    last, known = _whole(trail, usage)
    if place == last and known:
        return known
    told = nodes[place][_TOKENS] or usage.tokens_in * trail.ends[place] // trail.ends[-1]
    return min(told, usage.tokens_in)
