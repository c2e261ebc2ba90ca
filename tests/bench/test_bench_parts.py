"""The benchmark's own parts: a figure is worth what the ruler is worth."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import RawTestServer, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import litellm
from bench import report as reports
from bench.baselines import hit_app, low_server, pass_app
from bench.hot import cell, cost_us, ratio
from bench.http1 import Framer, Part, status_of
from bench.load import Window, chat_body, closed_loop, http_request, lua, percentile
from bench.machine import Stat, cpu_s, parse_stat, rss_bytes, settle
from bench.peer_runs import against
from bench.report import Report, Target, markdown, replace_section, save
from bench.run import DOCUMENT, EXPERIMENTS, QUICK, document_of, main, parser
from bench.servers import ROOT, DidNotStart, free_port, get, started
from bench.streams import mixed, until
from bench.upstream import StaticAnswer, answer, events, nginx_conf
from tests.fakes.examples import examples

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
    b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
)


def cut(whole: bytes, places: list[int]) -> Iterator[bytes]:
    """`whole` in pieces, cut at the places."""
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return (whole[a:b] for a, b in pairwise(edges))


@given(st.lists(st.integers(0, 10_000), max_size=12))
@settings(max_examples=examples(60), deadline=None)
def test_framing_does_not_depend_on_how_the_bytes_arrive(places: list[int]) -> None:
    framer = Framer()
    messages: list[tuple[int, bytes]] = []
    body = b""
    for piece in cut(ANSWERS, places):
        for part, content in framer.feed(piece):
            if part is Part.HEAD:
                status, body = status_of(content), b""
            elif part is Part.BODY:
                body += content
            else:
                messages.append((status, body))

    assert messages == [(200, b"hello"), (204, b""), (429, b"abc0123456789")]


def test_an_answer_without_a_length_is_refused_and_a_request_without_a_body_is_not() -> None:
    assert Framer().feed(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")[-1] == (Part.DONE, b"")
    with pytest.raises(ValueError, match="ends with its connection"):
        Framer().feed(b"HTTP/1.1 200 OK\r\n\r\n")


def test_stat_is_read_past_a_name_that_tries_to_confuse() -> None:
    text = "4 (a) b) (R 9) S 77 4 4 0 -1 0 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7"

    assert parse_stat(text) == Stat(parent=77, ticks=100 + 20 + 3 + 4)


def test_processor_time_counts_children_too() -> None:
    burn = "import time; e = time.process_time() + 0.3\nwhile time.process_time() < e: pass"
    code = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used_s = cpu_s(child.pid)
        resident = rss_bytes(child.pid)
        child.communicate(b"\n")

    assert 0.29 <= used_s < 1.5
    assert 2 * 2**20 < resident < 200 * 2**20


def test_settling_waits_for_work_that_was_put_off() -> None:
    code = "import time; print(flush=True); e = time.process_time() + 0.4\nwhile time.process_time() < e: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        used_s = settle(child.pid)
        child.communicate(b"\n")

    assert used_s >= 0.4


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.sampled_from([1, 50, 99, 100]))
@settings(max_examples=examples(60), deadline=None)
def test_percentile_is_the_nearest_rank(values: list[float], percent: int) -> None:
    found = percentile(values, percent)

    assert found in values
    assert sum(v <= found for v in values) >= len(values) * percent / 100
    assert sum(v < found for v in values) < len(values) * percent / 100


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_bodies_have_the_size_that_the_page_says_and_differ_only_in_their_number() -> None:
    one, other = chat_body("000000000001"), chat_body("000000000002")

    assert 2_100 <= len(one) == len(other) <= 2_400
    assert sum(a != b for a, b in zip(one, other, strict=True)) == 1
    assert len(json.loads(one)["messages"]) == 10
    assert json.loads(chat_body("x" * 12, stream=True))["stream_options"] == {"include_usage": True}
    assert 600 <= len(answer(1)) <= 800


def test_the_script_for_wrk_makes_a_whole_request() -> None:
    unique, repeated = lua("00ff", 0), lua("00ff", 64)

    assert '"00ff%08d", counter)' in unique
    assert '"00ff%08d", counter % 64)' in repeated
    quoted = unique.splitlines()[1].removeprefix("local head, tail, counter = ").removesuffix(", 0")
    head, tail = json.loads(f"[{quoted}]")
    assert f"{head}{'x' * 12}{tail}".encode() == http_request(chat_body("x" * 12))


def a_window(server: str, cpu_us: float, concurrency: int = 1, from_s: float = 0.0) -> Window:
    return Window(server, concurrency, 100, 0, 1.0, 1.0, 2.0, from_s, from_s + cpu_us * 100 / 1e6)


def test_what_was_put_off_is_on_every_requests_bill() -> None:
    windows = [
        a_window("a", 100, 1, 0.0),
        a_window("b", 50, 1, 0.0),
        a_window("a", 300, 16, 0.01 + 0.04),  # 0.04 s between the two: 200 microseconds for each of 200 requests
        a_window("b", 50, 1, 0.005),
    ]

    assert [round(w.cpu_us) for w in cell(windows, "a", 1)] == [100]
    assert cost_us(windows, "a", 1) == pytest.approx(300)
    assert cost_us(windows, "a", 16) == pytest.approx(500)
    assert cost_us(windows, "b", 1) == pytest.approx(50)
    assert ratio(windows, "a", "b", 1) == pytest.approx(6)


def test_what_other_threads_did_in_a_window_is_shared_with_the_other_concurrencies() -> None:
    alone = replace(a_window("a", 100), front_s=0.01)
    rolled_up = replace(a_window("a", 300, 16, 0.01), front_s=0.01)  # 0.02 s of it on behalf of both windows' rows

    assert cost_us([alone, rolled_up], "a", 1) == pytest.approx(200)
    assert cost_us([alone, rolled_up], "a", 16) == pytest.approx(200)


def test_the_peer_is_judged_where_it_does_best_and_only_where_it_was_measured() -> None:
    windows = [
        a_window("LiteLLM 1", 3000),
        a_window("farthing", 100),
        a_window("LiteLLM 1", 2000, 64, 0.3),
        a_window("farthing", 100, 64, 0.01),
    ]

    judged = against(windows, "miss", "LiteLLM", 25)

    assert judged.measured == "30 / 20 at 1 / 64"
    assert judged.passed is False
    assert against(windows, "miss", "LiteLLM", 20).passed is True
    assert against(windows, "miss", "CacheLLM", 10).passed is None


def a_report(passed: bool | None) -> Report:
    target = Target("a | b", "≤ 2", "3", passed)
    return Report("miss", "Title", ["path", "CPU"], [["x", "1"]], [target], ["a note"], [{"server": "x"}])


@pytest.mark.parametrize(("passed", "word"), [(True, "reached"), (False, "MISSED"), (None, "not measured")])
def test_a_report_says_whether_its_target_was_reached(passed: bool | None, word: str, tmp_path: Path) -> None:
    made = a_report(passed)
    text = markdown(made, {"system": "Linux"}, "python -m bench.run miss", "2026-01-01 00:00 UTC")

    assert made.missed is (passed is False)
    assert word in text
    assert "a \\| b" in text
    assert "python -m bench.run miss" in text
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 2  # two aligned tables
    kept = json.loads(save(made, tmp_path, {"system": "Linux"}, "cmd", "when").read_text("utf-8"))
    assert kept["windows"] == [{"server": "x"}]
    assert kept["targets"][0]["passed"] is passed


def test_a_report_is_shown_with_its_notes_whatever_they_contain() -> None:
    from rich.console import Console

    made = a_report(False)
    made.notes.append("[/bold] not markup")
    console = Console(width=100, record=True, file=io.StringIO())
    reports.show(made, console)

    text = console.export_text()
    assert "MISSED" in text
    assert "[/bold] not markup" in text


def test_only_the_section_of_the_experiment_is_replaced() -> None:
    document = "a\n<!-- bench:hit -->\nold\n<!-- /bench:hit -->\nb\n<!-- bench:miss -->\nkeep\n<!-- /bench:miss -->\n"

    replaced = replace_section(document, "hit", "new")

    assert replaced == document.replace("old", "new")
    assert replace_section(replaced, "hit", "new") == replaced
    with pytest.raises(ValueError, match="bench:stream"):
        replace_section(document, "stream", "new")


def test_the_page_has_a_section_for_every_experiment() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text("utf-8")

    for name in (*EXPERIMENTS, "targets", "profiles", "install", "replay"):
        assert replace_section(page, name, "x") != page


def test_a_server_that_ends_at_once_is_reported_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"import sys; print('no such thing in {ROOT}/bench'); sys.exit(3)"]

    with (
        pytest.raises(DidNotStart, match=r"ended with 3\nno such thing in bench"),
        started("it", command, free_port(), tmp_path, core=0),
    ):
        pass


def test_a_server_is_started_without_the_shells_settings_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARTHING_CACHE__MODE", "off")
    port = free_port()
    code = (
        "import http.server, os, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "        self.wfile.write(','.join(k for k in os.environ if 'FARTHING' in k).encode())\n"
        f"http.server.HTTPServer(('127.0.0.1', {port}), H).serve_forever()"
    )
    with started("it", [sys.executable, "-c", code], port, tmp_path, core=0, env={"FARTHING_X": "1"}) as running:
        assert get(f"http://127.0.0.1:{port}/status") == "FARTHING_X"
        pid = running.pid

    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)


@asynccontextmanager
async def an_upstream(seen: list[int], chunks: int, first_s: float, gap_s: float) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StaticAnswer(seen, chunks, first_s, gap_s), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def requests(count: int, stream: bool) -> Iterator[bytes]:
    return (http_request(chat_body(f"{number:012d}", stream)) for number in range(count))


async def test_the_client_measures_the_first_byte_and_the_whole_of_a_stream() -> None:
    seen = [0]
    async with an_upstream(seen, chunks=4, first_s=0.05, gap_s=0.02) as port:
        timings = await closed_loop(port, requests(6, stream=True), 3, lambda _: 0.0)

    assert seen == [6]
    assert len(timings) == 6
    for timing in timings:
        assert timing.status == 200
        assert timing.tail.endswith(b"data: [DONE]\n\n")
        assert timing.first_s >= 0.049
        assert timing.whole_s - timing.first_s >= 7 * 0.019  # 8 events: role, 4 words, stop, usage, [DONE]


async def test_the_client_fails_when_the_server_hangs_up() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ExceptionGroup) as caught:
            await closed_loop(port, requests(1, stream=False), 1, lambda _: 0.0)

    assert caught.group_contains(ConnectionError)


async def test_answers_of_the_upstream_are_unique_and_usage_comes_only_when_asked_for() -> None:
    seen = [0]
    async with an_upstream(seen, 2, 0.0, 0.0) as port, ClientSession() as session:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        bodies = []
        for _ in range(2):
            async with session.post(url, data=chat_body("x" * 12)) as answered:
                bodies.append(await answered.json())
        async with session.post(url, json={"stream": True}) as answered:
            plain = await answered.text()
        async with session.post(url, json={"stream": True, "stream_options": {"include_usage": True}}) as answered:
            counted = await answered.text()
        async with session.get(f"http://127.0.0.1:{port}/status") as answered:
            assert await answered.text() == "4"

    assert bodies[0]["id"] != bodies[1]["id"]
    assert '"usage"' not in plain
    assert '"usage":{"prompt_tokens":480' in counted
    assert counted.encode() == b"".join(events(4, 2, usage=True))


async def test_the_pass_through_carries_bodies_and_streams_unchanged() -> None:
    seen = [0]
    async with (
        an_upstream(seen, 3, 0.0, 0.001) as port,
        TestServer(pass_app(f"http://127.0.0.1:{port}")) as server,
        ClientSession() as session,
    ):
        url = server.make_url("/v1/chat/completions")
        async with session.post(url, data=chat_body("x" * 12)) as answered:
            assert await answered.read() == answer(1)
            assert answered.headers["Content-Type"] == "application/json"
        async with session.post(url, data=chat_body("x" * 12, stream=True)) as answered:
            assert await answered.read() == b"".join(events(2, 3, usage=True))


@pytest.mark.parametrize("low", [False, True])
async def test_the_hit_baselines_key_by_value_not_by_spelling(low: bool) -> None:
    made = RawTestServer(low_server().request_handler) if low else TestServer(hit_app())
    async with made as server, ClientSession() as session:
        url = server.make_url("/v1/chat/completions")

        async def ask(body: bytes) -> bytes:
            async with session.post(url, data=body) as answered:
                return await answered.read()

        first = await ask(b'{"a": 1, "b": 2}')
        assert await ask(b'{"b":2,"a":1}') == first
        assert await ask(b'{"b":2,"a":2}') != first


def test_memory_and_stream_runs_never_repeat_a_prompt() -> None:
    sent = list(mixed(range(10, 20)))
    assert len(set(sent)) == 10
    assert [b'"stream":true' in one for one in sent] == [bool(n % 2) for n in range(10, 20)]

    numbers = iter(range(10**9))
    streamed = [one for _, one in zip(range(50), until(numbers, 5.0), strict=False)]
    assert len(set(streamed)) == 50
    assert list(until(numbers, -1.0)) == []


def test_nginx_answers_with_the_same_body_as_the_upstream_in_python() -> None:
    conf = nginx_conf(Path("/nowhere"), 1)

    assert f"return 200 '{answer(0).decode()}';" in conf
    assert "$" not in answer(0).decode()
    assert "'" not in answer(0).decode()
    assert orjson.loads(answer(0))["usage"]["total_tokens"] == 542


def test_the_command_line_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["hits"])

    assert caught.value.code == 2
    assert "miss" in capsys.readouterr().err
    assert parser().parse_args(["all", "--quick"]).quick


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["all"], DOCUMENT),
        (["all", "--quick"], None),
        (["all", "--no-docs"], None),
        (["all", "--quick", "--docs", "other.md"], Path("other.md")),
        (["all", "--docs", "other.md"], Path("other.md")),
    ],
)
def test_a_quick_run_does_not_replace_the_figures_of_a_full_one(arguments: list[str], expected: Path | None) -> None:
    assert document_of(parser().parse_args(arguments)) == expected


def test_a_quick_run_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARTHING_BENCH_LITELLM", str(tmp_path / "venv"))

    with pytest.raises(litellm.NotInstalled, match="doesn't install it"):
        litellm.installed(install=QUICK.installs)

    assert not (tmp_path / "venv").exists()
