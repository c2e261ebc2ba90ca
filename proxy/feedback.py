"""`POST /farthing/api/feedback`: what is said of answers is kept, and a bad answer is not given again.

A bad rating of a cached answer removes that answer and counts as evidence; one of a fresh answer removes what was
stored of it. A newer answer that stands under the same key meanwhile is left alone: nobody complained about it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from farthing.cache.store import Selector
from farthing.policies.outcome import Outcome, outcomes_of
from farthing.proxy import figures
from farthing.proxy.capture import redactor_of
from farthing.proxy.errors import ClientFault, FarthingError
from farthing.proxy.figures import farthing_since
from farthing.proxy.redact import Unredacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from farthing.proxy.build import Services
    from farthing.proxy.row import Row

__all__ = ["give", "told"]

_FEW = 500
_STORED_WITHIN_S = 1.0  # an answer is stored when it has ended, a moment after the client has it
_LEFT_OUT = "[left out: it could not be looked through]"


async def give(services: Services, asked: dict[str, Any]) -> dict[str, Any]:
    """Keep one outcome, or a list of `items`.

    `{"kept", "known", "purged", "refused": [{"index", "message"}]}`: how many said something new, how many are about a
    request that is known, how many stored answers were removed; for one item alone `kept` and `known` are booleans.
    Raises ClientFault: it can't be understood; 503: it can't be kept.
    """
    given, refused = outcomes_of(asked, services.state.clock.now_s())
    given = await asyncio.to_thread(_redacted, services, given)
    try:
        kept = await asyncio.to_thread(services.state.outcomes.put, given)
        standing = await asyncio.to_thread(services.state.outcomes.standing, given)
    except (sqlite3.Error, OSError) as error:
        raise ClientFault(f"feedback can't be kept now: {error}", status=503, code="unavailable") from None
    rows = await _rows(services, list({one.request_id for one in given}))
    known, purged = set(rows), 0
    for one in standing:
        if one.metric == "rating" and services.state.rated is not None:
            services.state.rated(one.request_id, one.bad)
        if one.metric == "rating" and services.state.watch is not None:
            services.state.watch.rated(one.request_id, wrong=one.bad)
        if services.semantic.remembers(one.request_id):
            known.add(one.request_id)
        if one.bad:
            purged += await _removed(services, one, rows.get(one.request_id))
        elif one.metric == "rating":
            services.semantic.rate(one.request_id, wrong=False)
    found = len({one.request_id for one in given} & known)
    if "items" not in asked:
        return {"kept": bool(kept), "known": bool(found), "purged": purged}
    refusals = [{"index": one.place, "message": one.message} for one in refused]
    return {"kept": kept, "known": found, "purged": purged, "refused": refusals}


async def told(services: Services, query: Mapping[str, str]) -> dict[str, Any]:
    """Each metric over a span (`since`, 7 days by default), and the latest words. Raises ClientFault."""
    now_s = services.state.clock.now_s()
    try:
        since_s = farthing_since(query.get("since", "7d"), now_s)
    except ValueError as error:
        raise ClientFault(str(error), param="since") from None
    outcomes = services.state.outcomes
    try:
        sums, latest = await asyncio.to_thread(lambda: (outcomes.sums(since_s, now_s + 1), outcomes.latest()))
    except (sqlite3.Error, OSError) as error:
        raise ClientFault(f"feedback can't be read now: {error}", status=503, code="unavailable") from None
    metrics = [{"metric": s.metric, "source": s.source, "count": s.words, "mean": s.total / s.words} for s in sums]
    return {"since_s": since_s, "metrics": metrics, "latest": [one._asdict() for one in latest]}


def _redacted(services: Services, given: Sequence[Outcome]) -> list[Outcome]:
    """Comments as they may be kept."""
    if not any(one.comment for one in given):
        return list(given)
    redactor = redactor_of(services.config.capture, services.state.secret, services.state.clock)
    found = []
    for one in given:
        try:
            comment = redactor.clean(one.comment)[0] if one.comment else ""
        except Unredacted:
            comment = _LEFT_OUT
        found.append(one._replace(comment=comment))
    return found


async def _rows(services: Services, ids: Sequence[str]) -> dict[str, Row]:
    """The ledger's rows of these requests; those that still wait for the disk are waited for."""
    ledger = services.state.ledger
    if ledger is None or not ids:
        return {}
    path = ledger.path

    def read() -> dict[str, Row]:
        found: dict[str, Row] = {}
        if ledger.pending:
            ledger.flush(timeout_s=1.0)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as conn:
            for at in range(0, len(ids), _FEW):
                found |= figures.rows_of(conn, ids[at : at + _FEW])
        return found

    try:
        return await asyncio.to_thread(read)
    except sqlite3.Error:
        return {}


async def _removed(services: Services, one: Outcome, row: Row | None) -> int:
    """Remove the answer that a bad rating is about; how many."""
    entry_key, store = services.semantic.rate(one.request_id, wrong=True), services.state.store
    try:
        if entry_key is None and row is not None and row.key_hash and row.cache != "hit-semantic":
            entry = await store.get(row.key_hash, services.state.clock.now_s())
            if entry is not None and entry.stored_s <= _stored_by_s(row):
                entry_key = row.key_hash
        if entry_key is None:
            return 0
        keys = await store.purge(Selector(key=entry_key))
    except FarthingError as error:
        raise ClientFault(f"the rating is kept, but the answer can't be removed now: {error}", status=503) from None
    await services.semantic.forget([entry_key, *keys])
    return len(keys)


def _stored_by_s(row: Row) -> float:
    """An answer that this request got or left was stored by then; a later one is another answer."""
    return row.ts if row.cache == "hit-exact" else row.ts + row.latency_ms / 1000 + _STORED_WITHIN_S
