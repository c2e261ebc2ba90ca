"""vCache's policy: every cached entry learns for itself how near a prompt must come. Pure; written from the paper.

An entry's labels (cosine, right?) are fitted by a logistic curve; the surer the curve, and the higher on it the
candidate, the rarer the policy explores. Its bound is on wrong answers per *request*, on average, for independent
requests whose chance of being right does follow a logistic curve. It is an estimate with a margin, not a proof.

Departure: where an entry's labels separate, a maximum-likelihood fit doesn't exist. The paper then takes the variance
of the threshold from a table by count; here a weak prior on the curve keeps fit and variance finite, separated or not.

Source: Schroeder et al., vCache: Verified Semantic Prompt Caching (arXiv 2502.03771).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from statistics import NormalDist
from typing import Any, Literal

from farthing.policies.reuse import (
    Action,
    Bound,
    Candidate,
    Label,
    Mode,
    RouteKey,
    RouteState,
    Slice,
    Verdict,
    slices,
    whole,
)  # fmt: skip

__all__ = ["VCache"]

_SEEDS = ((0.0, 0.0), (1.0, 1.0))
_ENOUGH_LABELS = 6
_KEPT_LABELS = 50
_QUANTILES = [(eps, NormalDist().inv_cdf(1.0 - eps)) for eps in ((i + 0.5) / 50 for i in range(50))]
_STEPS = 25
# Precision of the prior on the curve's intercept and slope (normal, mean 0, deviation 30).
_PRIOR = 1.0 / 900.0


@dataclass(slots=True)
class _Curve:
    """One entry's labels and the curve through them: P(right | cosine) = sigmoid(intercept + slope * cosine)."""

    labels: list[tuple[float, float]] = field(default_factory=lambda: list(_SEEDS))
    intercept: float = 0.0
    slope: float = 0.0
    threshold: float = 1.0
    deviation: float = math.inf

    def fit(self) -> None:
        """Newton's method from where the last fit ended; the deviation of -intercept/slope by the delta method."""
        a, b = self.intercept, self.slope
        for _ in range(_STEPS):
            ga, gb = -_PRIOR * a, -_PRIOR * b
            haa, hab, hbb = _PRIOR, 0.0, _PRIOR
            for cosine, right in self.labels:
                p = _sigmoid(a + b * cosine)
                v = p * (1.0 - p)
                ga += right - p
                gb += (right - p) * cosine
                haa += v
                hab += v * cosine
                hbb += v * cosine * cosine
            det = haa * hbb - hab * hab
            da, db = (hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det
            reach = min(1.0, 10.0 / max(abs(da), abs(db), 1e-12))
            a, b = a + reach * da, b + reach * db
            if abs(da) + abs(db) < 1e-6:
                break
        self.intercept, self.slope = a, b
        if b <= 0.0:
            self.threshold, self.deviation = 1.0, math.inf
            return
        self.threshold = -a / b
        # Gradient of -a/b, and the inverse of the Hessian.
        da, db = -1.0 / b, a / (b * b)
        self.deviation = math.sqrt(max(0.0, (da * da * hbb - 2.0 * da * db * hab + db * db * haa) / det))

    def explore(self, cosine: float, delta: float) -> float:
        """With what probability to explore, so that at most `delta` of such requests get a wrong answer."""
        if len(self.labels) < _ENOUGH_LABELS or not math.isfinite(self.deviation):
            return 1.0
        least = 1.0
        for eps, quantile in _QUANTILES:
            right = (1.0 - eps) * _sigmoid(self.slope * (cosine - self.threshold - quantile * self.deviation))
            least = min(least, 1.0 - delta / (1.0 - right))
        return max(0.0, least)


class VCache:
    """See the module, and reuse.Policy. A fit costs some hundred microseconds with all of an entry's 50 labels.

    ValueError for a bound per hit, which it can't keep: a cache with few hits may serve mostly wrong ones.
    """

    entries: Literal["misses", "wrong"] = "wrong"

    def __init__(self, bound: Bound, *, mode: Mode = "observe", max_entries: int = 100_000) -> None:
        if bound.per != "request":
            raise ValueError('vCache bounds wrong answers per request: per = "request"')
        self.bound, self.mode, self.max_entries = bound, mode, max_entries
        self._curves: OrderedDict[tuple[RouteKey, str], _Curve] = OrderedDict()
        self._counts: OrderedDict[RouteKey, list[float]] = OrderedDict()  # labels, wrong ones, served

    def decide(self, route: RouteKey, candidate: Candidate, chance: float, *, may_audit: bool = True) -> Verdict:
        """See reuse.Policy. It explores instead of auditing, so `may_audit` changes nothing."""
        if self.mode == "off":
            return Verdict(Action.OBSERVE, "off")
        if not -1.0 <= candidate.cosine <= 1.001:
            return Verdict(Action.OBSERVE, "cosine is out of range")
        curve = self._curve(route, candidate.entry_key)
        explore = curve.explore(candidate.cosine, self.bound.max_wrong)
        wrong = 1.0 - _sigmoid(curve.intercept + curve.slope * candidate.cosine)
        if explore >= 1.0:
            return Verdict(Action.OBSERVE, f"{len(curve.labels) - len(_SEEDS)} labels: not sure enough", wrong=wrong)
        if chance < explore:
            action, reason = Action.EXPLORE, "exploring"
        elif self.mode == "observe":
            action, reason = Action.OBSERVE, "would serve"
        else:
            action, reason = Action.SERVE, "the entry's curve is sure enough"
            self._counts[route][2] += 1
        return Verdict(action, reason, wrong=wrong, threshold=curve.threshold, label_chance=explore)

    def serves(self, route: RouteKey) -> bool:
        """See reuse.Policy."""
        return self.mode == "serve"

    def learn(self, route: RouteKey, candidate: Candidate, verdict: Verdict, label: Label) -> None:
        """See reuse.Policy. A label counts as right or wrong, whichever is likelier. The latest 50 are kept."""
        curve = self._curves.get((route, candidate.entry_key))
        if curve is None or self.mode == "off" or not -1.0 <= candidate.cosine <= 1.001:
            return
        right = float(label.outcome < 0.5)
        curve.labels.append((candidate.cosine, right))
        if len(curve.labels) > _KEPT_LABELS:
            del curve.labels[len(_SEEDS)]
        if len(curve.labels) >= _ENOUGH_LABELS:  # before, no fit decides anything
            curve.fit()
        counts = self._counts.setdefault(route, [0.0, 0.0, 0.0])
        counts[0] += 1
        counts[1] += 1.0 - right

    def forget(self, route: RouteKey) -> None:
        """See reuse.Policy."""
        self._counts.pop(route, None)
        for key in [key for key in self._curves if key[0] == route]:
            del self._curves[key]

    @property
    def count(self) -> int:
        """See reuse.Policy."""
        return len(self._counts)

    def state(self, most: int | None = None) -> list[RouteState]:
        """See reuse.Policy. There is no threshold and no bound of a route's own."""
        return [self._state(route, *counts) for route, counts in islice(reversed(self._counts.items()), most)]

    def state_of(self, route: RouteKey) -> RouteState | None:
        """See reuse.Policy."""
        return self._state(route, *self._counts[route]) if route in self._counts else None

    def _state(self, route: RouteKey, labels: float, wrong: float, served: float) -> RouteState:
        why, serving = "a curve per entry", self.mode == "serve"
        return RouteState(
            route, serving, "unproven", None, None, labels, wrong, None, 0, int(served), 0.0, why,
            own_labels=labels, own_wrong=wrong,
        )  # fmt: skip

    def dump_slices(self) -> Iterator[Slice]:
        """See reuse.Policy. Entries in the order of their last use."""
        yield from (("version", 1), ("policy", "vcache"), ("entries", []), ("counts", []))
        for part in slices(list(self._curves)):
            known = [(route, key, self._curves[route, key]) for route, key in part if (route, key) in self._curves]
            yield "entries", [[*route, key, [list(one) for one in c.labels[2:]]] for route, key, c in known]
        for routes in slices(list(self._counts)):
            yield "counts", [[*route, *self._counts[route]] for route in routes if route in self._counts]

    def dump(self) -> dict[str, Any]:
        """See reuse.Policy."""
        return whole(self.dump_slices())

    def load(self, dumped: dict[str, Any]) -> None:
        """See reuse.Policy. Curves are fitted anew."""
        curves: OrderedDict[tuple[RouteKey, str], _Curve] = OrderedDict()
        counts: OrderedDict[RouteKey, list[float]] = OrderedDict()
        try:
            if dumped["version"] != 1 or dumped["policy"] != "vcache":
                raise ValueError("another version")
            for tenant, name, labels, wrong, served in dumped["counts"]:
                counts[RouteKey(str(tenant), str(name))] = [float(labels), float(wrong), float(served)]
            for tenant, name, key, labels in dumped["entries"]:
                curve = _Curve([*_SEEDS, *((float(cosine), float(right)) for cosine, right in labels)])
                if not all(-1.0 <= cosine <= 1.001 and right in (0.0, 1.0) for cosine, right in curve.labels):
                    raise ValueError("labels out of range")
                if len(curve.labels) > len(_SEEDS):
                    curve.fit()
                route = RouteKey(str(tenant), str(name))
                curves[route, str(key)] = curve
                counts.setdefault(route, [0.0, 0.0, 0.0])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not this policy's state: {error}") from error
        self._curves, self._counts = curves, counts

    def _curve(self, route: RouteKey, key: str) -> _Curve:
        place = route, key
        curve = self._curves.get(place)
        if curve is None:
            curve = self._curves[place] = _Curve()
        self._curves.move_to_end(place)
        if route not in self._counts:
            self._counts[route] = [0.0, 0.0, 0.0]
        self._counts.move_to_end(route)
        if len(self._curves) > self.max_entries:
            self._curves.popitem(last=False)
        if len(self._counts) > self.max_entries:
            self._counts.popitem(last=False)
        return curve


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else 1.0 - 1.0 / (1.0 + math.exp(min(x, 700.0)))
