"""The columns of a ledger's row that hold several things, as JSON texts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import orjson

from farthing.proxy.exchange import Attempt, Decision
from farthing.proxy.usage import Usage
from farthing.proxy.usage_row import details_of, other_details

__all__ = ["attempts_text", "decisions_text", "stage_times", "tags_text"]


def stage_times(times_ms: dict[str, float]) -> str:
    """What the stages took, of those that took long enough to be told."""
    return "{" + ",".join([f'"{name}":{ms:.3f}' for name, ms in times_ms.items()]) + "}"


def decisions_text(decisions: Sequence[Decision]) -> str:
    """Each as stage, action and reason."""
    if not decisions:
        return "[]"
    return orjson.dumps([[item.stage, item.action, item.reason] for item in decisions]).decode()


def attempts_text(attempts: list[Attempt], usage: Usage | None, earlier: list[Usage]) -> str:
    """The tries; the last one with what the columns don't tell apart of the answer's usage, and of those before it."""
    told = [_attempt(attempt) for attempt in attempts]
    if told and (earlier or (usage is not None and not usage.plain)):
        more = orjson.dumps(details_of(usage, earlier)).decode()
        told[-1] = f"{told[-1][:-1]},{more[1:]}"
    return f"[{','.join(told)}]"


def _attempt(attempt: Attempt) -> str:
    times = f'"duration_ms":{attempt.duration_ms:.3f},"backoff_ms":{attempt.backoff_ms:.3f}'
    error = orjson.dumps(attempt.error).decode() if attempt.error else '""'
    told = f'{{"upstream":{_quoted(attempt.upstream)},"status":{attempt.status},"error":{error},{times}'
    if attempt.variant:
        told += f',"variant":{_quoted(attempt.variant)}'
    if attempt.billed is not None:
        told += f',"other":{orjson.dumps(other_details(attempt.billed)).decode()}'
    return told + "}"


@lru_cache(maxsize=64)
def _quoted(name: str) -> str:
    return orjson.dumps(name).decode()


def tags_text(tags: Sequence[tuple[str, str]]) -> str:
    """The ledger's tags: one value for each name, where it was said several times all of them between bars."""
    if not tags:
        return "{}"
    named: dict[str, list[str]] = {}
    for name, value in tags:
        named.setdefault(name, []).append(value)
    return orjson.dumps({name: "|".join(values) for name, values in named.items()}).decode()
