"""What may be spent: budgets, the money that is reserved against them before a request, and what is settled after it.

Rules of this file:
1. An account is one budget, of one subject (a key, a tenant, a tag's value), in one window of time. It holds two sums:
   what is spent, and what requests under way may still cost.
2. A reservation stands in all of its accounts or in none; it ends once, whoever settles it how often.
3. A hard account never takes a reservation that it has no room for. So what it spends beyond its limit is at most what
   answers cost beyond what was reserved for them: nothing, where a request bounds its own output.
4. What was spent is kept `KEPT_S` beyond its window: a clock that was ahead and is right again comes back into it.

Pure: no clock, no IO. Money is integer pico-dollars.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from farthing.proxy.errors import ClientFault

__all__ = [
    "KEPT_S",
    "Books",
    "Budget",
    "Moved",
    "Over",
    "Per",
    "Subject",
    "Tally",
    "Want",
    "Who",
    "crossed",
    "refusal",
    "wanted",
    "window",
]

Per = Literal["day", "week", "month"]
_DAY_S = 86_400
KEPT_S = 2 * _DAY_S
"""So long is an account kept when its window is over."""
_MONDAY_S = 4 * _DAY_S  # the epoch was a Thursday
_LONGEST_SUBJECT = 64
_SOON_S = 1.0


class Who(NamedTuple):
    """Whom a request is charged to. `model`: empty before it is known."""

    key: str
    tenant: str
    model: str = ""
    tags: tuple[tuple[str, str], ...] = ()


class Subject(NamedTuple):
    """Of whom there is one account each: `of` is all, key, tenant, model or tag:NAME. `only`: shell patterns of those
    that are meant; empty: all of them."""

    of: str
    only: tuple[str, ...] = ()

    def named(self, who: Who) -> tuple[str, ...]:
        """The subjects that this request counts for: none where it isn't meant, several where a tag is given twice."""
        if self.of == "all":
            return ("",)
        if self.of.startswith("tag:"):
            name = self.of[4:]
            found = tuple(dict.fromkeys(value for tag, value in who.tags if tag == name))
        else:
            value = who.key if self.of == "key" else who.tenant if self.of == "tenant" else who.model
            found = (value,) if value else ()
        if not self.only or not found:
            return found
        return tuple(value for value in found if any(fnmatchcase(value, pattern) for pattern in self.only))


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `limit` pico-dollars in each window, for each subject. `alerts`: shares of it that are told of."""

    name: str
    limit: int
    per: Per
    subject: Subject
    hard: bool = True
    alerts: tuple[float, ...] = ()


class Want(NamedTuple):
    """One account that a request needs room in."""

    account: str
    subject: str
    ends_s: int
    budget: Budget


class Moved(NamedTuple):
    """What settling did to an account: what had been spent before and after."""

    account: str
    before: int
    after: int


def window(per: Per, now_s: float) -> tuple[int, int]:
    """The day, the week from Monday on, or the month of this moment, in UTC: its first second, and the next one's."""
    now = int(now_s)
    if per == "day":
        start = now - now % _DAY_S
        return start, start + _DAY_S
    if per == "week":
        start = now - (now - _MONDAY_S) % (7 * _DAY_S)
        return start, start + 7 * _DAY_S
    day = datetime.fromtimestamp(now, UTC)
    first = datetime(day.year, day.month, 1, tzinfo=UTC)
    following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
    return int(first.timestamp()), int(following.timestamp())


def wanted(budgets: Sequence[Budget], who: Who, now_s: float) -> tuple[Want, ...]:
    """The accounts of this request."""
    found: list[Want] = []
    for budget in budgets:
        subjects = budget.subject.named(who)
        if subjects:
            start, ends = window(budget.per, now_s)
            found += [Want(f"{budget.name}|{short(one)}|{start}", one, ends, budget) for one in subjects]
    return tuple(found)


def short(subject: str) -> str:
    """The subject as part of a name: a client may have written it, so a long one is hashed."""
    if len(subject) <= _LONGEST_SUBJECT:
        return subject
    return "#" + hashlib.sha256(subject.encode("utf-8", "replace")).hexdigest()[:32]


@dataclass(slots=True)
class Tally:
    """One account. `ends_s`: when its window is over, in seconds since the epoch."""

    spent: int = 0
    held: int = 0
    ends_s: int = 0


@dataclass(slots=True)
class Over:
    """Since when windows are over, by a clock that can't jump: the wall clock may be years ahead and right again."""

    since: dict[int, float] = field(default_factory=dict)

    def gone(self, ends: Iterable[int], now_s: float, tick_s: float) -> set[int]:
        """Those of these ends that were past at each look for `KEPT_S` of monotonic time. `ends`: all there are."""
        self.since = {end: self.since.get(end, tick_s) for end in ends if end <= now_s}
        return {end for end, tick in self.since.items() if tick_s - tick >= KEPT_S}


@dataclass(slots=True)
class Books:
    """All accounts of one process, and the reservations in them."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    holds: dict[str, tuple[tuple[Want, ...], int]] = field(default_factory=dict)
    over: Over = field(default_factory=Over)

    def reserve(self, hold: str, wants: Sequence[Want], pico: int) -> int:
        """Reserve an amount in all of these accounts under the name `hold`.

        Returns -1, or the place of the first hard one without room; then nothing is reserved. Again under the same
        name: nothing more is.
        """
        if hold in self.holds:
            return -1
        tallies = [self.tally(want.account, want.ends_s) for want in wants]
        for place, (want, tally) in enumerate(zip(wants, tallies, strict=True)):
            if want.budget.hard and not fits(want.budget.limit, tally.spent, tally.held, pico):
                return place
        for tally in tallies:
            tally.held += pico
        self.holds[hold] = (tuple(wants), pico)
        return -1

    def settle(self, hold: str, pico: int) -> list[Moved]:
        """End a reservation with what the request cost; nothing where it has ended."""
        wants, held = self.holds.pop(hold, ((), 0))
        moved = []
        for want in wants:
            tally = self.tally(want.account, want.ends_s)  # nothing was held in it, and it was closed as idle
            before = tally.spent
            tally.held -= held
            tally.spent += pico
            moved.append(Moved(want.account, before, tally.spent))
        return moved

    def tally(self, account: str, ends_s: int) -> Tally:
        """The account, opened where it isn't."""
        tally = self.tallies.get(account)
        if tally is None:
            tally = self.tallies[account] = Tally(ends_s=ends_s)
        return tally

    def close_idle(self, now_s: float, tick_s: float) -> None:
        """Drop the accounts whose window has been over for `KEPT_S` (`Over`), and those in which nothing ever was; none
        with a reservation."""
        gone = self.over.gone({tally.ends_s for tally in self.tallies.values()}, now_s, tick_s)
        self.tallies = {
            name: tally
            for name, tally in self.tallies.items()
            if tally.held or (tally.spent and tally.ends_s not in gone)
        }


def fits(limit: int, spent: int, held: int, pico: int) -> bool:
    """Whether a hard account has room: what is free of charge fits as long as the limit isn't reached."""
    return spent + held + pico <= limit and (pico > 0 or spent < limit)


def crossed(alerts: Iterable[float], limit: int, before: int, after: int) -> list[float]:
    """The shares of the limit that spending has just come past, smallest first."""
    return [share for share in sorted(alerts) if before < share * limit <= after]


def refusal(want: Want, spent: int, held: int, pico: int, now_s: float) -> ClientFault:
    """The 402 for a request that a hard budget has no room for: which budget, its limit, when it begins anew.

    `Retry-After`: the window's end; a moment, where only requests under way stand in the way; none, where the request
    alone is more than the whole budget, since no waiting helps.
    """
    budget = want.budget
    of = f" for {budget.subject.of.removeprefix('tag:')} {want.subject!r}" if want.subject else ""
    limit = f"{usd(budget.limit)} a {budget.per}"
    resets = datetime.fromtimestamp(want.ends_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    retry_s: float | None = max(1.0, want.ends_s - now_s)
    if pico > budget.limit:
        why = f"this request alone may cost {usd(pico)}, and waiting doesn't help; ask for fewer tokens (max_tokens)"
        retry_s = None
    elif spent + pico > budget.limit or spent >= budget.limit:
        why = f"{usd(spent)} is spent and this request may cost {usd(pico)}; it begins anew at {resets}"
    else:
        why = f"requests under way may use up what is left ({usd(budget.limit - spent)}); try again in a moment"
        retry_s = _SOON_S
    return ClientFault(
        f"the budget {budget.name!r}{of} ({limit}) has no room: {why}",
        status=402,
        code="budget_exceeded",
        kind="insufficient_quota",
        param=f"budgets.{budget.name}",
        retry_after_s=retry_s,
    )


def usd(pico: int) -> str:
    """An amount for a person: cents, and more digits where it is small."""
    amount = Decimal(pico).scaleb(-12)
    return f"${amount:.2f}" if amount >= 1 or not amount else f"${amount:.6f}"
