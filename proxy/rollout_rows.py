"""What a roll-out's guard is to know of ledger rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from farthing.policies.assign import Unit
from farthing.policies.guard import Outcome
from farthing.proxy.exchange import REFUSED, CacheStatus
from farthing.proxy.exchange import Outcome as Ended
from farthing.proxy.lanes import CANDIDATE, EXPERIMENT
from farthing.proxy.row import ERRANDS, Row

__all__ = ["outcomes_of"]

_PICO = 1e-12
_REFUSALS = frozenset((401, 402, 403, 413, 429))
_POLICYS = frozenset(("unsupported_parameter", "unsupported_body"))
"""Refusals that another policy's upstream would have spared the client."""


def outcomes_of(rows: Iterable[Row], unit: Unit) -> list[tuple[str, Outcome]]:
    """Of each row of the roll-out its request's id, and how it ended.

    A client that left says nothing about errors or latency. Who joined a call that another request pays for has no
    cost: a candidate with little traffic would have fewer of them, and look dear. What farthing itself refused (no
    budget, no key, too many, nothing cached) is left out: hits are never refused, so it would count against whoever has
    fewer of them.
    """
    found = []
    for row in rows:
        if row.experiment != EXPERIMENT or row.endpoint in ERRANDS:
            continue
        if refused(row):
            continue
        ended = row.outcome == Ended.COMPLETED and row.status < 400
        failed = not ended and row.outcome != Ended.ABANDONED
        cost = None if row.cost_usd is None or row.cache == CacheStatus.JOINED else row.cost_usd * _PICO
        name = "" if unit == "request" else unit_in(row, unit)
        found.append((row.id, Outcome(row.arm == CANDIDATE, failed, row.latency_ms if ended else None, cost, name)))
    return found


def refused(row: Row) -> bool:
    """Whether farthing itself refused the request, for a reason that has nothing to do with its policy's upstreams: not
    where none of them is up, or none has a word for what was asked."""
    if row.attempts or row.status < 400:
        return False
    if row.status in _REFUSALS:
        return True
    code = _said(row, REFUSED)
    return bool(code) and code not in _POLICYS


def unit_in(row: Row, unit: Unit) -> str:
    """Who stays in the row's arm, as far as the row tells."""
    if unit == "session" and (named := _said(row, ("assign", "unit"))):
        return f"session {named}"
    return row.tenant if unit == "tenant" or not row.user else f"{row.tenant} {row.user}"


def _said(row: Row, decision: tuple[str, str]) -> str:
    """The reason of the first such decision; '' where there is none."""
    if f'"{decision[1]}"' not in row.decisions:
        return ""
    return next(
        (reason for stage, action, reason in orjson.loads(row.decisions) if (stage, action) == decision and reason), ""
    )
