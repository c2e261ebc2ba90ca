"""A proxy under one configuration, as far as its decisions go: requests come in by their recorded times, and each is
answered from what was kept, joins what is under way, or goes "upstream", which is the trace. Pure but for the embedder.

The order of the questions is pipeline.FRONT's and BACK's. An answer is there when its recorded latency is over; what
the trace has no latency for is there at once, and can't be joined.

Rules of this file: what stands here is what the stages do round the decisions (which need a wire); what decides is
imported. tests/wire/test_replay.py holds a real run and its replay against each other.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.cache.stage_exact import note_refusal
from farthing.proxy.attribute import (
    UNKNOWN,
    Money,
    as_asked,
    as_original,
    attribute_failure,
    attribute_hit,
    attribute_joined,
    attribute_upstream,
)
from farthing.proxy.config import Config
from farthing.proxy.exchange import CacheStatus, Endpoint
from farthing.proxy.prices import RateCard
from farthing.proxy.replay_facts import UNTOUCHED, Fact, Part
from farthing.proxy.replay_reads import LaneReads, row_usage
from farthing.proxy.replay_sums import Tally
from farthing.proxy.usage import Usage
from farthing.proxy.would import AS_BILLED, Before, Would

if TYPE_CHECKING:
    from farthing.proxy.replay_near import NearLane, NearMiss

__all__ = ["Kept", "Lane"]

_BOOKKEEPING_BYTES = 400
_NOTHING = Money(0, 0, 0, 0, 0, 0, 0, 0)
# How a request's groups are named, from a `--by`.
Grouping = Callable[[Fact], tuple[str, ...]]


class Kept(NamedTuple):
    """A stored answer, without the answer. `body`: only where near-duplicates are compared. `saved`: tokens that its
    request was sent without."""

    key: str
    tenant: str
    endpoint: Endpoint
    stream: bool
    usage: Usage | None
    model: str
    model_served: str
    size: int
    stored_s: float
    expires_s: float
    near_until_s: float
    body: bytes | None
    saved: int = 0


class Flight(NamedTuple):
    """A call under way. `place`: where others find it; `joined`: those who did, and when. All of them are booked at its
    end, as the ledger does it: what they would have read of a provider's cache depends on who was told before."""

    ends_s: float
    number: int
    began_s: float
    fact: Fact
    part: Part
    status: CacheStatus
    joined: list[tuple[Fact, Part, float]]
    place: tuple[str, str, bool] | None
    key: str
    near: NearMiss | None


class Lane:
    """See the module. `reading`: which of a fact's parts is this configuration's. `at_s`: the moment whose prices hold
    for all, None: each request's own. `near`: looks for near-duplicates."""

    def __init__(
        self,
        config: Config,
        reading: int,
        card: RateCard,
        *,
        by: Sequence[str] = (),
        at_s: float | None = None,
        seed: int = 1,
        near: NearLane | None = None,
    ) -> None:
        self.config, self.tally, self.near = config, Tally(), near
        self._reading, self._card, self._at_s = reading, card, at_s
        self._by = tuple(by)
        self._random = random.Random(seed)
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._kept_bytes = 0
        self._flights: dict[tuple[str, str, bool], Flight] = {}
        self._ends: list[Flight] = []
        self._number = 0
        self._barred: set[str] = set()
        self._reads = LaneReads()

    def take(self, fact: Fact, now_s: float) -> CacheStatus:
        """One request, not before the last one: how it is answered. It is booked when its answer is there."""
        self._land(now_s)
        if not fact.known:
            fact = fact._replace(usage=row_usage(fact, self._card))
        part = fact.parts[self._reading]
        if not part.store:
            self.tally.why(part.reason or "no canonical form")
            return self._miss(fact, part, now_s, CacheStatus.BYPASS)
        key = part.key
        if self.config.cache.variants > 1:
            key = f"{key}.{int(self._random.random() * self.config.cache.variants)}"
        barred = fact.tenant in self._barred
        if part.read and not barred:
            entry = self.held(key, now_s)
            if entry is not None and self._shape_fits(entry, fact):
                self._compare_repeat(entry, fact)
                return self._hit(fact, part, entry, CacheStatus.HIT_EXACT, now_s)
        if self.config.cache.join and part.join:
            flight = self._found(fact, key, part)
            if flight is not None:
                flight.joined.append((fact, part, now_s))
                return CacheStatus.JOINED
        look = None
        if self.near is not None and part.semantic and not barred:
            look = self.near.look(self, fact, part, key, now_s)
            if look is not None and look.serves is not None and self._shape_fits(look.serves, fact):
                overhead = self.near.served(self, fact, look, now_s)
                return self._hit(fact, part, look.serves, CacheStatus.HIT_SEMANTIC, now_s, overhead)
        return self._miss(fact, part, now_s, CacheStatus.MISS, key, look)

    def end(self) -> None:
        """Nothing more comes: what is under way lands."""
        self._land(float("inf"))

    def held(self, key: str, now_s: float) -> Kept | None:
        """The stored answer, which counts as a use of it."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        if entry.expires_s <= now_s:
            self._drop(entry)
            return None
        self._kept.move_to_end(key)
        return entry

    # -- outcomes

    def _hit(
        self, fact: Fact, part: Part, entry: Kept, status: CacheStatus, now_s: float, overhead: int = 0
    ) -> CacheStatus:
        usage = as_asked(entry.usage, entry.saved)
        would = self._would_free(fact, part, usage, now_s, now_s)
        money = attribute_hit(
            self._card,
            fact.model,
            usage,
            semantic=status is CacheStatus.HIT_SEMANTIC,
            at_s=self._priced_at(fact),
            model_served=entry.model_served,
            would_read=would.read,
            charges_writes=would.charges_writes,
            shortened=bool(entry.saved),
        )
        return self._book(fact, status, money, usage, free=True, overhead=overhead)

    def _miss(
        self,
        fact: Fact,
        part: Part,
        now_s: float,
        status: CacheStatus,
        key: str = "",
        near: NearMiss | None = None,
    ) -> CacheStatus:
        self._number += 1
        place = (fact.tenant, _flight_key(key, part), fact.stream) if key and part.join else None
        ends_s = now_s + (fact.latency_s or 0.0)
        flight = Flight(ends_s, self._number, now_s, fact, part, status, [], place, key, near)
        heapq.heappush(self._ends, flight)
        if place is not None and self.config.cache.join:
            self._flights[place] = flight
        self.tally.short(part.cut)
        return status

    def _landed(self, flight: Flight) -> Usage | None:
        """A call is over: it and those who joined it are booked. What it used."""
        fact, part = flight.fact, flight.part
        usage, saved = self._sent(fact)
        would = AS_BILLED
        if part.prompt is not None and usage is not None:
            tidied = fact.tidied if self._tidies else UNTOUCHED
            usage, would = self._reads.sent(
                fact,
                part.prompt,
                usage,
                flight.began_s,
                saved=saved if self._tidies else None,
                before=Before(tidied.before, tidied.sent),
            )
        self._book(fact, flight.status, self._price(fact, usage, saved, would), usage, free=False, saved=saved)
        for other, its_part, at_s in flight.joined:
            self._join(other, its_part, at_s, flight, as_asked(usage, saved), shortened=bool(saved))
        return usage

    def _join(
        self, fact: Fact, part: Part, now_s: float, flight: Flight, usage: Usage | None, *, shortened: bool
    ) -> None:
        lead, at_s = flight.fact, self._priced_at(fact)
        if 200 <= lead.status < 300:
            ready_s = max(now_s, flight.began_s + (lead.first_s or 0.0))
            would = self._would_free(fact, part, usage, now_s, ready_s)
            money = attribute_joined(
                self._card,
                fact.model,
                usage,
                at_s=at_s,
                model_served=lead.model_served,
                would_read=would.read,
                charges_writes=would.charges_writes,
                shortened=shortened,
            )
        else:
            usage, money = None, attribute_failure(self._card, fact.model, at_s)
        self._book(fact, CacheStatus.JOINED, money, usage, free=True)

    def _would_free(self, fact: Fact, part: Part, usage: Usage | None, now_s: float, ready_s: float) -> Would:
        if usage is None:
            return AS_BILLED
        if not fact.known and fact.usage is not None:
            return Would(fact.usage.cached, None, charges_writes=usage.tokens_written > 0)
        if part.prompt is None:
            return AS_BILLED
        return self._reads.free(fact, part.prompt, usage, now_s, ready_s)

    def _book(
        self,
        fact: Fact,
        status: CacheStatus,
        money: Money,
        usage: Usage | None,
        *,
        free: bool,
        saved: int = 0,
        overhead: int = 0,
    ) -> CacheStatus:
        eligible = status is not CacheStatus.BYPASS
        for sums in (self.tally.total, *([self.tally.group(groups_of(fact, self._by))] if self._by else [])):
            sums.add(status._value_, eligible, money)
            sums.count_usage(usage, free=free, saved=saved)
            sums.overhead += overhead
        return status

    # -- money

    def _priced_at(self, fact: Fact) -> float:
        return self._at_s if self._at_s is not None else fact.ts or 0.0

    @property
    def _tidies(self) -> bool:
        return self.config.compress.tidy and not self.config.all_off

    def _sent(self, fact: Fact) -> tuple[Usage | None, int]:
        """What the request would have used as it would be sent here, and how many tokens shorter that is."""
        saved = fact.tidied.saved if self._tidies else 0
        usage = fact.usage
        if usage is not None and saved != fact.shortened:
            usage = as_original(usage, fact.shortened - saved, 0, 0)
        return usage, saved

    def _price(self, fact: Fact, usage: Usage | None, saved: int, would: Would) -> Money:
        at_s = self._priced_at(fact)
        if fact.endpoint is Endpoint.OTHER:
            nothing = fact.status >= 400 or (fact.before is not None and fact.before.money.baseline is not None)
            return _NOTHING if nothing else UNKNOWN
        if not 200 <= fact.status < 300:
            return attribute_failure(self._card, fact.model, at_s)
        return attribute_upstream(
            self._card,
            model_requested=fact.model,
            model_served=fact.model_served,
            usage=usage,
            at_s=at_s,
            tokens_saved=saved,
            saved_before=fact.tidied.before if saved else 0,
            tokens_before=fact.tidied.sent if saved else 0,
            would_read=would.read,
            would_read_whole=would.read_whole,
            charges_writes=would.charges_writes,
        )

    def audit_price(self, fact: Fact) -> int | None:
        """What asking for it once more costs, in pico-dollars; None where no price is known."""
        rates = self._card.rates(fact.model_served, self._priced_at(fact))
        usage, _ = self._sent(fact)
        return None if rates is None or usage is None else rates.pico(usage)

    def has_price(self, fact: Fact) -> bool:
        """Whether an audit of it could be paid for."""
        return self._card.rates(fact.model, self._priced_at(fact)) is not None

    # -- what is kept and what is under way

    def _found(self, fact: Fact, key: str, part: Part) -> Flight | None:
        """As flight.Flights.find: streams join only streams."""
        name = _flight_key(key, part)
        for shape in (True,) if fact.stream else (False, True):
            flight = self._flights.get((fact.tenant, name, shape))
            if flight is not None:
                fits = shape == fact.stream or fact.endpoint is not Endpoint.EMBEDDINGS
                return flight if fits else None
        return None

    def _land(self, now_s: float) -> None:
        while self._ends and self._ends[0].ends_s <= now_s:
            flight = heapq.heappop(self._ends)
            if flight.place is not None and self._flights.get(flight.place) is flight:
                del self._flights[flight.place]
            note_refusal(self._barred, flight.fact.tenant, flight.fact.status)
            usage = self._landed(flight)
            entry = self._keep(flight, usage) if flight.key and not flight.fact.unfit else None
            if self.near is not None:
                self.near.landed(self, flight.fact, flight.near, entry)

    def _keep(self, flight: Flight, usage: Usage | None) -> Kept | None:
        fact, part, at_s = flight.fact, flight.part, flight.ends_s
        size = fact.size + _BOOKKEEPING_BYTES
        if part.ttl_s <= 0 or size > self.config.store.max_bytes:
            return None
        entry = Kept(
            flight.key,
            fact.tenant,
            fact.endpoint,
            fact.stream,
            usage,
            fact.model,
            fact.model_served,
            size,
            at_s,
            at_s + part.ttl_s,
            at_s + part.near_ttl_s,
            fact.answer if self.near is not None else None,
            self._sent(fact)[1],
        )
        if (old := self._kept.get(entry.key)) is not None:
            self._drop(old)
        self._kept[entry.key] = entry
        self._kept_bytes += size
        limits = self.config.store
        while len(self._kept) > limits.max_entries or self._kept_bytes > limits.max_bytes:
            self._drop(next(iter(self._kept.values())))
        return entry

    def _drop(self, entry: Kept) -> None:
        del self._kept[entry.key]
        self._kept_bytes -= entry.size

    def _shape_fits(self, entry: Kept, fact: Fact) -> bool:
        """As stage_exact.reshaped: whether the answer can be had as a stream, or whole."""
        if entry.stream and entry.usage is None and (fact.asks_usage or not fact.stream):
            return False
        return entry.stream == fact.stream or entry.endpoint is not Endpoint.EMBEDDINGS

    def _compare_repeat(self, entry: Kept, fact: Fact) -> None:
        """The same request's own answer is in the trace: whether the model said the same again."""
        fetched = fact.before is None or fact.before.cache in (CacheStatus.MISS, CacheStatus.BYPASS)
        if self.near is None or entry.body is None or fact.answer is None or fact.unfit:
            return
        if fetched:
            self.tally.noise.add(self.near.compare(entry.body, fact.answer).agreement)


def _flight_key(key: str, part: Part) -> str:
    """As stage_flight.flight_key."""
    return key if part.semantic else f"{key}/exact"


def groups_of(fact: Fact, by: Sequence[str]) -> tuple[str, ...]:
    """The request's values of what it is grouped by."""
    return tuple([_named(fact, name) for name in by])


def _named(fact: Fact, name: str) -> str:
    if name.startswith("tag:"):
        return "|".join([value for tag, value in fact.tags if tag == name[4:]])
    value: Any = getattr(fact, name)
    return str(value)
