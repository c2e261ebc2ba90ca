"""What a deferred request reserved, as it is kept beside it: whoever books it, in whatever process, can end it.

Rules of this file: a reservation is told whole, with the budgets as they were, so that a key's own are settled too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from farthing.policies.bucket import Rate, Take
from farthing.policies.budget import Budget, Subject, Want
from farthing.proxy.budgets_hold import Hold

__all__ = ["as_hold", "hold_as"]


def hold_as(hold: Hold | None) -> dict[str, Any] | None:
    """A reservation as plain values; None where there is none."""
    if hold is None:
        return None
    return {
        "name": hold.name,
        "pico": hold.pico,
        "reserved": hold.reserved,
        "tokens": hold.tokens,
        "asked": hold.asked,
        "wants": [[one.account, one.subject, one.ends_s, _plain(one.budget)] for one in hold.wants],
        "takes": [
            [one.bucket, one.amount, one.subject, [one.rate.name, one.rate.unit, one.rate.per_min, *one.rate.subject]]
            for one in hold.takes
        ],
    }


def as_hold(value: dict[str, Any] | None) -> Hold | None:
    """What `hold_as` gave."""
    if value is None:
        return None
    wants = tuple(Want(account, subject, ends_s, _budget(told)) for account, subject, ends_s, told in value["wants"])
    takes = tuple(
        Take(bucket, amount, Rate(name, unit, per_min, _subject(of, only)), subject)
        for bucket, amount, subject, (name, unit, per_min, of, only) in value["takes"]
    )
    return Hold(value["name"], wants, value["pico"], value["reserved"], takes, value["tokens"], value.get("asked", ""))


def _plain(budget: Budget) -> list[Any]:
    limit = str(budget.limit)  # beyond what JSON's integers surely hold
    return [budget.name, limit, budget.per, *budget.subject, budget.hard, budget.alerts]


def _budget(told: Sequence[Any]) -> Budget:
    name, limit, per, of, only, hard, alerts = told
    return Budget(name, int(limit), per, _subject(of, only), hard, tuple(alerts))


def _subject(of: str, only: Sequence[str]) -> Subject:
    return Subject(of, tuple(only))
