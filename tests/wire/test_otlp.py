"""Spans and metrics of real requests at a real OTLP receiver: they add up to the ledger, and nobody waits for them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from farthing.proxy.row import MONEY_COLUMNS
from tests.fakes.collector import Collector, Span, collector
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream

SOON = {"otlp__every_s": 0.05, "otlp__metrics_every_s": 0.1, "otlp__timeout_s": 1.0}


@pytest.fixture
async def held() -> AsyncIterator[Collector]:
    async with collector() as one:
        yield one


def named(spans: list[Span], name: str) -> list[Any]:
    return [span.attributes[name] for span in spans if name in span.attributes]


async def some_of_everything(proxy: Proxied, up: ScriptedUpstream) -> int:
    """Misses, hits, a stream, a failure, an embedding, a path that isn't understood, an unknown price: how many."""
    up.script(Script(), Script(), Script(status=400))
    await proxy.post(chat("one"), x_farthing_tags="team=search", x_farthing_user="ada")
    await proxy.post(chat("two", stream=True))
    await proxy.post(chat("three"))
    for _ in range(3):
        await proxy.post(chat("one"))
    await proxy.post({"model": "m", "input": "to embed"}, "/v1/embeddings")
    await proxy.post({"model": "m", "prompt": "complete"}, "/v1/completions")
    await proxy.post(chat("four", model="nobody-knows-my-price"))
    await proxy.client.get("/v1/models")
    return 10


@pytest.mark.parametrize("edition", ["1.41", "next"])
async def test_the_sums_over_spans_and_over_metrics_are_the_ledgers(
    up: ScriptedUpstream, held: Collector, tmp_path: Path, edition: str
) -> None:
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, otlp__conventions=edition, **SOON) as proxy:
        count = await some_of_everything(proxy, up)
        rows = await proxy.rows(count)
        await held.until(lambda one: len(one.spans) == count)
        await held.until(lambda one: abs(one.total("farthing.baseline") - baseline(rows)) < 1e-12)
    assert len(rows) == count == len(held.spans)
    assert sorted(named(held.spans, "farthing.id")) == sorted(row["id"] for row in rows)
    for column in MONEY_COLUMNS:
        name = f"farthing.{column.removesuffix('_usd').replace('saved_', 'saved.')}.usd"
        assert sum(round(usd * 1e12) for usd in named(held.spans, name)) == sum(row[column] or 0 for row in rows)
    billed = [row for row in rows if row["cache"] in ("miss", "bypass")]
    tokens = {
        way: sum(row[column] or 0 for row in billed)
        for way, column in (("input", "tokens_in_sent"), ("output", "tokens_out"))
    }
    for way, total in tokens.items():
        assert total > 0
        assert sum(named(held.spans, f"gen_ai.usage.{way}_tokens")) == total
        if edition == "1.41":
            assert held.total("gen_ai.client.token.usage", type=way) == total
        else:
            assert held.total(f"gen_ai.client.inference.usage.{way}_tokens") == total
            assert held.total(f"gen_ai.client.inference.operation.{way}_tokens") == total
    assert held.total("farthing.cost") == pytest.approx(sum(row["cost_usd"] or 0 for row in rows) / 1e12)
    assert held.total("farthing.saved", cause="exact") == pytest.approx(
        sum(row["saved_exact_usd"] or 0 for row in rows) / 1e12
    )
    duration = "gen_ai.client.operation.duration" if edition == "1.41" else "gen_ai.client.inference.duration"
    points = [point for (name, _), point in held.metrics.items() if name == duration]
    assert sum(point.count for point in points) == count - 1  # all but /v1/models
    assert points[0].bounds[:3] == (0.01, 0.02, 0.04) and points[0].unit == "s"


def baseline(rows: list[dict[str, Any]]) -> float:
    return sum(row["baseline_usd"] for row in rows if None not in (row["baseline_usd"], row["cost_usd"])) / 1e12


async def test_a_span_is_named_and_described_as_the_conventions_say(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    secret = {"x-api-key": "collector-key"}
    resource = {"deployment.environment.name": "test", "service.name": "gateway"}
    more: dict[str, Any] = {"otlp__headers": secret, "otlp__attributes": resource}
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **more, **SOON) as proxy:
        await some_of_everything(proxy, up)
        rows = {row["id"]: row for row in await proxy.rows(10)}
        await held.until(lambda one: len(one.spans) == 10)
    by_name: dict[str, list[Span]] = {}
    for span in held.spans:
        by_name.setdefault(span.name, []).append(span)
        row = rows[span.attributes["farthing.id"]]
        assert span.begun_ns == pytest.approx(row["ts"] * 1e9, abs=1000)
        assert span.ended_ns - span.begun_ns == pytest.approx(row["latency_ms"] * 1e6, abs=1)
    assert {name: len(spans) for name, spans in by_name.items()} == {
        "chat m": 6, "embeddings m": 1, "text_completion m": 1, "chat nobody-knows-my-price": 1, "other": 1,
    }  # fmt: skip
    first, hit = by_name["chat m"][0], next(s for s in held.spans if s.attributes["farthing.cache"] == "hit-exact")
    port = int(up.url.rsplit(":", 1)[1].partition("/")[0])
    assert first.attributes | {"server.port": port, "gen_ai.provider.name": "openai"} == first.attributes
    assert first.attributes["gen_ai.operation.name"] == "chat"
    assert first.attributes["gen_ai.request.model"] == first.attributes["gen_ai.response.model"] == "m"
    assert first.attributes["farthing.tag.team"] == "search" and first.attributes["farthing.user"] == "ada"
    assert (first.kind, hit.kind) == (3, 1)  # CLIENT, INTERNAL
    assert "gen_ai.usage.input_tokens" not in hit.attributes  # nobody billed them
    assert hit.attributes["farthing.tokens.out"] == first.attributes["gen_ai.usage.output_tokens"]
    failed = next(span for span in held.spans if span.failed)
    assert failed.attributes["error.type"] == "400"
    streamed = next(span for span in held.spans if "gen_ai.request.stream" in span.attributes)
    assert streamed.attributes["gen_ai.response.time_to_first_chunk"] > 0
    unpriced = by_name["chat nobody-knows-my-price"][0]
    assert "farthing.cost.usd" not in unpriced.attributes
    assert not any("word" in str(value) or value == "one" for value in first.attributes.values())  # no text
    assert held.resource["service.name"] == "gateway" and held.resource["deployment.environment.name"] == "test"
    assert held.headers["x-api-key"] == "collector-key"
    assert held.schema_url == "https://opentelemetry.io/schemas/1.41.0"


async def test_a_clients_trace_goes_on_through_farthing_and_reaches_the_upstream_as_it_came(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **SOON) as proxy:
        header = f"00-{trace}-{parent}-01"
        await proxy.post(chat("one"), traceparent=header, tracestate="a=b")
        for _ in range(2):  # the second hit takes the short way
            await proxy.post(chat("one"), traceparent=header)
        await proxy.post(chat("two"), traceparent=f"00-{trace}-{parent}-00")  # its client doesn't record it
        await proxy.post(chat("three"), traceparent="00-nonsense")
        await proxy.rows(5)
        await held.until(lambda one: len(one.spans) == 4)
    assert up.calls[0].headers["traceparent"] == header and up.calls[0].headers["tracestate"] == "a=b"
    assert [(span.trace_id, span.parent_id) for span in held.spans[:3]] == [(trace, parent)] * 3
    assert held.spans[3].parent_id == "" and held.spans[3].trace_id != trace
    assert len({span.span_id for span in held.spans}) == 4


async def test_a_collector_that_dies_and_returns_misses_nothing_and_is_told_of_once(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    with capture_logs() as logged:
        async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **SOON) as proxy:
            await proxy.post(chat("before"))
            await held.until(lambda one: len(one.spans) == 1)
            await held.stop()
            for i in range(5):
                assert (await proxy.post(chat(f"while {i}"))).status_code == 200
            otlp = proxy.services.state.otlp
            assert otlp is not None
            failing = [{"event": "otlp_failing", "what": what} for what in ("spans", "metrics")]
            for _ in range(300):
                if all(any(line | one == line for line in logged) for one in failing):
                    break
                await asyncio.sleep(0.02)
            seen = (await proxy.client.get("/metrics")).text
            assert "farthing_otlp_healthy 0.0" in seen
            await held.start()
            await held.until(lambda one: len(one.spans) == 6)
            await held.until(lambda one: one.total("farthing.cost") > 0)
            for _ in range(300):
                if otlp.healthy:
                    break
                await asyncio.sleep(0.02)
            assert (otlp.healthy, otlp.dropped, otlp.pending) == (True, 0, 0)
    told = sorted((line["event"], line["what"]) for line in logged if line["event"].startswith("otlp_"))
    assert told == [(event, what) for event in ("otlp_failing", "otlp_recovered") for what in ("metrics", "spans")]


async def test_what_no_longer_fits_is_dropped_oldest_first_and_counted(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    held.status = 503
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, otlp__queue_rows=3, **SOON) as proxy:
        for i in range(8):
            await proxy.post(chat(f"number {i}"))
        rows = await proxy.rows(8)
        otlp = proxy.services.state.otlp
        assert otlp is not None
        for _ in range(300):
            if (otlp.dropped, otlp.pending) == (5, 3):
                break
            await asyncio.sleep(0.02)
        assert (otlp.dropped, otlp.pending) == (5, 3)
        assert "farthing_otlp_dropped_total 5.0" in (await proxy.client.get("/metrics")).text
        held.status = 200
        await held.until(lambda one: len(one.spans) == 3)
    assert sorted(named(held.spans, "farthing.id")) == sorted(row["id"] for row in rows[-3:])


async def test_a_batch_that_the_collector_refuses_is_given_up_so_that_the_next_can_be_sent(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    held.status = 400
    settings: dict[str, Any] = {**SOON, "otlp__metrics": False}
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **settings) as proxy:
        await proxy.post(chat("refused"))
        otlp = proxy.services.state.otlp
        assert otlp is not None
        for _ in range(300):
            if otlp.dropped:
                break
            await asyncio.sleep(0.02)
        held.status = 200
        await proxy.post(chat("taken"))
        await held.until(lambda one: len(one.spans) == 1)
        assert otlp.dropped == 1
    assert held.metrics == {}


@pytest.mark.long
async def test_the_end_sends_what_waits_and_does_not_hang_on_a_collector_that_does(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    late = {"otlp__every_s": 600, "otlp__metrics_every_s": 600}
    async with proxied(up.url, tmp_path / "a", otlp__endpoint=held.url, **late) as proxy:
        await proxy.post(chat("one"))
    assert len(held.spans) == 1 and held.total("farthing.cost") > 0
    held.hang = True
    async with proxied(up.url, tmp_path / "b", otlp__endpoint=held.url, **late) as proxy:
        await proxy.post(chat("two"))
        otlp = proxy.services.state.otlp
        assert otlp is not None
        loop = asyncio.get_running_loop()
        begun = loop.time()
    assert loop.time() - begun < 10  # three seconds, on a machine with nothing else to do
    assert len(held.spans) == 1


async def test_a_sender_that_is_killed_is_started_anew_and_what_it_had_not_sent_is_counted(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    held.status = 503
    with capture_logs() as logged:
        async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **SOON) as proxy:
            otlp = proxy.services.state.otlp
            assert otlp is not None
            await proxy.post(chat("lost"))
            await proxy.rows(1)
            for _ in range(300):
                if not otlp.healthy and otlp.pending == 1:
                    break
                await asyncio.sleep(0.02)
            first = otlp.process_id
            os.kill(first, signal.SIGKILL)
            held.status = 200
            for _ in range(300):  # what is in the pipe of one that is dying is lost, and counted
                if otlp.process_id != first:
                    break
                await asyncio.sleep(0.02)
            assert (await proxy.post(chat("kept"))).status_code == 200
            await held.until(lambda one: len(one.spans) == 1)
            await held.until(lambda one: one.total("farthing.cost") > 0)
            assert otlp.process_id != first
            for _ in range(300):
                if otlp.healthy:
                    break
                await asyncio.sleep(0.02)
            assert (otlp.healthy, otlp.dropped, otlp.pending) == (True, 1, 0)
            rows = await proxy.rows(2)
            second = otlp.process_id
    assert named(held.spans, "farthing.id") == [rows[1]["id"]]
    assert [line["exit_status"] for line in logged if line["event"] == "otlp_sender_died"] == [-signal.SIGKILL]
    assert not Path(f"/proc/{second}").exists()


async def test_a_sender_that_reads_nothing_holds_up_no_request_and_not_the_end(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **SOON) as proxy:
        otlp = proxy.services.state.otlp
        assert otlp is not None
        os.kill(otlp.process_id, signal.SIGSTOP)
        for number in range(200):
            assert (await proxy.post(chat(f"{number % 3} {'long ' * 50}"))).status_code == 200
        await proxy.rows(200)
        stopped = otlp.process_id
    assert not Path(f"/proc/{stopped}").exists()
    assert otlp.dropped == 200


async def test_a_reload_changes_whom_spans_name(up: ScriptedUpstream, held: Collector, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **SOON) as proxy:
        await proxy.post(chat("one"))
        await held.until(lambda one: len(one.spans) == 1)
        config = proxy.services.config
        upstream = config.upstream.model_copy(update={"provider": "x-ai"})
        otlp = config.otlp.model_copy(update={"endpoint": "http://127.0.0.1:1"})
        kept = await proxy.running.reload(config.model_copy(update={"upstream": upstream, "otlp": otlp}))
        assert kept == ("otlp",)
        await proxy.post(chat("two"))
        await held.until(lambda one: len(one.spans) == 2)
    assert named(held.spans, "gen_ai.provider.name") == ["openai", "x_ai"]


async def test_while_it_is_off_there_is_no_thread_no_library_and_no_gauge(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await proxy.post(chat("one"))
        assert proxy.services.state.otlp is None
        assert not any(thread.name == "otlp" for thread in threading.enumerate())
        assert "farthing_otlp" not in (await proxy.client.get("/metrics")).text
