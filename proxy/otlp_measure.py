"""The metrics that go over OTLP: instruments and what a batch of rows adds to them. Needs the extra `otlp`."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.metrics import Counter, Histogram, Meter

from farthing.proxy.metrics import Names
from farthing.proxy.otlp_names import (
    CAUSES,
    DURATION_BUCKETS_S,
    TOKEN_BUCKETS,
    Edition,
    Target,
    error_of,
    is_billed,
    operation_of,
    provider_of,
)
from farthing.proxy.row import ERRANDS, Row

__all__ = ["Measures"]

Attributes = dict[str, str | int]

_MAX_NAMES = 50
_DOLLAR_PICO = 1e12

_USAGE = {
    "gen_ai.client.inference.usage.input_tokens": "tokens_in_sent",
    "gen_ai.client.inference.usage.output_tokens": "tokens_out",
    "gen_ai.client.inference.usage.cache_read.input_tokens": "tokens_in_cached",
    "gen_ai.client.inference.usage.cache_write.input_tokens": "tokens_in_cache_write",
    "gen_ai.client.inference.usage.reasoning.output_tokens": "tokens_reasoning",
}
_MONEY = {
    "farthing.cost": ("cost_usd", "What upstreams charged."),
    "farthing.baseline": ("baseline_usd", "What it would have cost, of requests of known price."),
    "farthing.overhead": ("overhead_usd", "Farthing's own spending."),
}


class _Kind(NamedTuple):
    """What rows must have in common to have one set of attributes."""

    operation: str
    provider: str
    model: str
    served: str


class Measures:
    """Counts rows. One thread. At most 51 names of models each, so that attributes stay few."""

    def __init__(self, meter: Meter, edition: Edition) -> None:
        self._asked, self._served = Names(_MAX_NAMES), Names(_MAX_NAMES)
        seconds, tokens = list(DURATION_BUCKETS_S), list(TOKEN_BUCKETS)

        def histogram(name: str, unit: str, meaning: str, bounds: list[float]) -> Histogram:
            return meter.create_histogram(name, unit, meaning, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram(edition.duration, "s", "GenAI operation duration.", seconds)
        self._first_chunk = histogram(edition.first_chunk, "s", "Time to the first chunk of a stream.", seconds)
        self._sizes: dict[str, tuple[Histogram, Attributes]]
        self._usage: dict[str, Counter] = {}
        if edition.token_usage:
            both = histogram(edition.token_usage, "{token}", "Number of input and output tokens used.", [*tokens])
            self._sizes = {
                "tokens_in_sent": (both, {"gen_ai.token.type": "input"}),
                "tokens_out": (both, {"gen_ai.token.type": "output"}),
            }
        else:
            name = "gen_ai.client.inference.operation.{}_tokens"
            self._sizes = {
                column: (histogram(name.format(way), "{token}", f"Number of {way} tokens of one.", [*tokens]), {})
                for column, way in (("tokens_in_sent", "input"), ("tokens_out", "output"))
            }
            self._usage = {column: meter.create_counter(name, "{token}") for name, column in _USAGE.items()}
        self._own = histogram("farthing.overhead.duration", "s", "Farthing's own part of the time.", seconds)
        self._money = {column: meter.create_counter(name, "{USD}", told) for name, (column, told) in _MONEY.items()}
        # It may fall: what an optimisation costs more than it saves is a negative saving.
        self._saved = meter.create_up_down_counter("farthing.saved", "{USD}", "Savings by cause.")

    def add(self, rows: Sequence[Row], target: Target) -> None:
        """Add a batch of rows."""
        counts: Tally[tuple[_Kind, str]] = Tally()
        money: Tally[tuple[str, str]] = Tally()
        where: Attributes = {"server.address": target.address, "server.port": target.port}
        for row in rows:
            model = self._asked.bounded(row.model_requested)
            operation = operation_of(row)
            if operation:
                kind = _Kind(operation, provider_of(row, target), model, self._served.bounded(row.model_served))
                self._measure(row, kind, where, counts)
            if row.endpoint not in ERRANDS:
                self._own.record(row.overhead_ms / 1000, {"farthing.cache": row.cache})
            for column in self._money:
                if column != "baseline_usd" or row.cost_usd is not None:
                    money[column, model] += getattr(row, column) or 0
            if row.baseline_usd is not None and row.cost_usd is not None:
                for cause, column in CAUSES.items():
                    money[cause, model] += getattr(row, column) or 0
        for (kind, column), count in counts.items():
            self._usage[column].add(count, _named(kind, where) | {"gen_ai.token.modality": "unknown"})
        for (of, model), pico in money.items():
            if of in self._money:
                self._money[of].add(pico / _DOLLAR_PICO, {"gen_ai.request.model": model})
            elif pico:
                self._saved.add(pico / _DOLLAR_PICO, {"gen_ai.request.model": model, "farthing.cause": of})

    def _measure(self, row: Row, kind: _Kind, where: Attributes, counts: Tally[tuple[_Kind, str]]) -> None:
        """What the conventions ask for of one row. Tokens only of what an upstream billed."""
        named = _named(kind, where)
        error = error_of(row)
        told: Attributes = {"farthing.cache": row.cache}
        if error:
            told["error.type"] = error
        self._duration.record(row.latency_ms / 1000, named | told)
        if row.stream and row.ttft_ms is not None:
            self._first_chunk.record(row.ttft_ms / 1000, named | {"farthing.cache": row.cache})
        if not is_billed(row):
            return
        for column, (histogram, way) in self._sizes.items():
            count = getattr(row, column)
            if count is not None:
                histogram.record(count, named | way)
        for column in self._usage:
            counts[kind, column] += getattr(row, column) or 0


def _named(kind: _Kind, where: Attributes) -> Attributes:
    said: Attributes = {"gen_ai.operation.name": kind.operation, "gen_ai.provider.name": kind.provider}
    if kind.model != "none":
        said["gen_ai.request.model"] = kind.model
    if kind.served != "none":
        said["gen_ai.response.model"] = kind.served
    return said | where
