"""A recorded prompt as its provider's prompt cache sees it, for a replay: only of those that are long enough. Pure.

Trails are made where the trace is read and compared where the decisions are taken, which may be another process or a
later run: so their keys are lasting ones.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from farthing.compress.places import Place
from farthing.compress.provider_cache import ProviderCache, provider_cache
from farthing.compress.rewrite import rewrite
from farthing.proxy.prompt_trail import Trail, lasting, trail_of

__all__ = ["Prompt", "prompt_of"]


class Prompt(NamedTuple):
    """`whole`: as the client wrote it. `short`: tidied, where that changes it (`tidies`) and it is still long enough.
    `was_short`: another than the client's had gone upstream when it was recorded."""

    whole: Trail
    short: Trail | None
    tidies: bool
    was_short: bool


def prompt_of(
    endpoint: str,
    body: dict[str, Any],
    model: str,
    provider: str,
    account: str,
    *,
    tokens_in: int,
    tokens_saved: int,
    short: Mapping[Place, str],
    was_short: bool,
) -> Prompt | None:
    """The prompt; None, at next to no cost, where no provider would cache it.

    `account`: whose cache it would be. `tokens_in`: of the prompt as the client wrote it; `tokens_saved`: by tidying
    it, which puts the texts of `short` in their places. Cost: some 10 microseconds a kilobyte.
    """
    cache = provider_cache(model, provider)
    if tokens_in < cache.minimum_tokens:
        return None
    whole = _trail(endpoint, body, cache, account, model)
    if whole is None:
        return None
    tidied = None
    if short and tokens_in - tokens_saved >= cache.minimum_tokens:
        try:
            raw = orjson.dumps(body)
        except TypeError:  # numbers beyond a double's range
            return Prompt(whole, whole, False, was_short)
        tidied = _trail(endpoint, orjson.loads(rewrite(raw, body, short).body), cache, account, model)
    return Prompt(whole, tidied if short else whole, bool(short), was_short)


def _trail(endpoint: str, body: dict[str, Any], cache: ProviderCache, account: str, model: str) -> Trail | None:
    found = trail_of(endpoint, body, cache, (account, model), lasting)
    if found is None:
        return None
    # Lists of Python's integers would be nine times as large, and thousands of requests wait to be put in order.
    return found._replace(keys=array("q", found.keys), ends=array("q", found.ends))
