"""What a ledger's row says was billed, to the token: its columns, and what stands beside the last attempt. Pure.

The columns are the contract's and hold sums. What they can't tell apart (writes for an hour, audio, images, searches,
the tier, the answers in which the model asked for what had been left out) stands in `attempts_detail`, in the last
attempt: `usage` of the answer itself and `earlier` for each answer before it, both without what is zero. What another
attempt than the serving one was billed with stands in itself: `other`, with its model and all of its usage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from farthing.proxy.exchange import Billed as OtherBilled
from farthing.proxy.usage import EXTRAS, Usage, UsageSource, total

__all__ = ["Billed", "RowOfUsage", "billed_by", "details_of", "other_details"]

_FIVE = ("fresh", "cached", "cache_write", "output", "reasoning")


class RowOfUsage(Protocol):
    """The columns that are read here; a `Row`, or a row of the table by name."""

    @property
    def tokens_in_sent(self) -> int | None: ...
    @property
    def tokens_in_cached(self) -> int | None: ...
    @property
    def tokens_in_cache_write(self) -> int | None: ...
    @property
    def tokens_out(self) -> int | None: ...
    @property
    def tokens_reasoning(self) -> int | None: ...
    @property
    def usage_source(self) -> str: ...
    @property
    def attempts_detail(self) -> str: ...


class Billed(NamedTuple):
    """`answer`: what the answer used, None where nothing is known or was billed; `earlier`: the answers before it;
    `status`: of the last attempt, 0 where there was none; `others`: what else was billed."""

    answer: Usage | None
    earlier: tuple[Usage, ...] = ()
    status: int = 0
    others: tuple[OtherBilled, ...] = ()


def details_of(usage: Usage | None, earlier: Sequence[Usage]) -> dict[str, Any]:
    """What goes into the last attempt. `earlier`: of which the columns hold the sum with `usage`."""
    found: dict[str, Any] = {}
    if usage is not None:
        found["usage"] = _told(usage, (*EXTRAS, "tier"))
    if earlier:
        found["earlier"] = [_told(one, (*_FIVE, *EXTRAS, "tier", "source")) for one in earlier]
        found["answered"] = usage is not None
    return {name: value for name, value in found.items() if value != {}}


def other_details(other: OtherBilled) -> dict[str, Any]:
    """What goes into an attempt that was billed and doesn't serve."""
    return {"model": other.model, "usage": _told(other.usage, (*_FIVE, *EXTRAS, "tier", "source"))}


def billed_by(row: RowOfUsage) -> Billed:
    """What was billed for a request that went upstream. Raises ValueError where the row contradicts itself."""
    attempts = _attempts(row.attempts_detail)
    detail = attempts[-1] if attempts else {}
    others = tuple(_other(attempt) for attempt in attempts if "other" in attempt)
    earlier = tuple(_usage(one) for one in detail.get("earlier", ()))
    status = int(detail.get("status") or 0)
    if row.tokens_in_sent is None or (earlier and not detail.get("answered", True)):
        return Billed(None, earlier, status, others)
    before = total(earlier)
    answer = _usage(detail.get("usage", {}))
    cached = (row.tokens_in_cached or 0) - before.tokens_read - answer.tokens_read
    cache_write = (row.tokens_in_cache_write or 0) - before.tokens_written - answer.tokens_written
    fresh = row.tokens_in_sent - before.tokens_in - answer.tokens_in - cached - cache_write
    reasoning = (row.tokens_reasoning or 0) - before.reasoning
    output = (row.tokens_out or 0) - before.tokens_out - answer.tokens_out - reasoning
    if min(fresh, cached, cache_write, output, reasoning) < 0:
        raise ValueError("the row's counts contradict each other")
    source = UsageSource.COUNTED if row.usage_source == UsageSource.COUNTED else UsageSource.UPSTREAM
    used = answer._replace(fresh=fresh, cached=cached, cache_write=cache_write, output=output, reasoning=reasoning)
    return Billed(used._replace(source=source), earlier, status, others)


def _told(usage: Usage, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(usage, name)) not in (0, "", UsageSource.UPSTREAM)}


def _usage(told: Mapping[str, Any]) -> Usage:
    """Raises ValueError where it isn't as `_told` wrote it."""
    try:
        counts = {name: int(told[name]) for name in (*_FIVE, *EXTRAS) if name in told}
        source = UsageSource(told.get("source", UsageSource.UPSTREAM))
        return Usage(**counts, source=source, tier=str(told.get("tier", "")))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError("the row's details are not ours") from error


def _other(attempt: Mapping[str, Any]) -> OtherBilled:
    try:
        told = attempt["other"]
        return OtherBilled(str(told["model"]), _usage(told["usage"]), str(attempt["upstream"]))
    except (KeyError, TypeError) as error:
        raise ValueError("the row's details are not ours") from error


def _attempts(attempts_detail: str) -> list[Mapping[str, Any]]:
    try:
        attempts = orjson.loads(attempts_detail)
    except ValueError:
        raise ValueError("the row's details are no JSON") from None
    return [one for one in attempts if isinstance(one, dict)] if isinstance(attempts, list) else []
