"""Budgets, rates and keys seen from outside. Never a key, nor its hash."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from farthing.policies.bucket import Rate
from farthing.policies.budget import Budget, Subject, window
from farthing.proxy.budgets import Spending, Standing
from farthing.proxy.errors import StoreFault

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["budgets", "gauges", "keys", "limits_in_words", "rates_in_words"]

_MOST_SUBJECTS = 200


async def budgets(services: Services) -> dict[str, Any]:
    """Every budget with its subjects, those that spent most first, and every rate limit. `store`: ok, off, or why it
    can't be asked; then the sums are those that this process saw last."""
    held, spending = services.state, services.spending
    if spending is None:
        return {"budgets": [], "rate_limits": [], "store": "off"}
    now_s, store = held.clock.now_s(), "ok"
    try:
        found = await spending.accounts.standing(now_s)
    except StoreFault as fault:
        store, found = str(fault), _seen(spending)
    rules = [*spending.budgets, *(budget for key in _ring_keys(services) for budget in key.own_budgets())]
    return {
        "budgets": [_budget(one, found, spending.refusals, now_s) for one in rules],
        "rate_limits": [
            {
                "name": rate.name,
                "of": rate.subject.of,
                "unit": rate.unit,
                "per_min": rate.per_min,
                "refused": spending.refusals.get(rate.name, 0),
            }
            for rate in spending.rates
        ],
        "store": store,
    }


def keys(services: Services) -> dict[str, Any]:
    """Every virtual key, and whether they are asked for. `store`: ok, off, or why it can't be asked."""
    ring = services.state.ring if services.config.auth.virtual_keys else None
    if ring is None:
        return {"asked_for": False, "keys": [], "store": "off"}
    now_s = services.state.clock.now_s()
    return {"asked_for": True, "keys": [key.told(now_s) for key in ring.keys], "store": ring.away or "ok"}


def gauges(services: Services) -> dict[str, float]:
    """Of each declared budget: its limit, and what is spent of it by the subject that spent most; refusals."""
    spending = services.spending
    if spending is None:
        return {}
    now_s, seen = services.state.clock.now_s(), _seen(spending)
    found: dict[str, float] = {}
    for budget in spending.budgets:
        found[f"budget_limit_usd:{budget.name}"] = budget.limit / 10**12
        spent = [one.spent for one in _of(budget, seen, now_s)]
        found[f"budget_spent_usd:{budget.name}"] = max(spent, default=0) / 10**12
        found[f"budget_refused:{budget.name}"] = spending.refusals.get(budget.name, 0)
    own = [count for name, count in spending.refusals.items() if name.startswith("key.")]
    if own:
        found["budget_refused:keys"] = sum(own)
    for name in {rate.name for rate in spending.rates}:
        found[f"rate_limit_refused:{name}"] = spending.refusals.get(name, 0)
    return found


def limits_in_words(declared: Iterable[Budget]) -> str:
    """Budgets in one line for the banner."""
    return ", ".join(
        f"{one.name}: ${one.limit / 10**12:g} a {one.per}" + _whose(one.subject) + ("" if one.hard else " (soft)")
        for one in declared
    )


def rates_in_words(declared: Iterable[Rate]) -> str:
    """Rate limits in one line for the banner."""
    return ", ".join(f"{one.name}: {one.per_min} {one.unit} a minute{_whose(one.subject)}" for one in declared)


def _whose(subject: Subject) -> str:
    if subject.of == "all":
        return ""
    return f" for each {subject.of.removeprefix('tag:')}" + (f" of {' or '.join(subject.only)}" if subject.only else "")


def _ring_keys(services: Services) -> tuple[Any, ...]:
    ring = services.state.ring if services.config.auth.virtual_keys else None
    return () if ring is None else ring.keys


def _seen(spending: Spending) -> list[Standing]:
    return [Standing(name, spent, held) for name, (spent, held) in spending.accounts.seen().items()]


def _of(budget: Budget, found: Iterable[Standing], now_s: float) -> list[Standing]:
    """A budget's accounts of this window, the fullest first."""
    start = str(window(budget.per, now_s)[0])
    own = [one for one in found if one.account.split("|", 1)[0] == budget.name]
    return sorted([one for one in own if one.account.rsplit("|", 1)[1] == start], key=lambda one: -one.spent)


def _budget(budget: Budget, found: Iterable[Standing], refusals: dict[str, int], now_s: float) -> dict[str, Any]:
    own = _of(budget, found, now_s)
    resets = datetime.fromtimestamp(window(budget.per, now_s)[1], UTC)
    return {
        "name": budget.name,
        "of": budget.subject.of,
        "only": list(budget.subject.only),
        "per": budget.per,
        "hard": budget.hard,
        "limit_usd": budget.limit / 10**12,
        "resets_at": resets.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "refused": refusals.get(budget.name, 0),
        "count": len(own),
        "subjects": [
            {
                "subject": one.account.split("|", 1)[1].rsplit("|", 1)[0],
                "spent_usd": one.spent / 10**12,
                "held_usd": one.held / 10**12,
                "share": one.spent / budget.limit,
            }
            for one in own[:_MOST_SUBJECTS]
        ],
    }
