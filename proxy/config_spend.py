"""Budgets, rate limits and alerts in the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from farthing.policies import bucket, budget
from farthing.policies.budget import Per
from farthing.proxy.config_section import Section

__all__ = [
    "LEAST_USD",
    "Alerts",
    "Budget",
    "Budgets",
    "RateLimit",
    "RateLimits",
    "Spend",
    "budgets_of",
    "impossible",
    "never_reached",
    "rates_of",
]

LEAST_USD = Decimal("0.000001")  # less than any request costs
_NAME = r"^[A-Za-z0-9_-]{1,64}$"


def _known_subject(of: str) -> str:
    if of in ("all", "key", "tenant", "model") or (of.startswith("tag:") and of[4:].strip()):
        return of
    if of.startswith("tag"):
        raise ValueError("a tag needs a name: tag:NAME")
    raise ValueError("must be all, key, tenant, model or tag:NAME")


class Limited(Section):
    """Something with a name that holds for some subjects. `only`: shell patterns of those that are meant."""

    name: str = Field(pattern=_NAME)
    of: Annotated[str, AfterValidator(_known_subject)] = "all"
    only: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _has_subjects(self) -> Limited:
        if self.only and self.of == "all":
            raise ValueError('only picks keys, tenants, models or tag values: say whose with of = "..."')
        return self

    @property
    def subject(self) -> budget.Subject:
        """Of whom there is one each."""
        return budget.Subject(self.of, self.only)


class Budget(Limited):
    """What may be spent in a day, a week from Monday on, or a month (UTC), by each subject. `alerts`: None is nothing
    for a hard budget, which shows by what it refuses, and all of it for a soft one, which nothing else would show."""

    usd: Decimal = Field(ge=LEAST_USD, le=1_000_000)
    per: Per = "day"
    hard: bool = True
    alerts: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None

    @property
    def told(self) -> tuple[float, ...]:
        """The shares that are told of."""
        if self.alerts is None:
            return () if self.hard else (1.0,)
        return self.alerts


class RateLimit(Limited):
    """How much may pass in a minute, for each subject."""

    requests_per_min: int | None = Field(None, ge=1, le=10**9)
    tokens_per_min: int | None = Field(None, ge=1, le=10**12)

    @model_validator(mode="after")
    def _says_something(self) -> RateLimit:
        if self.requests_per_min is None and self.tokens_per_min is None:
            raise ValueError("a rate limit needs requests_per_min, tokens_per_min or both")
        return self


def _names_differ(items: Sequence[Limited]) -> Sequence[Limited]:
    names = [item.name for item in items]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"there are two of the name {name!r}")
    return items


Budgets = Annotated[tuple[Budget, ...], AfterValidator(_names_differ)]
RateLimits = Annotated[tuple[RateLimit, ...], AfterValidator(_names_differ)]


class Spend(Section):
    """A hard limit on what is spent, and what budgets do with requests whose cost is not known beforehand."""

    daily_usd: Decimal | None = Field(None, ge=0, description="402 beyond it, from midnight UTC on; None: no limit")
    unpriced: Literal["pass", "refuse"] = Field(
        "refuse", description="requests without a known price, under hard budgets"
    )
    output_tokens: int = Field(4096, ge=1, description="assumed of an answer without max_tokens until some were seen")
    deadline_ms: float = Field(500.0, gt=0, description="for keys, budgets and rates in Redis; late means away")


class Alerts(Section):
    """Where it is told that a budget's threshold is reached. `secret`: signs what is sent. `key_budgets`: the
    thresholds of virtual keys' own budgets, which have none in their record."""

    webhook: SecretStr = SecretStr("")
    secret: SecretStr = SecretStr("")
    timeout_s: float = Field(10.0, gt=0)
    tries: int = Field(4, ge=1, le=10)
    key_budgets: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.8, 1.0)

    @model_validator(mode="after")
    def _is_a_url(self) -> Alerts:
        url = self.webhook.get_secret_value()
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("webhook must begin with http:// or https://")
        return self


# How many windows of the second kind one of the first may touch, each of which may be spent anew: a week lies in two
# months, a month of 31 days that begins on a Sunday in six weeks.
_TOUCHES: dict[tuple[Per, Per], int] = {
    ("day", "day"): 1,
    ("day", "week"): 1,
    ("day", "month"): 1,
    ("week", "day"): 7,
    ("week", "week"): 1,
    ("week", "month"): 2,
    ("month", "day"): 31,
    ("month", "week"): 6,
    ("month", "month"): 1,
}


def never_reached(usd: Decimal, per: Per, hard_usd: Decimal, hard_per: Per) -> bool:
    """Whether whoever spends `hard_usd` in each window of `hard_per`, at most, never spends `usd` in one of `per`."""
    return usd > hard_usd * _TOUCHES[per, hard_per]


def impossible(
    budgets: Sequence[Budget], rate_limits: Sequence[RateLimit], spend: Spend, *, keys_have_names: bool, alone: bool
) -> list[tuple[str, str]]:
    """(path, message) of what can never hold: a budget that another limit on the same spending ends before, and names
    of keys where these have none. `alone`: no other state directory spends what these budgets count."""
    faults = []
    for name, listed in (("budgets", budgets), ("rate_limits", rate_limits)):
        for place, limited in enumerate(listed):
            if limited.of == "key" and limited.only and not keys_have_names:
                message = "keys have no names here: declare auth.client_keys, or set auth.virtual_keys"
                faults.append((f"{name}.{place}.only", message))
    for place, one in enumerate(budgets):
        first = next((other for other in budgets if other.hard and _ends_before(other, one)), None)
        if first is not None:
            allows, to_change = f"{first.name!r} allows ${first.usd} a {first.per}", "raise that one"
        elif alone and spend.daily_usd and never_reached(one.usd, one.per, spend.daily_usd, "day"):
            allows, to_change = f"spend.daily_usd allows ${spend.daily_usd} a day", "raise that"
        else:
            continue
        message = f"is never reached: {allows}; lower this one, {to_change}, or leave one of them out"
        faults.append((f"budgets.{place}.usd", message))
    return faults


def _ends_before(hard: Budget, budget: Budget) -> bool:
    """Whether whoever spends what `budget` allows would have come to `hard`'s limit before: all that counts in the one
    counts in the other."""
    narrower = budget.of == hard.of and (not hard.only or (bool(budget.only) and set(budget.only) <= set(hard.only)))
    within = hard.of == "all" or narrower
    return within and never_reached(budget.usd, budget.per, hard.usd, hard.per)


def budgets_of(declared: Sequence[Budget]) -> tuple[budget.Budget, ...]:
    """The budgets as policies know them."""
    return tuple(budget.Budget(one.name, pico(one.usd), one.per, one.subject, one.hard, one.told) for one in declared)


def rates_of(declared: Sequence[RateLimit]) -> tuple[bucket.Rate, ...]:
    """The rates as policies know them."""
    rates = []
    for one in declared:
        if one.requests_per_min is not None:
            rates.append(bucket.Rate(one.name, "requests", one.requests_per_min, one.subject))
        if one.tokens_per_min is not None:
            rates.append(bucket.Rate(one.name, "tokens", one.tokens_per_min, one.subject))
    return tuple(rates)


def pico(usd: Decimal) -> int:
    """Dollars as pico-dollars."""
    return int(usd * 10**12)
