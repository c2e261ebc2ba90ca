"""The short way of a hit: a request whose very bytes were answered from the store before.

What the stages work out for such a request depends on its bytes and the configuration alone, so it is kept from the
last time: who asks, the key, the answer cut into pieces, most of its head and most of its ledger row. Everything that
can have changed since is looked at each time: the switch, the limit on requests under way, credentials that the
upstream refused, and whether the store still holds that very entry. Where anything differs the request takes the
pipeline's way, which is also how a repeat is learnt; a test over random traffic shows that both ways give one answer.

Rules of this file: nothing waits before the answer is written and its row appended, so nothing can be lost between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from aiohttp import HttpVersion11, web

from farthing.cache.entry import Entry
from farthing.cache.replay import Template
from farthing.cache.stage_exact import ID_PREFIX, Renderer
from farthing.cache.store import Store
from farthing.proxy import whole, wire
from farthing.proxy.account import Account, cache_status
from farthing.proxy.aliases import prefixes_of
from farthing.proxy.aliases_answer import answered
from farthing.proxy.body import IncomingBody
from farthing.proxy.capture_record import Said
from farthing.proxy.clock import Clock, Randomness, new_id
from farthing.proxy.counting import needs_counting
from farthing.proxy.exchange import CacheStatus, Exchange, LocalReply
from farthing.proxy.hit_again import Again, again_of
from farthing.proxy.row import COLUMNS, Row
from farthing.proxy.traces import Traces

__all__ = ["Repeat", "Repeats"]

Place = tuple[str, tuple[tuple[bytes, bytes], ...], bytes]

_PRICES_HOLD_S = 60.0  # prices are dated: what a hit saves is worked out anew after this long
_BOOKKEEPING_BYTES = 4096
_MOST_NAMED_BYTES = 8192  # target and headers of a request that is remembered
_AT = {name: COLUMNS.index(name) for name in ("id", "ts", "latency_ms", "ttft_ms", "overhead_ms", "stage_ms")}
_MONEY = slice(COLUMNS.index("baseline_usd"), COLUMNS.index("modelled") + 1)
_EACH_TIME = frozenset({"age", "cache-status", "x-farthing-id", "x-farthing-overhead-ms", "date"})


@dataclass(frozen=True, slots=True)
class Repeat:
    """What stays the same. `row`: the ledger row's values, in order. `head`: the header lines that don't change.
    `again`: what a long prompt saves, which the provider's own cache makes another amount each time. `said`: what may
    be captured or told of it.
    """

    entry: Entry
    template: Template
    id_prefix: str
    head: str
    row: list[Any]
    credential: str
    until_s: float
    size: int
    again: Again | None
    said: Said | None = None


class Repeats:
    """Remembers the latest hits, within `limit_bytes`; 0 turns the short way off.

    `passable`: whether a request of this credential may pass without the stages that this way leaves out (keys, limits,
    switch, breaker).
    `products`: other gateways whose headers are understood.
    """

    def __init__(
        self,
        store: Store,
        renderer: Renderer,
        account: Account,
        barred: Container[str],
        passable: Callable[[str], bool],
        clock: Clock,
        randomness: Randomness,
        limit_bytes: int,
        products: tuple[str, ...] = (),
        traces: Traces | None = None,
    ) -> None:
        self._store = store
        self._renderer = renderer
        self._account = account
        self._barred = barred
        self._passable = passable
        self._clock = clock
        self._randomness = randomness
        self._limit = limit_bytes
        self._products = products
        self._prefixes = prefixes_of(products)
        self._traces = traces
        self._bytes = 0
        self._known: OrderedDict[Place, Repeat] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Forget all: what is written into every row has changed."""
        self._known.clear()
        self._bytes = 0

    def find(self, request: web.BaseRequest, source: IncomingBody, now_s: float) -> Repeat | None:
        """What is known of this very request, if all of it still holds."""
        if not self._known or request.method != "POST" or request.version != HttpVersion11:
            return None
        body = source.arrived()
        if body is None:
            return None
        place = place_of(request, body, self._prefixes)
        known = self._known.get(place)
        if known is None or known.credential in self._barred or not self._passable(known.credential):
            return None
        if now_s >= known.until_s or self._store.held(known.entry.key, now_s) is not known.entry:
            self._forget(place)
            return None
        self._known.move_to_end(place)
        return known

    async def answer(self, request: web.BaseRequest, known: Repeat, begun_tick: float, now_s: float) -> None:
        """Send it again, and append its row. Raises ConnectionResetError: the client has left."""
        token, clock = self._randomness.token, self._clock
        name = new_id(now_s, self._randomness)
        body = known.template.render(known.id_prefix + token(12), int(now_s))
        ready_ms = (clock.tick_s() - begun_tick) * 1000
        entry = known.entry
        again = known.again
        if again is not None:
            again.reckon(self._account.rates, self._account.counterfactual, now_s)
        saved = "" if again is None else again.header
        head = whole.head_with(
            known.head,
            f"{saved}Date: {whole.date_of(int(now_s))}\r\nAge: {max(0, int(now_s - entry.stored_s))}\r\n"
            f"x-farthing-id: {name}\r\n"
            f"Cache-Status: {cache_status(CacheStatus.HIT_EXACT, entry.expires_s - now_s)}\r\n"
            f"x-farthing-overhead-ms: {ready_ms:.3f}\r\n",
            len(body),
        )
        whole.write(request, head, body)
        row = known.row.copy()
        row[_AT["id"]], row[_AT["ts"]] = name, now_s
        row[_AT["latency_ms"]] = row[_AT["overhead_ms"]] = (clock.tick_s() - begun_tick) * 1000
        row[_AT["ttft_ms"]] = ready_ms
        if again is not None:
            row[_MONEY] = again.columns
        made = Row._make(row)
        if self._traces is not None:
            self._traces.note(name, request.headers.get("traceparent"))
        if known.said is not None and self._account.contents is not None:
            self._account.contents.append(known.said, made)
        if self._account.ledger is not None:
            self._account.ledger.append(made)
        if known.said is not None and self._account.capture is not None:
            self._account.capture.append(known.said, made)
        await whole.drained(request, body)

    def learn(self, request: web.BaseRequest, ex: Exchange, reply: LocalReply) -> None:
        """Remember this hit, unless what it hangs on can't be told from its bytes."""
        body, controls, now_s = ex.body_in or ex.body, ex.controls, self._clock.now_s()
        served = reply.served
        if ex.cache is not CacheStatus.HIT_EXACT or body is None or served is None or not self._limit:
            return
        if ex.key.partition(".")[1] or needs_counting(ex, self._account.usage(ex)):
            return
        if controls.max_age_s is not None or not whole.sendable(request, reply.status):
            return
        entry = self._store.held(served.entry_key, now_s)
        template = None if entry is None else self._renderer.known(entry, stream=ex.stream, usage=ex.asks_usage)
        place = place_of(request, body, self._prefixes)
        named = len(place[0]) + sum(len(name) + len(value) for name, value in place[1])
        size = len(body) + 2 * named + _BOOKKEEPING_BYTES + (0 if entry is None else len(entry.body))
        if entry is None or template is None or size * 8 > self._limit or named > _MOST_NAMED_BYTES:
            return
        own = self._account.headers_at_end(ex)
        headers = dict(reply.headers) | own
        if self._products:
            headers |= answered(self._products, ex, own)
        row = list(self._account.row_of_hit(ex))
        again = again_of(ex, self._account.usage(ex))
        each_time = _EACH_TIME if again is None else _EACH_TIME | {"x-farthing-saved-usd"}
        row[_AT["stage_ms"]] = "{}"
        self._forget(place)
        self._known[place] = Repeat(
            entry=entry,
            template=template,
            id_prefix=ID_PREFIX.get(ex.endpoint, ""),
            head=wire.lines_of((name, value) for name, value in headers.items() if name.lower() not in each_time),
            row=row,
            credential=ex.credential,
            until_s=now_s + _PRICES_HOLD_S,
            size=size if again is None else size + again.size,
            again=again,
            said=self._account.said_in(ex),
        )
        self._bytes += self._known[place].size
        while self._bytes > self._limit:
            self._forget(next(iter(self._known)))

    def _forget(self, place: Place) -> None:
        known = self._known.pop(place, None)
        if known is not None:
            self._bytes -= known.size


def place_of(request: web.BaseRequest, body: bytes, prefixes: tuple[str, ...]) -> Place:
    """All of the request that can change its answer: its target, the headers that tell something, its bytes.

    `prefixes`: how the names of other headers begin that tell something.
    """
    headers = request.raw_headers
    picked = wire.telling(tuple([name for name, _ in headers]), prefixes)
    return request.raw_path, tuple([headers[at] for at in picked]), body
