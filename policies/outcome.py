"""What is said of an answer after it was given: ratings, clicks, revenue, anything that is a number. Pure.

Rules of this file:
1. A rating is the metric `rating`, 1 for good and 0 for bad. Below a half is bad.
2. One word a request, metric and event: what is said again replaces what was said, so that sending twice counts once.
3. What farthing itself says of answers (`OWN`) nobody else may say.
4. Of many items the bad ones are named by their place, and the others are taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from farthing.proxy.errors import ClientFault

__all__ = ["FRESH", "MOST_ITEMS", "OWN", "RATING", "Outcome", "Refusal", "outcome_of", "outcomes_of"]

RATING = "rating"
FRESH = "fresh"
"""Whether a fresh answer, made without optimisers, says the same (proxy/afresh.py)."""
OWN = frozenset((FRESH, "audit", "shadow", "reask", "regenerate", "abandoned", "cost_usd", "latency_ms", "error"))
"""Metrics that farthing measures itself. Policies are judged by them, so whoever could send them could judge."""
MOST_ITEMS = 10_000
_FIELDS = ("id", "rating", "metric", "value", "comment", "at", "event")
_NAME = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_LONGEST_ID, _LONGEST_COMMENT = 128, 2_000
_AHEAD_S = 300.0  # clocks differ
_LARGEST = 1e12  # of a value: squares of larger ones would leave every sum of a metric without a meaning
_RATINGS = {"good": 1.0, "bad": 0.0}


class Outcome(NamedTuple):
    """One word on one request. Times are seconds since the epoch: `at_s` when it happened, `received_s` when it came.

    `event`: tells words of one metric on one request apart, where there may be several. `source`: `client`, or
    `implicit` where the proxy itself saw it.
    """

    request_id: str
    metric: str
    value: float
    at_s: float
    received_s: float
    comment: str = ""
    event: str = ""
    source: str = "client"

    @property
    def bad(self) -> bool:
        """Whether it is a bad rating."""
        return self.metric == RATING and self.value < 0.5


class Refusal(NamedTuple):
    """An item that can't be taken. `place`: from 0."""

    place: int
    message: str


def outcomes_of(asked: Mapping[str, Any], now_s: float) -> tuple[list[Outcome], list[Refusal]]:
    """Of `{"items": [...]}` or of one item alone.

    Raises ClientFault: one item alone can't be understood, or `items` isn't a list of at most MOST_ITEMS.
    """
    if "items" not in asked:
        return [outcome_of(asked, now_s)], []
    items = asked["items"]
    if len(asked) > 1 or not isinstance(items, list) or len(items) > MOST_ITEMS:
        raise ClientFault(f"items must stand alone and be a list of at most {MOST_ITEMS}", param="items")
    taken, refused = [], []
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                raise ClientFault("an item must be a JSON object")
            taken.append(outcome_of(item, now_s))
        except ClientFault as fault:
            refused.append(Refusal(index, fault.message))
    return taken, refused


def outcome_of(item: Mapping[str, Any], now_s: float) -> Outcome:
    """`{"id", "rating": "good"|"bad"}` or `{"id", "metric", "value"}`, with `comment`, `at` and `event` as one likes.

    Raises ClientFault, with the field.
    """
    if unknown := sorted(set(item) - set(_FIELDS)):
        raise _fault(f"feedback knows {', '.join(_FIELDS)}, not {unknown[0][:40]!r}", unknown[0][:40])
    request_id = item.get("id")
    if not isinstance(request_id, str) or not 0 < len(request_id) <= _LONGEST_ID:
        raise _fault(
            'feedback must look like {"id": "far-...", "rating": "good" or "bad"}, with metric and value', "id"
        )
    metric, value = _measured(item)
    comment, event = item.get("comment", ""), item.get("event", "")
    if not isinstance(comment, str) or len(comment) > _LONGEST_COMMENT:
        raise _fault(f"comment must be a text of at most {_LONGEST_COMMENT} characters", "comment")
    if not isinstance(event, str) or len(event) > _LONGEST_ID:
        raise _fault(f"event must be a text of at most {_LONGEST_ID} characters", "event")
    return Outcome(request_id, metric, value, _moment(item.get("at"), now_s), now_s, comment, event)


def _measured(item: Mapping[str, Any]) -> tuple[str, float]:
    if "rating" in item:
        if "metric" in item or "value" in item:
            raise _fault("say either rating, or metric and value", "rating")
        rating = item["rating"]
        if not isinstance(rating, str) or rating not in _RATINGS:
            raise _fault('rating must be "good" or "bad"', "rating")
        return RATING, _RATINGS[rating]
    metric, value = item.get("metric"), item.get("value")
    if not isinstance(metric, str) or not _NAME.fullmatch(metric):
        raise _fault("say a rating, or a metric: small letters, digits and _.:- beginning with a letter", "metric")
    if metric in OWN:
        raise _fault(f"{metric} is farthing's own: call yours something else", "metric")
    if not isinstance(value, bool | int | float) or not _finite(value):
        raise _fault("value must be a finite number, true or false", "value")
    if abs(value) > _LARGEST:
        raise _fault(f"value must lie within ±{_LARGEST:.0e}", "value")
    if metric == RATING and not 0 <= value <= 1:
        raise _fault("a rating's value lies between 0 (bad) and 1 (good)", "value")
    return metric, float(value)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _moment(at: object, now_s: float) -> float:
    """Seconds since the epoch, or an ISO 8601 text (without an offset: UTC); None: now."""
    if at is None:
        return now_s
    found = math.nan
    if isinstance(at, int | float) and not isinstance(at, bool) and _finite(at):
        found = float(at)
    elif isinstance(at, str):
        try:
            moment = datetime.fromisoformat(at)
            found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            found = math.nan
    if not 0 <= found <= now_s + _AHEAD_S:
        raise _fault("at must be seconds since the epoch or an ISO 8601 time, and not lie ahead", "at")
    return found


def _fault(message: str, param: str) -> ClientFault:
    return ClientFault(message, code="invalid_feedback", param=param)
