"""One request on its way to one upstream: is it to be marked for the provider's prompt cache, and was it worth it?

The decision is `policies/prompt_marks.py`'s. Here is gathered what it must know (the provider's rules, prices, what is
known of each prefix), what is decided is put into the body, and what the answer says is learnt.

Rules of this file:
1. Only a provider that is known by name is cared for: a field that an upstream doesn't know may be refused.
2. One who refuses a marked request gets it again as it was, and isn't marked for an hour.
3. In `observe` the same is decided and learnt, and nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import orjson

from farthing.compress.provider_cache import Kind, ProviderCache, provider_cache
from farthing.policies.prefix_returns import Kinds
from farthing.policies.prompt_marks import Life, Marking, Place, Terms, as_left, mark
from farthing.proxy.adapting import OFF_LOOP_BYTES
from farthing.proxy.clock import Clock
from farthing.proxy.config_prompt_cache import PromptCache
from farthing.proxy.config_upstream import Upstream
from farthing.proxy.counterfactual import loads
from farthing.proxy.exchange import Endpoint, Exchange
from farthing.proxy.prices import RateCard, Rates
from farthing.proxy.prompt_memory import WINDOWS_S, Group, PromptMemory
from farthing.proxy.prompt_spots import Spot, Spots, inserted, own_marks, spots_of
from farthing.proxy.prompt_tools import in_first_order
from farthing.proxy.usage import Usage, UsageSource

__all__ = ["MARKED", "Marked", "Marker", "provider_of", "without_marks"]

MARKED = frozenset({Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES})
"""Whose requests may say what is to be cached."""
_MOST_PLACES = 6
_ENOUGH = 20  # ends of prompts whose return or absence was seen
_LEAST_CHARS_PER_TOKEN = 2
_LOST_SHARE = 0.1  # of promised reads: fewer are no reason for a key
_READ_WELL = 0.8
_HOURS = {"1h": 3600.0}
_DAY_S = 86_400.0
_HOSTS = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral",
    "api.x.ai": "xai",
    "generativelanguage.googleapis.com": "gemini",
}
_PROVIDERS = {name: name for name in ("openai", "anthropic", "deepseek", "gemini", "mistral")} | {
    "azure": "openai",
    "google": "gemini",
    "x-ai": "xai",
}


def provider_of(upstream: Upstream, declared: str) -> str:
    """Whose prompt cache is behind an upstream, where that is sure; '' where it isn't. `declared`: by the operator."""
    if declared != "auto":
        return "" if declared == "none" else declared
    host = urlsplit(upstream.url).hostname or ""
    if upstream.provider:
        return _PROVIDERS.get(upstream.provider, "")
    if host.endswith(".openai.azure.com"):
        return "openai"
    return _HOSTS.get(host, _PROVIDERS.get(upstream.style, "") if upstream.style != "openai" else "")


def cache_behind(upstream: Upstream, declared: str) -> str:
    """The same in the words of `provider_cache`: auto where nobody says it, so that a model's name may."""
    return provider_of(upstream, declared) or declared


@dataclass(slots=True)
class Marked:
    """What was decided for one leg. `plain`: the body before, `body`: what is to be sent; the same where nothing was
    added or only observed. `chosen`: spots to be marked, with the life's name; `gain_pico`: what that is expected to
    save; `cached`: what will be in the cache afterwards, with until how long after the answer; `reading`: the spot that
    is expected to be read, and its tokens."""

    endpoint: Endpoint
    model: str
    plain: bytes
    body: bytes
    spots: Spots
    cache: ProviderCache
    serves: bool
    chosen: Sequence[tuple[Spot, str]] = ()
    gain_pico: int = 0
    key: str = ""
    group: Group | None = None
    explicit: bool = False
    cached: Sequence[tuple[Spot, float]] = ()
    reading: tuple[Spot, int] | None = None
    refused: bool = False
    reordered: bool = False

    @property
    def changed(self) -> bool:
        """Whether another body is sent than came."""
        return self.body is not self.plain

    @property
    def key_header(self) -> str:
        """Where the key is named, if not in a field."""
        return self.cache.key_header if self.endpoint is Endpoint.CHAT else ""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes with it besides, of those providers that read a key there."""
        return ((self.key_header, self.key),) if self.serves and self.key and self.key_header else ()

    @property
    def remarked(self) -> bool:
        """Whether what the provider caches is other than without us."""
        return self.changed and (bool(self.chosen) or self.explicit or self.reordered)


class Marker:
    """Cares for the prompt caches behind all upstreams. `declared`: whose is behind `default_name`, by the operator.

    `dear_writes`: whether an upstream's writes cost more only where a mark asks for them; `writes`: for how long marks
    of ours may ask there ('': never), for budgets to reckon with."""

    def __init__(
        self,
        settings: PromptCache,
        memory: PromptMemory,
        rates: RateCard,
        clock: Clock,
        *,
        declared: str = "auto",
        default_name: str = "default",
        dear_writes: bool = False,
    ) -> None:
        self.settings, self.memory = settings, memory
        self._rates, self._clock = rates, clock
        self._declared, self._default = declared, default_name
        self.writes = "" if not (dear_writes and self.serves) else "1h" if settings.one_hour else "5m"

    @property
    def serves(self) -> bool:
        """Whether bodies may be changed."""
        return self.settings.mode == "serve"

    async def look(self, ex: Exchange, upstream: Upstream, endpoint: Endpoint, body: Any) -> Marked | None:
        """What to send in place of `body`, which speaks `endpoint`'s API; None where there is nothing to care for."""
        provider = provider_of(upstream, self._declared if upstream.name == self._default else "auto")
        if not provider or not isinstance(body, bytes) or endpoint not in MARKED:
            return None
        payload = ex.payload if body is ex.body else None
        model: str = ex.model if ex.variant is None else ex.variant.model
        cache = provider_cache(model, provider)
        if len(body) < _LEAST_CHARS_PER_TOKEN * cache.minimum_tokens or not (cache.mark or cache.keyed):
            return None
        if (cache.mark == "cache_control") != (endpoint is Endpoint.MESSAGES):
            return None
        if endpoint is Endpoint.RESPONSES and not cache.responses:
            return None
        now_s = self._clock.now_s()
        who = (upstream.name, model)
        if self.memory.refuses(who, now_s):
            return None
        scope = (*who, "" if upstream.keys else ex.credential)
        ordered = body
        if self.settings.stable_tools and self.serves:
            payload = loads(body) if payload is None else payload
            ordered = in_first_order(body, payload, scope, self.memory.tool_orders)
            payload = payload if ordered is body else None
        read = partial(_read, endpoint, payload, ordered, cache.mark or "prompt_cache_breakpoint", scope)
        large = len(body) > OFF_LOOP_BYTES
        asked, spots, others = await asyncio.to_thread(read) if large else read()
        if not spots.spots:
            return None
        marked = Marked(endpoint, model, body, ordered, spots, cache, self.serves, reordered=ordered is not body)
        if cache.key_header and cache.key_header in ex.original.headers:
            asked = asked | {"prompt_cache_key": ""}  # the client's own
        self._decide(marked, asked, others, scope, self._rates.at(upstream.name).rates(model, now_s), now_s)
        if self.serves and (marked.chosen or marked.key or marked.explicit):
            marked.body = await asyncio.to_thread(_written, marked) if large else _written(marked)
        return marked

    # -- deciding

    def _decide(
        self, marked: Marked, payload: dict[str, Any], others: int, scope: Hashable, rates: Rates | None, now_s: float
    ) -> None:
        spots, cache, memory = marked.spots, marked.cache, self.memory
        kinds = [_kinds(scope, spots.head, spot) for spot in spots.spots]
        learns: list[Kinds] = [()] * len(kinds)
        learns[-1] = kinds[-1]
        for number, spot in enumerate(spots.spots):
            if spot.turn == 0:
                learns[number] = kinds[number]
        memory.returns.arrive([spot.key for spot in spots.spots], learns, now_s)
        terms = None if rates is None else _terms(cache, rates, memory.tokens(marked.model, spots.chars), self.settings)
        places = self._places(marked, terms, kinds, now_s)
        if cache.keyed:
            self._decide_key(marked, payload, now_s)
        sent = [(spot, _own_life(spot.own)) for spot in spots.spots if spot.own is not None]
        # A mark where we don't look for one, or one of its other ways to say it: then all of it is the client's.
        by_itself = cache.kind is Kind.AUTOMATIC
        own = any(payload.get(name) for name in ("prompt_cache_options", "prompt_cache_retention"))
        hands_off = others or (by_itself and (sent or own))
        if by_itself and terms is not None and not hands_off:  # what it does by itself isn't overruled by a guess
            hands_off = memory.returns.trials(kinds[-1], terms.lives[-1].window) < _ENOUGH
        if cache.mark and terms is not None and not hands_off:
            sent += self._decide_marks(marked, places, terms, rates)
        alone = by_itself and not (marked.explicit and self.serves)
        kept_s = _DAY_S if payload.get("prompt_cache_retention") == "24h" else cache.kept_s
        self._foresee(marked, places, sent, alone_s=kept_s if alone else None)

    def _decide_marks(
        self, marked: Marked, places: list[tuple[Spot, Place]], terms: Terms, rates: Rates | None
    ) -> list[tuple[Spot, str]]:
        """Choose; the marks that are ours."""
        only = [place for _, place in places]
        before = as_left(only, terms) if marked.cache.kind is Kind.AUTOMATIC else None
        marking: Marking = mark(only, terms, before)
        if not marking.gain_tokens or rates is None:
            return []
        marked.chosen = [(places[number][0], terms.lives[life].name) for number, life in marking.marks]
        marked.explicit = marked.cache.kind is Kind.AUTOMATIC
        tokens_in = self.memory.tokens(marked.model, marked.spots.chars)
        marked.gain_pico = int(marking.gain_tokens * float(rates.fresh.at(tokens_in)) * 1_000_000)
        return list(marked.chosen) if self.serves else []

    def _places(
        self, marked: Marked, terms: Terms | None, kinds: Sequence[Kinds], now_s: float
    ) -> list[tuple[Spot, Place]]:
        """The spots worth looking at: the head, where prompts part, what is warm, the end; the client's marks."""
        returns, found = self.memory.returns, []
        names = () if terms is None else [life.name for life in terms.lives]
        for spot, kind in zip(marked.spots.spots, kinds, strict=True):
            seen = returns.get(spot.key)
            warm = seen is not None and seen.warm_s > now_s
            tokens = self.memory.tokens(marked.model, spot.chars)
            if seen is not None and seen.warm_tokens:
                tokens = seen.warm_tokens
            own = None if spot.own is None else _number(names, _own_life(spot.own))
            found.append((spot, Place(tokens, spot.block, returns.chances(spot.key, kind), warm, own, spot.markable)))
        longest = 0  # two ways to count may disagree by a few tokens: a longer prefix is never the shorter one
        least: Sequence[float] = (1.0,) * len(WINDOWS_S)
        for number, (spot, place) in enumerate(found):
            longest = max(longest, place.tokens)
            least = tuple(map(min, least, place.chances))  # whoever returns to it returns to all that are shorter
            found[number] = (spot, place._replace(tokens=longest, chances=least))
        return _worth_a_look(found)

    def _decide_key(self, marked: Marked, payload: dict[str, Any], now_s: float) -> None:
        """A `prompt_cache_key`, once reads that there should have been were lost without one, or with it there are."""
        group = marked.group = self.memory.group(marked.spots.head)
        group.arrive(now_s)
        if payload.get("prompt_cache_key") is not None:
            marked.group = None
            return
        without = group.lost(keyed=False)
        wants = without > _LOST_SHARE and without > group.lost(keyed=True)
        group.keyed = wants and self.serves
        if not wants:
            return
        most = marked.cache.key_per_minute
        while most and group.rate > most * group.buckets:
            group.buckets *= 2  # never fewer again: a conversation that moves is cold
        marked.key = _key_of(marked.endpoint, payload, group.buckets)

    def _foresee(
        self, marked: Marked, places: list[tuple[Spot, Place]], sent: list[tuple[Spot, str]], *, alone_s: float | None
    ) -> None:
        """What should be read now, and what will be in the cache afterwards. `alone_s`: how long the provider keeps
        what it caches by itself; None: it caches what is marked."""
        cache = marked.cache
        if alone_s is not None:
            marked.cached = [(spot, alone_s) for spot in marked.spots.spots]
            reach = marked.spots.spots[-1].block + 1
            within = [reach]
        else:
            marked.cached = [(spot, _HOURS.get(name, cache.ttl_s)) for spot, name in sent]
            within = [spot.block for spot, _ in sent]
        back = cache.look_back_blocks or (10**9 if alone_s is not None else 1)
        for spot, place in reversed(places):
            if place.warm and any(0 <= block - place.block < back for block in within):
                if place.tokens >= cache.minimum_tokens:
                    marked.reading = (spot, place.tokens)
                return

    # -- learning

    def learn(self, marked: Marked, usage: Usage | None) -> None:
        """The answer is there: what was read, and what can be read from now on."""
        memory, now_s = self.memory, self._clock.now_s()
        if usage is None or usage.source is not UsageSource.UPSTREAM:
            return
        memory.counted(marked.model, marked.spots.chars, usage.tokens_in)
        if marked.reading is not None:
            spot, tokens = marked.reading
            well = usage.cached >= _READ_WELL * (tokens - marked.cache.step_tokens)
            memory.returns.read(spot.key, well=well)
            if well:  # whatever is read is kept on
                memory.returns.warm(spot.key, now_s + marked.cache.ttl_s)
            memory.counts["prompt_cache_reads", "read" if well else "lost"] += 1
            if marked.group is not None:
                marked.group.note(tokens, usage.cached)
        held = usage.tokens_read + usage.tokens_written
        last = marked.cached[-1][0] if marked.cached else None
        for spot, kept_s in marked.cached:
            exact = held if spot is last and marked.cache.charges_writes and held else 0
            if marked.cache.kind is Kind.AUTOMATIC and not marked.explicit:
                exact = 0
            elif spot is last and not held:
                continue  # nothing was cached: it is too short, or the provider has its own reasons
            memory.returns.warm(spot.key, now_s + kept_s, exact)

    def refused(self, upstream: Upstream, marked: Marked) -> None:
        """With what was added the upstream refused the request, and without it didn't."""
        self.memory.refuse((upstream.name, marked.model), self._clock.now_s())


def _read(
    endpoint: str, payload: dict[str, Any] | None, body: bytes, field: str, scope: tuple[object, ...]
) -> tuple[dict[str, Any], Spots, int]:
    """The body, its spots, and how many of the client's marks stand somewhere else."""
    payload = loads(body) if payload is None else payload
    spots = spots_of(endpoint, payload, field, scope)
    own = own_marks(payload, field) if field.encode() in body else 0
    return payload, spots, own - sum(spot.own is not None for spot in spots.spots)


def _written(marked: Marked) -> bytes:
    """The body with what was decided."""
    members: list[tuple[str, bytes]] = []
    if marked.key and not marked.key_header:
        members.append(("prompt_cache_key", orjson.dumps(marked.key)))
    if marked.explicit:
        members.append(("prompt_cache_options", b'{"mode":"explicit"}'))
    return inserted(
        marked.body,
        [(spot, _mark(marked.cache.mark, life)) for spot, life in marked.chosen],
        marked.cache.mark,
        members,
    )


def _mark(field: str, life: str) -> bytes:
    if field == "prompt_cache_breakpoint":
        return b'{"mode":"explicit"}'
    return b'{"type":"ephemeral","ttl":"1h"}' if life == "1h" else b'{"type":"ephemeral"}'


def _terms(cache: ProviderCache, rates: Rates, tokens_in: int, settings: PromptCache) -> Terms | None:
    """The provider's rules with this request's prices; None where they say nothing that could save."""
    fresh = rates.fresh.at(tokens_in)
    if not fresh:
        return None
    lives = [Life("", WINDOWS_S.index(cache.ttl_s), float(rates.cache_write.at(tokens_in) / fresh))]
    hour = rates.more.get("cache_write_1h")
    if cache.hour and settings.one_hour and hour is not None:
        lives.insert(0, Life("1h", WINDOWS_S.index(3600.0), float(hour.at(tokens_in) / fresh)))
    read = float(rates.cached.at(tokens_in) / fresh)
    return Terms(cache.minimum_tokens, cache.most_marks, cache.look_back_blocks or 1, read, lives)


def _worth_a_look(found: list[tuple[Spot, Place]]) -> list[tuple[Spot, Place]]:
    """Of many turns those where something changes; the last ones where they are still too many."""
    if len(found) <= _MOST_PLACES:
        return found
    parting = [
        place.own is not None or place.warm or number == len(found) - 1 or place.chances != found[number + 1][1].chances
        for number, (_, place) in enumerate(found)
    ]
    some = [one for one, parts in zip(found, parting, strict=True) if parts]
    heads = [one for one in some if one[0].turn == 0 or one[1].own is not None]
    turns = [one for one in some if one[0].turn != 0 and one[1].own is None]
    kept = {id(one) for one in heads + turns[-max(1, _MOST_PLACES - len(heads)) :]}
    return [one for one in some if id(one) in kept]


def _kinds(scope: Hashable, head: int, spot: Spot) -> Kinds:
    """What new prefixes like this one are taken for: heads are alike; turns are of one depth, and behind one head."""
    depth = min(spot.turn.bit_length(), 6)
    return ((scope, depth), (scope, depth, head)) if depth else ((scope, depth),)


def _own_life(said: Any) -> str:
    return "1h" if isinstance(said, dict) and said.get("ttl") == "1h" else ""


def _number(names: Sequence[str], name: str) -> int:
    """The life's number; the shortest one's where prices don't know it."""
    return names.index(name) if name in names else max(0, len(names) - 1)


def _key_of(endpoint: str, payload: dict[str, Any], buckets: int) -> str:
    """The same for one head and, where one key would get too many requests, for one conversation; in every process."""
    said = payload.get("input" if endpoint == "responses" else "messages") or ()
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    turns = [turn for turn in said if isinstance(turn, dict)]
    head = [turn for turn in turns if turn.get("role") in ("system", "developer")][:1]
    if endpoint == "responses":
        head.insert(0, {"instructions": payload.get("instructions")})
    name = _digest([payload.get("tools"), head])
    if buckets == 1:
        return f"farthing-{name}"
    first = next((turn for turn in turns if turn.get("role") == "user"), None)
    return f"farthing-{name}-{int(_digest(first), 16) % buckets}"


def _digest(value: Any) -> str:
    try:
        raw = orjson.dumps(value)
    except TypeError:
        raw = repr(value).encode(errors="backslashreplace")
    return blake2b(raw, digest_size=8).hexdigest()


def without_marks(marked: Marked) -> Marked:
    """The same request, sent as it came."""
    plain = replace(marked, body=marked.plain, chosen=(), key="", explicit=False, reordered=False)
    return replace(plain, cached=(), reading=None, group=None, gain_pico=0, refused=True)
