"""A Prometheus histogram that counts a batch cheaply: one bisection for each value, no locks, no label look-ups."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["BatchHistogram"]


class BatchHistogram(Collector):
    """`label`: the one label's name, '' for none. `bounds_s`: upper bounds in seconds, ascending, without +Inf.

    Written by one thread; a scrape in another may see a batch half counted, never a count that falls.
    """

    def __init__(
        self, name: str, meaning: str, label: str, bounds_s: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._meaning = meaning
        self._label = label
        self._bounds = tuple(bounds_s)
        self._counts: dict[str, list[int]] = {} if label else {"": [0] * (len(bounds_s) + 1)}
        self._sums: dict[str, float] = {} if label else {"": 0.0}
        registry.register(self)

    def observe(self, value_s: float, label: str = "") -> None:
        """Count one value."""
        counts = self._counts.get(label)
        if counts is None:
            counts = self._counts[label] = [0] * (len(self._bounds) + 1)
            self._sums[label] = 0.0
        counts[bisect_left(self._bounds, value_s)] += 1
        self._sums[label] += value_s

    def describe(self) -> Iterable[Metric]:
        """Its name, so that no other may take it."""
        return [HistogramMetricFamily(self._name, self._meaning, labels=[self._label] if self._label else None)]

    def collect(self) -> Iterator[Metric]:
        """The family, cumulative as Prometheus wants it."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=[self._label] if self._label else [])
        for label, counts in list(self._counts.items()):
            buckets, running = [], 0
            for bound, count in zip((*self._bounds, float("inf")), list(counts), strict=True):
                running += count
                buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), running))
            family.add_metric([label] if self._label else [], buckets, self._sums[label])
        yield family
