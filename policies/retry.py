"""May a failed attempt be tried again, and when? Pure.

Rules: never after the first byte to the client (the caller asks only before it). A connection that was never made
may always be tried again. Once the body may have arrived, a reset or a time-out is tried again only where the client
sent an `Idempotency-Key` or the operator allows it. An answer's own `x-should-retry` and `Retry-After` are honoured.
Where another replica or key can be asked (`elsewhere`) there is nothing to wait for.
Back-off: full jitter, so anything between nothing and an exponentially growing bound (Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from farthing.proxy.errors import UpstreamFault

__all__ = ["AGAIN", "RetryRules", "after_fault", "after_status", "retry_after_s"]

AGAIN = frozenset({408, 409, 429})
"""What the OpenAI and Anthropic SDKs retry beside server errors: request and lock time-outs, rate limits."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """`retries`: attempts after the first. See config.Upstream."""

    retries: int = 2
    base_s: float = 0.25
    longest_s: float = 8.0
    after_send: bool = False


def after_status(
    status: int,
    headers: Mapping[str, str],
    attempt: int,
    rules: RetryRules,
    jitter: float,
    now_s: float,
    *,
    elsewhere: bool = False,
) -> float | None:
    """Seconds to wait before the next attempt after an answer with `status`; None: pass the answer on.

    `attempt`: 1 for the first. `jitter` in [0, 1). A `Retry-After` longer than the longest wait is the client's to
    keep; a shorter one is kept, and up to a quarter more, so that all who were told the same don't come back together.
    """
    if attempt > rules.retries or status < 400:
        return None
    wish = headers.get("x-should-retry", "").lower()
    again = status in AGAIN or status >= 500 or (elsewhere and status == 401)
    if wish == "false" or (wish != "true" and not again):
        return None
    if elsewhere:
        return 0.0
    asked_s = retry_after_s(headers, now_s)
    if asked_s is None:
        return _backoff_s(attempt, rules, jitter)
    return _later_s(asked_s, rules, jitter)


def after_fault(
    fault: UpstreamFault,
    attempt: int,
    rules: RetryRules,
    jitter: float,
    *,
    idempotent: bool,
    elsewhere: bool = False,
) -> float | None:
    """Seconds to wait before the next attempt after no answer at all; None: give up."""
    if attempt > rules.retries or (fault.sent and not (idempotent or rules.after_send)):
        return None
    if elsewhere:
        return 0.0
    if fault.retry_after_s is not None:  # the pool's: no replica is free before
        return _later_s(fault.retry_after_s, rules, jitter)
    return _backoff_s(attempt, rules, jitter)


def _later_s(asked_s: float, rules: RetryRules, jitter: float) -> float | None:
    return asked_s * (1 + jitter / 4) if asked_s <= rules.longest_s else None


def _backoff_s(attempt: int, rules: RetryRules, jitter: float) -> float:
    return min(rules.longest_s, rules.base_s * 2.0 ** (attempt - 1)) * jitter


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """`retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3: seconds or a date; some say fractions of one), in seconds
    from now; None where neither says one.
    """
    in_ms = _seconds(headers.get("retry-after-ms", ""))
    if in_ms is not None:
        return in_ms / 1000
    value = headers.get("retry-after", "")
    if (in_s := _seconds(value)) is not None:
        return in_s
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s) if value else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _seconds(text: str) -> float | None:
    """A number of them; none below 0, and no such words as `inf`."""
    try:
        value = float(text)
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None
