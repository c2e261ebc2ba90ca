"""What routes did, out of the ledger's latest rows: which variant answered how much, at what price, how fast and well.

Rules of this file: as in figures.py. Routes stand in no roll-up, so only the latest `MOST_ROWS` rows of a span are
looked at, whatever the span, and what is told says how far back they reach. A route's and a variant's name is read from
`decisions`, where it stands before other words: a name that the configuration knows is found whole, whatever is in it.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from farthing.proxy.figures_sql import CLIENTS

__all__ = ["MOST_ROWS", "Declared", "RouteFigures", "Routed", "VariantFigures", "by_route"]

MOST_ROWS = 5_000
_MOST_SHOWN = 100
_SERVED, _OBSERVED = ("routed", "not routed"), ("would route", "would not route")
_BY_REQUEST = ", named by the request"
_ASKED_FOR = "the asked-for model"
_PRICE = re.compile(r", for \$([0-9]+)(?:\.([0-9]+))?$")
_CASCADE = re.compile(r"^(?:first of a )?cascade(?:;|$)")
_COLUMNS = (
    "ts, status, outcome, cost_usd, baseline_usd, saved_route_usd, latency_ms, decisions, attempts_detail, "
    "model_requested"
)


class Declared(NamedTuple):
    """What the configuration in force names. `routes`: name, mode and strategy of each, in their order. `bounds`: of
    those with `max_worse`, what is known. `plain`: by route, the models that a variant of its own is nothing but."""

    routes: tuple[tuple[str, str, str], ...] = ()
    variants: tuple[str, ...] = ()
    bounds: Mapping[str, dict[str, Any]] = MappingProxyType({})
    plain: Mapping[str, Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class VariantFigures:
    """Requests that one variant answered; where the route observes, that it would have been asked for.

    `variant` '': the model that was asked for, where no variant of the route is just that. `asked`: requests that asked
    it, whoever answered. `escalated`: answers of its that a cascade didn't accept; `failed`: attempts after which
    another was asked; `hedged`: second calls since it said nothing. Money: pico-dollars of the `priced` requests, with
    all that was paid on their way; `would`: of an observing route, what its `would_priced` requests would have cost
    there, `would_save`: the difference to their cost.
    """

    variant: str
    requests: int = 0
    asked: int = 0
    errors: int = 0
    escalated: int = 0
    failed: int = 0
    hedged: int = 0
    priced: int = 0
    cost: int = 0
    saved: int = 0
    would_priced: int = 0
    would: int = 0
    would_save: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def latency_ms(self, percent: int) -> float | None:
        """The nearest-rank percentile of those that the client waited for."""
        ordered = sorted(self.latencies_ms)
        return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None


@dataclass(slots=True)
class RouteFigures:
    """One route; `route` '': requests that named their variant or model themselves. `serves`: else it observes."""

    route: str
    serves: bool
    variants: dict[str, VariantFigures] = field(default_factory=dict)

    def of(self, variant: str) -> VariantFigures:
        """The variant's figures, begun where there are none."""
        return self.variants.setdefault(variant, VariantFigures(variant))

    @property
    def requests(self) -> int:
        """All of the route's."""
        return sum(each.requests for each in self.variants.values())


class Routed(NamedTuple):
    """The routes with most requests first. `rows`: looked at, `since_s`: how far back they reach where not all were."""

    routes: tuple[RouteFigures, ...]
    rows: int
    since_s: float | None


def by_route(conn: sqlite3.Connection, since_s: float, until_s: float, declared: Declared) -> Routed:
    """What became of the latest requests in [since, until) that a route, or the request itself, sent somewhere.

    Requests that a cache answered went nowhere. At most `MOST_ROWS` are looked at, which bounds the cost.
    """
    latest = f"select * from requests where ts >= ? and ts < ? and {CLIENTS} order by ts desc limit {MOST_ROWS}"
    bounds = (since_s, until_s)
    rows, oldest_s = conn.execute(f"select count(*), min(ts) from ({latest})", bounds).fetchone()
    found: dict[tuple[str, bool], RouteFigures] = {}
    names = _Names(declared)
    query = f"select {_COLUMNS} from ({latest}) where instr(decisions, '[\"route\",') > 0"
    for values in conn.execute(query, bounds):
        _add(found, names, *values)
    order = sorted(found.values(), key=lambda each: (-each.requests, each.route, not each.serves))
    return Routed(tuple(order[:_MOST_SHOWN]), rows, oldest_s if rows >= MOST_ROWS else None)


class _Names:
    """Finds names at the beginning of a text."""

    def __init__(self, declared: Declared) -> None:
        self.route = _finder((name for name, _, _ in declared.routes), ": ")
        self.variant = _finder(declared.variants, ", ")
        self.before_colon = _finder((*declared.variants, _ASKED_FOR), ": ")
        self.plain = declared.plain


def _finder(known: Iterable[str], mark: str) -> Callable[[str], tuple[str, str]]:
    """Splits a text at `mark` after a known name, the longest that fits; else at the first mark; ('', text) without."""
    longest_first = sorted(known, key=len, reverse=True)

    def find(text: str) -> tuple[str, str]:
        for name in longest_first:
            if text.startswith(name + mark):
                return name, text[len(name) + len(mark) :]
        name, found, rest = text.partition(mark)
        return (name, rest) if found else ("", text)

    return find


def _add(
    found: dict[tuple[str, bool], RouteFigures],
    names: _Names,
    ts: float,
    status: int,
    outcome: str,
    cost: int | None,
    baseline: int | None,
    saved: int | None,
    latency_ms: float,
    decisions: str,
    attempts: str,
    model: str,
) -> None:
    told = _decided(decisions)
    way = next((each for each in told if each[0] in _SERVED or each[0] in _OBSERVED), None)
    if way is None:
        return
    action, reason = way
    serves = action in _SERVED
    by_request = reason.endswith(_BY_REQUEST) or (action == "routed" and ", " not in reason)
    name, rest = ("", reason) if by_request else names.route(reason)
    route = found.setdefault((name, serves), RouteFigures(name, serves))
    first, why = names.variant(rest) if action in ("routed", "would route") else ("", "")
    first = first or why
    tries = _asked(attempts)
    if by_request and not any(action == "failed" for action, _ in told):
        tries = [variant or first for variant in tries]  # a model that a header names is no variant of an attempt
    asked_for = ""
    if action == "routed" and not by_request:
        asked_for = _asked_for(names, _Way(name, first, why, model), told, tries)
        tries = [variant or asked_for for variant in tries]
    mine = route.of(tries[-1] if serves and tries else first)
    mine.requests += 1
    mine.errors += outcome == "failed" or (status >= 400 and outcome != "abandoned")
    if outcome != "abandoned":
        mine.latencies_ms.append(latency_ms)
    if cost is not None and baseline is not None:
        mine.priced += 1
        mine.cost += cost
        mine.saved += saved or 0
        if not serves and (price := _PRICE.search(rest)) is not None:
            would = int(price[1]) * 10**12 + int((price[2] or "").ljust(12, "0")[:12])
            mine.would_priced, mine.would = mine.would_priced + 1, mine.would + would
            mine.would_save += cost - would
    if serves:
        for variant in set(tries):
            route.of(variant).asked += 1
        _handed_on(route, names, told, asked_for)


def _handed_on(route: RouteFigures, names: _Names, told: Sequence[tuple[str, str]], asked_for: str) -> None:
    """Count where another was asked, at the one who was asked before."""
    for action, who in _before(names, told):
        one = route.of(asked_for if who == _ASKED_FOR else who)
        if action == "escalated":
            one.escalated += 1
        elif action == "failed":
            one.failed += 1
        else:
            one.hedged += 1


def _before(names: _Names, told: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Why another was asked, and who had been asked before."""
    for action, reason in told:
        if action in ("escalated", "failed"):
            yield action, names.before_colon(reason)[0]
        elif action == "hedged":
            yield action, reason.rpartition(" said nothing in ")[0]


class _Way(NamedTuple):
    """Where a route led. `why`: what is said behind the variant that was chosen. `model`: that was asked for."""

    route: str
    first: str
    why: str
    model: str


def _asked_for(names: _Names, way: _Way, told: Sequence[tuple[str, str]], tries: Sequence[str]) -> str:
    """The route's variant that is nothing but the model asked for, whose attempts bear no name; '' where none is.

    It is the one that was chosen, where no attempt and no failure is told of that one. A cascade's choice is its first:
    there, and of fallbacks, the configuration says it.
    """
    if "" not in tries:
        return ""
    asked = {*tries, *(who for _, who in _before(names, told))}
    if way.first not in asked and not _CASCADE.match(way.why):
        return way.first
    found = names.plain.get(way.route, {}).get(way.model, "")
    return "" if found and f"; {found} " in way.why else found  # left out: then it is the model that ends every route


def _decided(text: str) -> list[tuple[str, str]]:
    """Action and reason of each decision on the route; none where the column holds something else."""
    return [
        (str(each[1]), str(each[2]))
        for each in _listed(text)
        if isinstance(each, list) and len(each) == 3 and each[0] == "route"
    ]


def _asked(text: str) -> list[str]:
    """The variants of the attempts, in their order; '' where it was the model that was asked for, a variant or none."""
    return [str(each.get("variant", "")) for each in _listed(text) if isinstance(each, dict)]


def _listed(text: str) -> list[Any]:
    try:
        found = orjson.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []
