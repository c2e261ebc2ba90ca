"""The exact cache for embeddings: each input of a request is looked up and kept by itself (`cache.items`).

`ItemCache` is asked by the exact cache's two stages where it is configured. What is missing is asked for by
proxy/filling.py, which stands round the upstream.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from farthing.cache.entry import Entry
from farthing.cache.items import MANIFEST, Case, asked_of
from farthing.cache.store import Store
from farthing.proxy.clock import Clock
from farthing.proxy.exchange import CacheStatus, Call, Endpoint, Exchange, LocalReply, Served
from farthing.proxy.jsontext import find, splice
from farthing.proxy.tokens import Tokenizer

__all__ = ["ItemCache", "reduced"]

T = TypeVar("T")

_LARGE_ITEMS = 32  # more of them are put together off the event loop
_NUMPY = "numpy"  # loading it takes a tenth of a second: not on the event loop
_SMALL_BYTES = 16_384  # taking apart more than this, and counting its tokens, takes milliseconds
_JSON = "application/json"


@dataclass(slots=True)
class ItemCache:
    """Looks inputs up, and keeps them. `remember`: lets an answer's bytes be found for the same request once more."""

    store: Store
    clock: Clock
    remember: Callable[[Entry, bytes], None]
    tokenizer: Tokenizer

    async def begin(self, ex: Exchange, scope: bytes, *, read: bool) -> LocalReply | None:
        """Take the request apart, and answer it where all is known; else note in `ex.items` what is to be asked for.

        `ex.key` is the whole request's. `read`: what is stored may be given.
        """
        assert ex.exact is not None
        if ex.endpoint is not Endpoint.EMBEDDINGS:
            return None
        asked = await _aside(_size(ex), partial(asked_of, ex.exact))
        if asked is None:
            return None
        _, dot, variant = ex.key.partition(".")
        case = Case(asked, await _aside(_size(ex), partial(asked.keys, scope, dot + variant)))
        if read:
            now_s, age_s = self.clock.now_s(), ex.controls.max_age_s
            entries = await self.store.get_many(case.keys, now_s)
            case.take(entries, not_before_s=0.0 if age_s is None else now_s - age_s)
            if not case.missing and (reply := await self._all_known(ex, case)) is not None:
                return reply
        if case.reduced:
            ex.body_out = await _aside(_size(ex), partial(reduced, ex.body, case))
            if ex.body_out is None:
                return None
        ex.items = case
        if case.known:
            ex.decide("exact", "items", f"{case.positions_known}/{len(asked.places)} known")
            ex.cache_reason = "some items are not known"
        return None

    async def _all_known(self, ex: Exchange, case: Case) -> LocalReply | None:
        body = await _aside(len(case.keys), case.answer)
        if body is None:
            case.known.clear()
            return None
        entries = [entry for _, entry in case.known.values()]
        tags = tuple(sorted({tag for entry in entries for tag in entry.tags}))
        stored_s, expires_s = min(one.stored_s for one in entries), min(one.expires_s for one in entries)
        made = self._manifest(ex, case, entries[0].model_served, stored_s, expires_s, tags)
        held = self.store.held(made.key, self.clock.now_s())
        if held is None or held._replace(usage=made.usage) != made:
            await self.store.put(made)
            held = made
        self.remember(held, body)
        ex.cache = CacheStatus.HIT_EXACT
        age_s = max(0, int(self.clock.now_s() - stored_s))
        served = Served(made.key, made.usage, made.model_served, entries[0].model_requested, stored_s, expires_s)
        return LocalReply(200, {"Content-Type": _JSON, "Age": str(age_s)}, body, served)

    async def keep(self, ex: Exchange, ttl_s: int, max_entry_bytes: int) -> str:
        """Store what the upstream gave for each input; why nothing can be stored, or ''."""
        case: Case = ex.items
        if not case.fresh and not (ex.call is not None and await self._read(ex, case, ex.call)):
            return "answer is not one vector for each input"
        now_s = self.clock.now_s()
        entries = [
            Entry(
                case.keys[place],
                ex.tenant,
                ex.endpoint,
                ex.model,
                ex.call.model_served if ex.call is not None and ex.call.model_served else ex.model,
                "whole",
                "application/octet-stream",
                vector.body(),
                usage,
                now_s,
                now_s + ttl_s,
                ex.controls.tags,
                ex.controls.scope,
            )
            for place, (vector, usage) in case.fresh.items()
        ]
        if any(len(entry.body) > max_entry_bytes for entry in entries):
            return "answer larger than cache.max_entry_bytes"
        older = [entry for _, entry in case.known.values()]
        tags = tuple(sorted({tag for entry in (*entries, *older) for tag in entry.tags}))
        stored_s = min(entry.stored_s for entry in (*entries, *older))
        expires_s = min(entry.expires_s for entry in (*entries, *older))
        made = self._manifest(ex, case, entries[0].model_served, stored_s, expires_s, tags)
        await self.store.put_many(entries)
        await self.store.put(made)
        return ""

    async def _read(self, ex: Exchange, case: Case, call: Call) -> bool:
        """Take apart the answer to the client's own request; it has that answer already."""
        work = partial(case.fill_whole, call.value, partial(self._count, ex))
        small = len(call.answer or b"") <= _SMALL_BYTES and len(ex.body or b"") <= _SMALL_BYTES
        ready = self.tokenizer.ready(ex.model) and _NUMPY in sys.modules
        return work() if small and ready else await asyncio.to_thread(work)

    def _count(self, ex: Exchange, item: str | list[int]) -> int:
        return self.tokenizer.of(ex.tenant).count(item, ex.model) if isinstance(item, str) else len(item)

    def _manifest(
        self,
        ex: Exchange,
        case: Case,
        model_served: str,
        stored_s: float,
        expires_s: float,
        tags: Sequence[tuple[str, str]],
    ) -> Entry:
        """Which items the answer is made of. Whatever purges one of them purges this too: its labels are theirs."""
        return Entry(
            f"{ex.key}.{MANIFEST}",
            ex.tenant,
            ex.endpoint,
            ex.model,
            model_served,
            "whole",
            "application/octet-stream",
            case.manifest(),
            case.usage(),
            stored_s,
            expires_s,
            tuple(tags),
            ex.controls.scope,
        )


def reduced(body: bytes | None, case: Case) -> bytes | None:
    """The client's body with nothing but the missing inputs in it, every other byte as it was."""
    place = None if body is None else find(body, ("input",))
    return None if body is None or place is None else splice(body, [(*place, case.to_send())])


def _size(ex: Exchange) -> int:
    """How much work the request is, in items."""
    return len(ex.body or b"") // 2048


async def _aside(items: int, work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work) if items > _LARGE_ITEMS or _NUMPY not in sys.modules else work()
