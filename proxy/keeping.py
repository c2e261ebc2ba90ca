"""Which conversations have the tool that gives back what was left out, and the keeping of what that is.

Rules of this file: a marker is sent only where the tool is offered in the same request, and a new one only once what it
names is kept. What the markers of a request name is at hand while it is under way, since the client sends all of its
texts each time; the store is there for what comes later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, MutableSet
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from farthing.compress.decided import LEFT, Decision
from farthing.compress.decided_store import Decisions
from farthing.compress.offer import is_offered, offer_keys, unfit_for_tool
from farthing.compress.removed import Handles, Removed
from farthing.compress.request import Texts, before_turns, marked_turns, pieces_of
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import Exchange
from farthing.proxy.retrieving import Retrieval

__all__ = ["Keeping", "without_markers"]

_OFF_LOOP_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Keeping:
    """`refusing`: models whose upstream takes no tools."""

    removed: Removed
    decisions: Decisions
    secret: bytes
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    refusing: MutableSet[str] = field(default_factory=set)

    async def offered(self, ex: Exchange, *, may_begin: bool) -> Retrieval | None:
        """What this request's model may ask for; None where it isn't offered the tool.

        `may_begin`: whether a conversation that begins now may have it.
        """
        assert ex.payload is not None
        unfit = unfit_for_tool(ex.endpoint, ex.payload)
        if not unfit and "Idempotency-Key" in ex.original.headers:
            unfit = "the request may be sent once only"
        if not unfit and ex.model in self.refusing:
            unfit = "the upstream takes no tools for this model"
        keys = offer_keys(ex.tenant, ex.endpoint, ex.payload, before_turns(ex.endpoint, ex.payload))
        offered = await is_offered(self.decisions, keys, wanted=may_begin, unfit=bool(unfit))
        if unfit and offered:
            ex.decide("compress", "no tool", unfit)
        return Retrieval(self.removed, ex.tenant, {}, self.refusing) if offered and not unfit else None

    def names(self, ex: Exchange) -> Handles:
        """How this tenant's pieces are called."""
        return Handles(self.secret, ex.tenant)

    async def keep_new(self, ex: Exchange, texts: Texts, made: Mapping[int, Decision]) -> bool:
        """Keep what markers in new decisions name; False where that can't be, so that they must not be used."""
        if not marked_turns(texts, made):
            return True
        pieces, unclear = await asyncio.to_thread(pieces_of, texts, made, self.names(ex))
        if unclear:
            return False
        try:
            await self.removed.keep(ex.tenant, pieces)
        except StoreFault:
            return False
        return True

    async def followed(
        self, ex: Exchange, texts: Texts, decided: Mapping[int, Decision], retrieval: Retrieval
    ) -> dict[int, Decision]:
        """The decisions that may be used; what their markers name is at hand in `retrieval`, and lives on."""
        if not marked_turns(texts, decided):
            return dict(decided)
        work = (texts, decided, self.names(ex))
        large = len(ex.body or b"") > _OFF_LOOP_BYTES
        pieces, unclear = await asyncio.to_thread(pieces_of, *work) if large else pieces_of(*work)
        retrieval.pieces |= pieces
        self.spawn(self._live_on(ex.tenant, pieces))
        return {turn: LEFT if turn in unclear else one for turn, one in decided.items()}

    async def _live_on(self, tenant: str, pieces: Mapping[str, str]) -> None:
        with suppress(StoreFault):  # they are in the client's request all the same
            await self.removed.keep(tenant, pieces)


def without_markers(texts: Texts, decided: Mapping[int, Decision]) -> dict[int, Decision]:
    """The decisions where nothing can be asked for: texts with markers go as the client sent them."""
    marked = set(marked_turns(texts, decided))
    return {turn: LEFT if turn in marked else one for turn, one in decided.items()}
