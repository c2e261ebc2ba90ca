"""The rulers of the hot path's benchmarks: schedules, meters, histograms, the table of targets, what is drawn."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.all_targets import collected, lacking, told
from bench.chunks import CHUNKS, Streamed, chunk_rate, cost_of
from bench.cpu_chart import Bar, bars, made
from bench.install_size import Size, size_of
from bench.instructions import total
from bench.lag import BUCKETS_MS, histogram, huge_body
from bench.lag_server import Beat, where
from bench.load import Window, chat_body, http_request, long_chat_body
from bench.near import LookedUp, fresh, questions, wordings
from bench.near import Size as Asked
from bench.near import told as near_told
from bench.open_loop import Told, due_s, open_loop, summed
from bench.open_runs import achieved, saturation
from bench.profile import busiest
from bench.report import Report, Target, save
from bench.stage_server import Meter, metered
from bench.stages import budget_rows
from bench.start import from_bytecode
from bench.weights import Weight
from tests.fakes.examples import examples


@given(st.floats(0.5, 5_000), st.floats(0, 3))
@settings(max_examples=examples(60), deadline=None)
def test_requests_are_due_evenly_whatever_becomes_of_them(rate: float, seconds: float) -> None:
    due = list(due_s(rate, seconds))

    assert len(due) == int(rate * seconds)
    assert all(0 <= at < seconds for at in due)
    assert all(after - before == pytest.approx(1 / rate) for before, after in pairwise(due))


def test_a_schedule_without_a_rate_is_an_error() -> None:
    with pytest.raises(ValueError, match="above nothing"):
        due_s(0, 1)


@pytest.fixture
def stalling() -> Iterator[int]:
    """A server that answers at once, but keeps everybody waiting for 0.3 s before its fifth answer; its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    answered = 0
    stalled = threading.Lock()

    def serve(line: socket.socket) -> None:
        nonlocal answered
        with line:
            while line.recv(65_536):
                with stalled:
                    answered += 1
                    if answered == 5:
                        threading.Event().wait(0.3)
                    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def accept() -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(line,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    accepting.join(5)


def test_a_stall_counts_for_every_request_that_was_due_in_it(stalling: int) -> None:
    requests = (http_request(chat_body(f"{number:012d}")) for number in range(100))

    found = open_loop(stalling, requests, rate_per_s=100, seconds=0.6, connections=1)

    # A closed loop would have seen one slow answer. At 100 a second some 30 requests fall due while it stalls.
    assert len(found.latency_s) == 60
    assert sum(one > 0.05 for one in found.latency_s) >= 20
    assert found.errors == 0
    assert found.per_s > 50  # all were answered, in little more time than they were due in
    shown = summed(found)
    assert shown["p100_ms"] >= 290
    assert shown["p50_ms"] <= shown["p99_ms"] <= shown["p100_ms"]


def test_answers_that_come_more_slowly_than_they_are_asked_for_are_overload() -> None:
    came = Told(latency_s=[0.1] * 101, late_s=[0.0], errors=0, took_s=9.0, over_s=1.0)

    assert came.per_s == pytest.approx(100)
    assert Told([0.1], [0.0], 0, 1.0).per_s == 0.0
    assert achieved(100, 98) == "98"
    assert achieved(1_100, 1_077) == "1,077, overload"


def test_a_server_is_saturated_by_what_it_can_go_on_with() -> None:
    one = Window("a", 64, 1_000, 0, per_s=900.0, p50_ms=1.0, p99_ms=1.0, from_s=0.0, upto_s=1.0)  # 1 ms each
    slower = replace(one, per_s=800.0)
    putting_off = replace(one, upto_s=2.0)  # half of its work came after the window

    assert saturation([one]) == 900
    assert saturation([one, slower]) == 800
    assert saturation([one, slower, putting_off]) == pytest.approx(500)


def test_an_open_loop_tells_when_what_was_due_is_never_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError, match="unanswered"):
        open_loop(silent.getsockname()[1], iter([b"x"] * 3), 100, 0.03, connections=1, grace_s=0.2)


def test_an_open_loop_tells_when_the_server_hangs_up() -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        line, _ = listening.accept()
        line.recv(10)
        line.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with listening, pytest.raises(ConnectionError):
        open_loop(listening.getsockname()[1], iter([b"x"] * 3), 100, 0.03, connections=1)
    thread.join()


@given(st.lists(st.floats(0, 100), max_size=40))
@settings(max_examples=examples(60), deadline=None)
def test_every_beat_is_in_one_bucket(values: list[float]) -> None:
    counts = histogram(values)

    assert sum(counts) == len(values)
    for number, bound in enumerate(BUCKETS_MS):
        assert sum(counts[: number + 1]) == sum(value <= bound for value in values)


async def test_a_loop_that_is_held_shows_it() -> None:
    beat = Beat()
    beat.start(asyncio.get_running_loop())
    ended = threading.Event()
    watching = threading.Thread(target=beat.watch, args=(threading.get_ident(), ended))
    watching.start()
    try:
        await asyncio.sleep(0.02)
        quiet = max(beat.take()["busy_ms"])

        hold_the_loop(0.1)
        await asyncio.sleep(0.02)

        told_ = beat.take()
    finally:
        ended.set()
        watching.join()
    assert quiet < 50 < max(told_["busy_ms"])
    assert max(told_["lag_ms"]) > 90
    assert any("hold_the_loop" in name for name in told_["stalls"])
    assert beat.take()["busy_ms"] == []


async def test_what_the_measuring_itself_takes_does_not_count() -> None:
    beat = Beat()
    beat.start(asyncio.get_running_loop())
    await asyncio.sleep(0.02)
    beat.take()
    hold_the_loop(0.1)
    beat.leave_out()
    await asyncio.sleep(0.02)
    told_ = beat.take()

    assert max(told_["busy_ms"]) < 50
    assert max(told_["lag_ms"]) < 90


def test_what_was_read_between_two_beats_is_counted() -> None:
    class Protocol:
        got = b""

        def data_received(self, data: bytes) -> None:
            self.got += data

    class Loop:
        def call_later(self, *_: object) -> None:
            """Nothing comes by itself."""

    beat, one, loop = Beat(), Protocol(), Loop()
    beat.count_readings(Protocol)
    one.data_received(b"a")
    one.data_received(b"b")
    beat._beat(loop)  # type: ignore[arg-type]
    beat._beat(loop)  # type: ignore[arg-type]

    assert (one.got, beat.take()["readings"]) == (b"ab", [2, 0])
    assert beat.take()["readings"] == []


def test_instructions_are_those_of_the_whole_profile() -> None:
    assert total("version: 1\nevents: Ir\n\nfn=(1) f\n3 40\n\ntotals: 123456\n") == 123456
    with pytest.raises(ValueError, match="no totals"):
        total("version: 1\n")


def hold_the_loop(seconds: float) -> None:
    """Use the processor for so long."""
    import time

    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_frame_is_named_by_its_file_and_function() -> None:
    assert where(sys._getframe(), deep=1) == "test_hot_path_bench.py:test_a_frame_is_named_by_its_file_and_function"


@pytest.mark.parametrize("shape", ["messages", "one", "tools"])
@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_huge_bodies_have_about_the_size_that_the_table_says(shape: str, size: int) -> None:
    body = huge_body(size, shape, "000000000001")

    assert 0.7 * size <= len(body) <= 1.35 * size
    assert json.loads(body)["messages"]
    assert body != huge_body(size, shape, "000000000002")


def test_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such shape"):
        huge_body(1000, "round", "0")


def test_a_long_conversation_has_the_size_that_the_page_says() -> None:
    body = long_chat_body("0" * 12)

    assert 111_000 <= len(body) <= 113_000
    assert len(json.loads(body)["messages"]) == 200


async def test_a_meter_bills_each_step_of_what_waits_and_not_the_waiting() -> None:
    meter = Meter(memory=False)

    async def works(seconds: float) -> str:
        hold_the_loop(0.01)
        await asyncio.sleep(seconds)
        hold_the_loop(0.01)
        return "done"

    waits: Awaitable[str] = metered(meter, "stage, in", works, 0.5)
    assert await waits == "done"
    assert metered(meter, "plain", lambda: 7) == 7

    figures = meter.take()
    assert 20_000 <= figures["stage, in"][0] < 400_000  # microseconds; half a second of waiting is not among them
    assert len(figures["plain"]) == 1
    assert meter.take() == {}


async def test_what_a_metered_stage_raises_goes_through_it_both_ways() -> None:
    meter = Meter(memory=False)

    async def refuses() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    async def is_cancelled() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "cancelled"
        return "slept"

    with pytest.raises(LookupError):
        await metered(meter, "refuses", refuses)

    async def run() -> str:
        return str(await metered(meter, "cancelled", is_cancelled))

    task = asyncio.get_running_loop().create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cancelled"
    assert set(meter.take()) == {"refuses", "cancelled"}


def test_a_budget_adds_up_to_the_process() -> None:
    figures = {
        "all of the handler": [100.0, 100.0],
        "exact, in": [30.0, 30.0],
        "account, out": [20.0, 20.0],
        "ledger, append": [1.0, 1.0],
        "upstream, in": [60.0, 60.0],
        "sometimes, in": [40.0],
        "idle, in": [0.01, 0.01],
        "ledger, row made": [9.0, 9.0],
        "answer, sent": [5.0, 5.0],
        "thread MainThread": [230.0],
        "thread ledger": [12.0],
        "thread watch": [6.0],
        "thread uvloop": [2.0],
    }

    rows = {row[0]: row[1:] for row in budget_rows(figures, {"exact, in": [(2, 300), (4, 500)]}, 250.0, 2)}

    assert rows["exact, in"] == ["30.0", "12%", "3", "400"]
    assert rows["sometimes, in"][0] == "20.0"  # in every second request
    # 100 - 30 - 20 - 20 - 5; the row and its append are within the account's
    assert rows["the rest of the handler: pipeline, reading the flight"][0] == "25.0"
    assert rows["ledger's threads"][0] == "12.0"
    assert rows["other threads: watch, store, helpers"][0] == "8.0"
    assert rows["the loop: aiohttp, sockets, timers, tasks"][0] == "70.0"  # 250 - 100 - 60 - 12 - 8
    assert rows["whole process"][0] == "250.0"
    assert "idle, in" not in rows


def test_a_chunks_cost_needs_whole_streams() -> None:
    whole, short = Streamed([0.0, 0.01, 0.04], CHUNKS + 4), Streamed([0.0], 3)

    assert cost_of(1.0, [whole, whole]) == pytest.approx(1e6 / (2 * (CHUNKS + 4)))
    assert chunk_rate(50.0) == 20_000
    assert list(whole.gaps_ms()) == pytest.approx([10, 30])
    for streams in ([whole, short], []):
        with pytest.raises(ValueError, match="weren't whole"):
            cost_of(1.0, streams)


def a_run(name: str, targets: list[Target]) -> Report:
    return Report(name, name, ["path", "c", "CPU µs/request"], [["farthing", "64", "1,234"]], targets)


def test_every_target_of_every_run_is_in_one_table(tmp_path: Path) -> None:
    runs = {
        "miss": [Target("a", "≤ 1", "2", False, "direct"), Target("b", "≤ 1", "1", True)],
        "hit": [Target("c", "≤ 1", "not here", None)],
    }
    for name, targets in runs.items():
        save(a_run(name, targets), tmp_path, {}, "command", "when")

    text = told(collected(tmp_path, ["hit", "never run", "miss"]))

    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "`" in line]
    assert [line[0] for line in lines] == ["c", "a", "b"]
    assert lines[1] == ["a", "≤ 1", "2", "direct", "MISSED", "`python -m bench.run miss`"]
    assert "3 targets, 1 of them missed." in text
    assert told(collected(tmp_path, ["never run"])) == "No run yet."
    assert lacking(tmp_path, ["hit", "near"]) == ["near"]
    assert "not been run here: `python -m bench.run near`." in told(collected(tmp_path, ["hit"]), ["near"])
    assert not lacking(tmp_path, ["hit", "miss"])


def test_a_chart_takes_a_servers_own_report_before_that_of_its_peers(tmp_path: Path) -> None:
    columns = ["what", "path", "c", "CPU µs/request"]
    rows = [["miss", "LiteLLM", "64", "8,400"], ["miss", "farthing", "64", "99"], ["hit", "farthing", "64", "50"]]
    reports = {
        "miss": {"columns": columns[1:], "rows": [["farthing", "64", "1,234"], ["farthing", "1", "9"]]},
        "peers": {"columns": columns, "rows": rows},
    }

    assert bars(reports, "miss") == [Bar("farthing", 1234.0), Bar("LiteLLM", 8400.0)]
    assert bars(reports, "hit") == [Bar("farthing", 50.0)]
    assert not made(tmp_path, tmp_path / "none.png")
    save(a_run("miss", []), tmp_path, {}, "command", "when")
    assert made(tmp_path, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_a_profile_says_who_was_busy_and_for_whom() -> None:
    profile = {
        "shared": {
            "frames": [
                {"name": "main", "file": "/x/a.py"},
                {"name": "work", "file": "/x/b.py"},
                {"name": "_worker", "file": "/x/thread.py"},
            ]
        },
        "profiles": [{"samples": [[0, 1], [0, 1, 1], [0], [], [0, 2]], "weights": [1.0, 2.0, 1.0, 5.0, 9.0]}],
    }

    assert busiest(profile) == [("work (b.py)", 0.75, 0.75), ("main (a.py)", 0.25, 1.0)]


def test_an_installation_is_its_files_without_bytecode_and_pip(tmp_path: Path) -> None:
    for name, size in (("farthing/a.py", 10), ("farthing/__pycache__/a.pyc", 100), ("pip/x.py", 1000), ("b.so", 5)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)

    assert size_of(tmp_path) == Size(2, 15)


def test_a_start_reads_bytecode_whatever_the_shell_says(tmp_path: Path) -> None:
    env = from_bytecode(tmp_path, {"PYTHONDONTWRITEBYTECODE": "1", "FARTHING_X": "1", "PATH": "/bin"})

    assert env == {"PATH": "/bin", "PYTHONPYCACHEPREFIX": str(tmp_path)}


def test_a_weight_is_what_one_more_takes() -> None:
    assert Weight(100, 1_000, 51_000).each == 500


def test_a_question_has_as_many_wordings_as_are_asked_for_and_each_is_another() -> None:
    made = wordings("how do i train a hawk to stop biting?", 100)

    assert len(set(made)) == len(made) == 100
    assert made[0] == "how do i train a hawk to stop biting?"
    assert all("train a hawk" in one for one in made)
    with pytest.raises(ValueError, match="aren't so many"):
        wordings("a", 10_000)


def test_what_is_asked_of_the_index_is_no_entry_and_comes_once() -> None:
    asked = questions(3)
    known = frozenset(text for one in asked for text in wordings(one, 20))

    made = fresh(asked[:2], known, 40, Random(1))

    assert len(asked) == len(set(asked)) == 3
    assert len({text for _, text in made}) == 40
    assert known.isdisjoint(text for _, text in made)
    assert {number for number, _ in made} == {0, 1}
    with pytest.raises(ValueError, match="only"):
        questions(10**6)


def test_a_look_up_is_judged_by_the_clock_against_the_models_own_time() -> None:
    parts = {"embed": (2.0, 4.0), "search": (0.2, 0.3), "score": (0.1, 0.2), "decide": (0.0, 0.1)}
    found = LookedUp("ivf", parts, processor_ms=(2.5, 5.0), clock_ms=(2.9, 11.0), own=1.0, tokens=20, prepared_s=1)

    report = near_told(found, Asked(entries=100_000, questions=1, asked_of=1, asked=1))

    assert [target.passed for target in report.targets] == [True, False]
    assert report.targets[1].measured == "11.00 ms"
    assert report.targets[0].baseline == "the model alone: 2.00 ms"
    assert report.rows[0] == ["the model", "2.00", "4.00", "80%"]
