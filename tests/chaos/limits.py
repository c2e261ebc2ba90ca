"""A farthing with spend limits, seen from outside: what its budget says is spent, and whether its rate tells truly."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from farthing.policies.bucket import AHEAD_S

__all__ = ["LIMITS", "Spent", "probe", "remembered", "spent", "tells_truly"]

_PROBED = "gpt-4o"  # the load asks for another model, so that it has no part in the rate
_PER_MIN = 20
LIMITS = {
    "FARTHING_BUDGETS": '[{name = "day", usd = 1000, per = "day", hard = true}]',
    "FARTHING_RATE_LIMITS": f'[{{name = "probed", of = "model", only = ["{_PROBED}"], requests_per_min = {_PER_MIN}}}]',
}
"""A hard daily budget that all count in, and a rate on requests, as settings. It is on a model, and so is looked at
where requests go upstream: the load's hits take the way that they take without it."""
_PATIENCE_S = 20.0
_LONGEST_S = 60 + AHEAD_S
_TRIES = 5
_NUMBERS = itertools.count()


class Spent(NamedTuple):
    """What a daily budget says: when its day ends, and what is spent, in dollars."""

    resets_at: str
    usd: float


async def spent(url: str) -> Spent:
    """What is spent today, as this farthing says."""
    told = await asyncio.to_thread(_read, f"{url}/farthing/api/budgets")
    budget = told["budgets"][0]
    return Spent(budget["resets_at"], sum(one["spent_usd"] for one in budget["subjects"]))


def remembered(before: Spent, after: Spent) -> list[str]:
    """The claim that did not hold. It is none where another day began between."""
    if before.usd <= 0:
        return ["nothing was spent before the fault"]
    if before.resets_at == after.resets_at and after.usd < before.usd:
        return [f"${after.usd:.6f} is known to be spent, of ${before.usd:.6f}"]
    return []


async def probe(url: str) -> tuple[int, float]:
    """A request that counts in the rate: its status, and the seconds to wait that it was told, or 0."""
    return await asyncio.to_thread(_probe, url)


async def tells_truly(url: str) -> list[str]:
    """Ask until one is refused, wait as long as it says and ask again: the claim that did not hold."""
    for _ in range(_TRIES):
        told = await asyncio.gather(*(probe(url) for _ in range(_PER_MIN + 10)))
        waits = [wait_s for status, wait_s in told if status == 429]
        if waits:
            wait_s = max(waits)
            if wait_s > _LONGEST_S:
                return [f"the rate limit, which fills in a minute, said to wait {wait_s:g} s"]
            await asyncio.sleep(wait_s)
            status, _ = await probe(url)
            return [] if status == 200 else [f"who waited {wait_s:g} s as the rate limit said got {status}"]
    return ["the rate limit refused nobody"]


def _read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=_PATIENCE_S) as told:
        return json.load(told)


def _probe(url: str) -> tuple[int, float]:
    body = {"model": _PROBED, "messages": [{"role": "user", "content": f"probe {next(_NUMBERS)}"}], "max_tokens": 50}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-chaos", "Cache-Control": "no-store"}
    asked = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=_PATIENCE_S) as told:
            return told.status, 0.0
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, float(refused.headers.get("Retry-After", 0))
