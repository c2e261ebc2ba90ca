"""Rows as spans and measurements of OpenTelemetry's SDK, and the two exporters. Needs the extra `otlp`.

Rules of this file: it is imported only where telemetry is on; metrics are cumulative, so that a call which fails loses
none of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from requests import Session

from farthing.proxy.clock import Randomness
from farthing.proxy.config_otlp import Otlp as Settings
from farthing.proxy.otlp_measure import Measures
from farthing.proxy.otlp_names import EDITIONS, Target, attributes_of, error_of, is_billed, span_name
from farthing.proxy.row import Row
from farthing.proxy.traces import Parent
from farthing.proxy.version import version

if TYPE_CHECKING:
    from farthing.proxy.otlp_content import Value

__all__ = ["Sdk", "Sent"]

# What a collector says of the very batch rather than of itself, the way to it or the key: another try is in vain.
_REFUSES = frozenset({400, 406, 409, 411, 413, 414, 415, 422, 431})


class Sent(StrEnum):
    """What came of a call. AWAY: worth trying again. REFUSED: this batch will never be taken."""

    OK = "ok"
    AWAY = "away"
    REFUSED = "refused"


class Sdk:
    """Builds and sends. `measure` belongs to one thread, all else to another. Effects: calls to the endpoint."""

    def __init__(self, settings: Settings, randomness: Randomness) -> None:
        self._edition = EDITIONS[settings.conventions]
        resource = Resource(
            {
                "service.name": "farthing",
                "service.version": version(),
                "service.instance.id": randomness.token(16),
                "telemetry.sdk.name": "opentelemetry",
                "telemetry.sdk.language": "python",
                **settings.attributes,
            }
        )
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._status = 0
        self._spans = OTLPSpanExporter(
            f"{settings.endpoint}/v1/traces",
            headers=headers,
            timeout=settings.timeout_s,
            compression=Compression.Gzip,
            session=self._session(),
        )
        self._metrics = _Told(
            f"{settings.endpoint}/v1/metrics",
            headers=headers,
            timeout=settings.timeout_s,
            compression=Compression.Gzip,
            session=self._session(),
        )
        self._ended = _Ended()
        tracers = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),  # a client that doesn't record its trace wants no part of it recorded
            resource=resource,
            shutdown_on_exit=False,
            id_generator=_Ids(random.Random(int(randomness.token(16), 16))),
        )
        tracers.add_span_processor(self._ended)
        self._tracer = tracers.get_tracer("farthing", version(), self._edition.schema_url or None)
        self._reader = PeriodicExportingMetricReader(self._metrics, export_interval_millis=math.inf)
        self._meters = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        meter = self._meters.get_meter("farthing", version(), self._edition.schema_url or None)
        self._measures = Measures(meter, self._edition)

    def measure(self, rows: Sequence[Row], target: Target) -> None:
        """Add rows to the metrics."""
        self._measures.add(rows, target)

    def send_spans(self, rows: Sequence[tuple[Row, Parent | None, Mapping[str, Value]]], target: Target) -> Sent:
        """Send rows as spans; those whose client doesn't record its trace are left out. Blocks.

        With each row its client's span, and further attributes.
        """
        for row, parent, more in rows:
            self._span(row, parent, more, target)
        spans = self._ended.taken()
        self._status = 0
        if not spans or self._spans.export(spans) is SpanExportResult.SUCCESS:
            return Sent.OK
        return self._failed()

    def send_metrics(self) -> Sent:
        """Send all metrics as they stand. Blocks."""
        self._status, self._metrics.worked = 0, True
        self._reader.collect()
        return Sent.OK if self._metrics.worked else self._failed()

    def stop(self) -> None:
        """Send nothing more; a call that waits for its next try ends. Any thread."""
        self._spans.shutdown()  # type: ignore[no-untyped-call]
        self._metrics.shutdown()

    def _span(self, row: Row, parent: Parent | None, more: Mapping[str, Value], target: Target) -> None:
        begun_ns = int(row.ts * 1e9)
        context = None
        if parent is not None:
            trace_id, span_id, flags = parent
            above = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
            context = trace.set_span_in_context(NonRecordingSpan(above))
        span = self._tracer.start_span(
            span_name(row),
            context,
            kind=SpanKind.CLIENT if is_billed(row) else SpanKind.INTERNAL,
            attributes={**attributes_of(row, target, self._edition), **more},
            start_time=begun_ns,
        )
        if error_of(row):
            span.set_status(trace.StatusCode.ERROR)
        span.end(begun_ns + int(row.latency_ms * 1e6))

    def _session(self) -> Session:
        """A session that leaves the status of its last answer behind: the exporters don't tell it."""
        session = Session()

        def note(response: Any, *_: Any, **__: Any) -> None:
            self._status = response.status_code

        session.hooks["response"].append(note)
        return session

    def _failed(self) -> Sent:
        return Sent.REFUSED if self._status in _REFUSES else Sent.AWAY


class _Told(OTLPMetricExporter):
    """Remembers whether the last call worked, which the reader that makes it keeps to itself."""

    worked = True

    def export(self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any) -> Any:
        result = super().export(metrics_data, timeout_millis, **kwargs)
        self.worked = result is MetricExportResult.SUCCESS
        return result


class _Ended(SpanProcessor):
    """Gathers spans that have ended."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def taken(self) -> list[ReadableSpan]:
        """Those since the last time."""
        spans, self._spans = self._spans, []
        return spans


class _Ids(IdGenerator):
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def generate_span_id(self) -> int:
        return self._chance.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self._chance.getrandbits(128) or 1
