"""An OpenTelemetry collector as far as tests need one: a real OTLP/HTTP server that decodes what it is sent."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Collector", "Point", "Span", "collector"]


@dataclass
class Span:
    """A span as it came."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    begun_ns: int
    ended_ns: int
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Point:
    """One metric's latest value for one set of attributes: a number, or a histogram's sum, count and bounds."""

    value: float
    unit: str
    count: int = 0
    bounds: tuple[float, ...] = ()


@dataclass
class Collector:
    """`status`: what it answers. `metrics`: by name and attributes; the latest, since they are cumulative."""

    url: str = ""
    port: int = 0
    status: int = 200
    calls: int = 0
    hang: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    schema_url: str = ""
    spans: list[Span] = field(default_factory=list)
    metrics: dict[tuple[str, frozenset[tuple[str, Any]]], Point] = field(default_factory=dict)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.ServerRunner | None = None

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.calls += 1
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        body = await request.read()
        if self.hang:
            await self._stopped.wait()
        if self.status == 200:
            # aiohttp's plain server leaves the encoding to us.
            plain = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
            (self._take_spans if request.path == "/v1/traces" else self._take_metrics)(plain)
        return web.Response(status=self.status, headers={"Content-Type": "application/x-protobuf"})

    def total(self, name: str, **asked: str) -> float:
        """The sum over all sets of attributes in which a name that ends so has that value."""
        return sum(
            point.value
            for (found, labels), point in self.metrics.items()
            if found == name
            and all(any(key.endswith(end) and held == of for key, held in labels) for end, of in asked.items())
        )

    async def until(self, there: Callable[[Collector], bool]) -> None:
        """Wait, for ten seconds at most."""
        for _ in range(500):
            if there(self):
                return
            await asyncio.sleep(0.02)
        known = sorted({name for name, _ in self.metrics})
        raise AssertionError(f"{self.calls} calls, {len(self.spans)} spans, metrics {known}")

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self.handle), handle_signals=False, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self._stopped.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _take_spans(self, body: bytes) -> None:
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = _plain(part.resource.attributes)
            for scope in part.scope_spans:
                self.schema_url = scope.schema_url
                self.spans += [
                    Span(
                        span.name,
                        span.kind,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        span.status.code == 2,
                        _plain(span.attributes),
                    )
                    for span in scope.spans
                ]

    def _take_metrics(self, body: bytes) -> None:
        for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in part.scope_metrics:
                for metric in scope.metrics:
                    held = getattr(metric, metric.WhichOneof("data"))
                    assert held.aggregation_temporality == 2, "cumulative"
                    for point in held.data_points:
                        key = metric.name, frozenset(_plain(point.attributes).items())
                        if metric.WhichOneof("data") == "histogram":
                            bounds = tuple(point.explicit_bounds)
                            self.metrics[key] = Point(point.sum, metric.unit, point.count, bounds)
                        else:
                            self.metrics[key] = Point(point.as_double or point.as_int, metric.unit)


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(held: Any) -> Any:
    value = getattr(held, held.WhichOneof("value"))
    return [_value(one) for one in value.values] if held.HasField("array_value") else value


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """One that listens."""
    one = Collector()
    await one.start()
    try:
        yield one
    finally:
        await one.stop()
