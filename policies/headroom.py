"""How much of its rate limits a key has left, as the provider's answers tell. Pure; ticks are handed in.

Rules of this file:
1. A limit is a bucket that fills steadily: what is left now is what was told, and what has flowed in since.
2. Each request that goes out takes one from the bucket of requests at once: answers tell too late when many are under
   way. Tokens aren't known before; a key is passed by when less than a hundredth of its tokens is left.
3. A refusal (429) parks the key for as long as the provider asks; where it doesn't say, for 1 s, then 2 s, 4 s up to
   a minute. So does a key that the provider doesn't know (401): for a minute.
4. Providers limit each model by itself: what an answer of one told, or a refusal, says nothing of another. A key that
   isn't known is known to none.

Sources: OpenAI API guide, "Rate limits" (they vary by model; `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`;
resets as 6m0s); Anthropic API reference, "Rate limits" (for each class of models;
`anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`; resets as RFC 3339 times at which the bucket is full);
RFC 9110, 10.2.3 (`Retry-After`).
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime

from farthing.policies.retry import retry_after_s

__all__ = ["Bucket", "Headroom", "KeyLimits", "reset_in_s", "told_rates"]

_LONGEST_PARK_S = 60.0
_MOST_MODELS = 64  # names come from clients; the one that was answered longest ago is forgotten
_LEAST_TOKENS_SHARE = 0.01
_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after")
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def told_rates(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of an answer's headers those that speak of rates, their names in lower case."""
    return {low: value for name, value in headers if (low := name.lower()).startswith(_PREFIXES)}


def reset_in_s(text: str, now_s: float) -> float | None:
    """Seconds from now: of `6m0s`, `120ms`, `1.5` (seconds) or an RFC 3339 time; None where it is none of them."""
    text = text.strip()
    if found := _SPAN.fullmatch(text):
        if not text:
            return None
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
        return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    try:
        seconds = float(text)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else max(0.0, moment.timestamp() - now_s)
    except ValueError:
        return None


class Bucket:
    """One limit. `limit`: what a full one holds; None: not told. `full_s`: seconds after `tick_s` when it is full."""

    __slots__ = ("full_s", "left", "limit", "tick_s")

    def __init__(self, limit: float | None, left: float, full_s: float, tick_s: float) -> None:
        self.limit, self.left, self.full_s, self.tick_s = limit, left, full_s, tick_s

    def now(self, tick_s: float) -> float:
        """What is in it. Without a limit told nothing flows in until all does."""
        passed_s = tick_s - self.tick_s
        if passed_s >= self.full_s:
            return math.inf if self.limit is None else self.limit
        if self.limit is None or self.limit <= self.left:
            return self.left
        return self.left + (self.limit - self.left) * passed_s / self.full_s

    def wait_s(self, least: float, tick_s: float) -> float:
        """Seconds until `least` is in it."""
        lacking = least - self.now(tick_s)
        if lacking <= 0:
            return 0.0
        until_full_s = self.full_s - (tick_s - self.tick_s)
        if self.limit is None or self.limit <= self.left:
            return until_full_s
        return min(until_full_s, lacking * self.full_s / (self.limit - self.left))


class Headroom:
    """What one key has left for one model. `wait_s` 0: it may be used."""

    __slots__ = ("_parked_until", "_refusals", "_requests", "_tokens")

    def __init__(self) -> None:
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._parked_until = -math.inf
        self._refusals = 0

    def take(self) -> None:
        """A request goes out with it."""
        if self._requests is not None:
            self._requests.left -= 1

    def learn(self, status: int, rates: Mapping[str, str], tick_s: float, now_s: float) -> None:
        """What an answer told. `rates`: of told_rates. `now_s`: since the epoch, for resets that are times."""
        self._requests = _bucket(rates, "requests", tick_s, now_s) or self._requests
        self._tokens = _bucket(rates, "tokens", tick_s, now_s) or self._tokens
        if status == 429:
            self._refusals += 1
            asked_s = retry_after_s(rates, now_s)
            if asked_s is None:
                asked_s = min(_LONGEST_PARK_S, 2.0 ** min(self._refusals - 1, 10))
            self._parked_until = max(self._parked_until, tick_s + asked_s)
        elif status < 400:
            self._refusals = 0

    def wait_s(self, tick_s: float) -> float:
        """Seconds until a request may go out with it."""
        wait_s = max(0.0, self._parked_until - tick_s)
        if self._requests is not None:
            wait_s = max(wait_s, self._requests.wait_s(1.0, tick_s))
        if self._tokens is not None:
            wait_s = max(wait_s, self._tokens.wait_s((self._tokens.limit or 0) * _LEAST_TOKENS_SHARE, tick_s))
        return wait_s

    def share(self, tick_s: float) -> float:
        """What is left, as a share of the limits: the smaller one of both. 1 where nothing was told."""
        shares = [
            max(0.0, min(1.0, bucket.now(tick_s) / bucket.limit))
            for bucket in (self._requests, self._tokens)
            if bucket is not None and bucket.limit
        ]
        return min(shares, default=1.0)


class KeyLimits:
    """What one key has left, model by model, for those whose answers told. `wait_s` 0: it may be used."""

    __slots__ = ("_by_model", "_unknown_until")

    def __init__(self) -> None:
        self._by_model: OrderedDict[str, Headroom] = OrderedDict()
        self._unknown_until = -math.inf

    def take(self, model: str) -> None:
        """A request for it goes out with the key."""
        if (one := self._by_model.get(model)) is not None:
            one.take()

    def learn(self, model: str, status: int, rates: Mapping[str, str], tick_s: float, now_s: float) -> None:
        """What an answer told: see Headroom.learn."""
        if status == 401:
            self._unknown_until = tick_s + _LONGEST_PARK_S
            return
        one = self._by_model.setdefault(model, Headroom())
        self._by_model.move_to_end(model)
        if len(self._by_model) > _MOST_MODELS:
            self._by_model.popitem(last=False)
        one.learn(status, rates, tick_s, now_s)

    def wait_s(self, model: str, tick_s: float) -> float:
        """Seconds until a request for it may go out with the key."""
        one, unknown_s = self._by_model.get(model), max(0.0, self._unknown_until - tick_s)
        return unknown_s if one is None else max(unknown_s, one.wait_s(tick_s))

    def share(self, model: str, tick_s: float) -> float:
        """What is left for it, as a share of the limits; 1 where nothing was told."""
        one = self._by_model.get(model)
        return 1.0 if one is None else one.share(tick_s)

    def worst(self, tick_s: float) -> tuple[float, float]:
        """For screens: the longest wait and the smallest share of any model."""
        models = self._by_model
        waits_s = [self.wait_s(model, tick_s) for model in (*models, "")]
        return max(waits_s), min([one.share(tick_s) for one in models.values()], default=1.0)


def _bucket(rates: Mapping[str, str], kind: str, tick_s: float, now_s: float) -> Bucket | None:
    for pattern in (f"x-ratelimit-{{}}-{kind}", f"anthropic-ratelimit-{kind}-{{}}"):
        left = _count(rates.get(pattern.format("remaining")))
        if left is not None:
            full_s = reset_in_s(rates.get(pattern.format("reset"), ""), now_s)
            return Bucket(_count(rates.get(pattern.format("limit"))), left, full_s or 0.0, tick_s)
    return None


def _count(text: str | None) -> float | None:
    return float(text) if text is not None and text.strip().isdecimal() else None
