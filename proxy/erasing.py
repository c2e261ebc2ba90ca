"""Forgetting a user: one call that goes through every place where a person's words may lie, and looks again.

What finds a user's: captured requests and deferred ones by what they named; comments on ratings by the ledger's rows of
that user; stored answers by the tag `user`, where the application sends it (`x-farthing-tags: user=u-1`), with the
near-duplicates made of them. What a compressor left out (`texts`) is kept by tenant only, so all of the tenants in
which the user was seen goes. The ledger keeps its rows: amounts and ids, no words.

Replicas that share a store: what they share goes for all of them. What each has in files of its own (`_OWN`, and by
which tenants `texts` goes) only that one can find, so each must be asked; the answer says so.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.cache.store import Selector
from farthing.proxy import capture_admin
from farthing.proxy.errors import ClientFault, StoreFault
from farthing.proxy.kept import server_of
from farthing.proxy.purge import near_purged, texts_purged

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["erase", "erasure_of"]

_OWN = ("captured", "deferred", "comments")
_SENT_WITHIN_S = 1.0  # replicas send what they put of near-duplicates four times a second


class Erasure(NamedTuple):
    """What is asked for. `texts`: what compression keeps goes too, of all of the user's tenants."""

    user: str
    texts: bool = False


def erasure_of(asked: Mapping[str, Any]) -> Erasure:
    """`{"user": "u-1", "texts": true}`. Raises ClientFault."""
    if unknown := sorted(set(asked) - {"user", "texts"}):
        raise _fault(f"an erasure of a user knows user and texts, not {unknown[0][:40]!r}", unknown[0][:40])
    user, texts = asked.get("user"), asked.get("texts", False)
    if not (isinstance(user, str) and user.strip()):
        raise _fault("user must be a text that is not empty", "user")
    if not isinstance(texts, bool):
        raise _fault("texts must be true or false", "texts")
    return Erasure(user, texts)


async def erase(services: Services, asked: dict[str, Any]) -> dict[str, Any]:
    """Erase, then look again: {"erased": counts, "left": counts, "verified": nothing is left of what can be found from
    here, "elsewhere": what other replicas may have of their own, which are to be asked for it}.

    Raises ClientFault: it can't be understood; 503 where not all could be erased, so that it must be asked again.
    """
    what = erasure_of(asked)
    try:
        first, keys = await _once(services, what)
        shared = server_of(services.config, services.state.store) is not None
        if keys and shared:
            await asyncio.sleep(_SENT_WITHIN_S)
        left, _ = await _once(services, what, keys)
    except (StoreFault, sqlite3.Error, OSError) as error:
        said = f"not everything could be erased, so ask again: {error}"
        raise ClientFault(said, status=503, code="failed") from None
    tenants = first.pop("tenant_texts"), left.pop("tenant_texts")
    done = {**first, **({"tenants_whose_texts_went": tenants[0]} if what.texts else {})}
    elsewhere = [*_OWN, *(["tenants"] if what.texts else [])] if shared else []
    return {"erased": done, "left": left, "verified": not any(left.values()), "elsewhere": elsewhere}


async def _once(
    services: Services, what: Erasure, before: Sequence[str] = ()
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Remove what is found: how much that was, and the answers' keys; a second time it finds nothing. `before`: keys of
    answers that went the first time, whose near-duplicates another replica may have sent since."""
    held, user = services.state, what.user
    # First of all, since a cancelled request leaves a row in the books and a record in the capture store.
    deferred = 0 if held.deferred is None else await held.deferred.erase(user)
    if held.ledger is not None:
        await asyncio.to_thread(held.ledger.flush)
    rows = await asyncio.to_thread(_rows, services.config.state_dir / "ledger.db", user)
    captured = (await capture_admin.erase(services, {"user": user}))["erased"]
    comments = await asyncio.to_thread(held.outcomes.erase_comments, [id for id, _ in rows])
    keys = await held.store.purge(Selector(tags=(("user", user),)))
    near = await near_purged(services, (*before, *keys))
    services.semantic.lately.clear()
    tenants = {tenant for _, tenant in rows} if what.texts else set()
    for tenant in tenants:
        await texts_purged(services, tenant)
    found = {"captured": captured, "deferred": deferred, "comments": comments, "answers": len(keys),
             "near_duplicates": near, "tenant_texts": len(tenants)}  # fmt: skip
    return found, keys


def _rows(path: Path, user: str) -> list[tuple[str, str]]:
    """Id and tenant of the user's requests, as far as the ledger goes back."""
    if not path.is_file():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as conn:
        return conn.execute("select id, tenant from requests where user = ?", (user,)).fetchall()


def _fault(message: str, param: str) -> ClientFault:
    return ClientFault(message, code="invalid_selector", param=param)
