"""That each claim can fail: what is said of answers that are missing, wrong, late or not in the ledger."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from tests.chaos.answers import answer, asked, events, prompt_of, said, whole
from tests.chaos.limits import Spent, remembered
from tests.chaos.load import Asked
from tests.chaos.measured import NEVER_S, Line, Moments, line_of
from tests.chaos.places import Links
from tests.fakes.valkey import free_port


def one(began: float, row_id: str = "a", **more: Any) -> Asked:
    given: dict[str, Any] = {
        "ended": began + 0.01,
        "replica": 0,
        "status": 200,
        "row_id": row_id,
        "right": True,
        "cache": "hit-exact",
    }
    return Asked("known 1", False, began, **given | more)


def line(*asked: Asked, rows: str = "ab", moments: Moments | None = None) -> Line:
    well = [one(0.5, "y"), *asked, one(5, "z")]
    return line_of("f", "p", well, Counter(f"{rows}yz"), moments or Moments(2, 4), range(1))


def test_nothing_is_broken_where_all_is_well() -> None:
    found = line(one(1), one(3, "b"))

    assert found.broken == []
    assert (found.requests, found.recovery_s) == (4, 1.01)
    assert [found.notes[when] for when in ("before", "during", "after")] == [2, 1, 1]


@pytest.mark.parametrize(
    ("asked", "broken"),
    [
        (one(4.5, status=502, right=False), "1 requests failed that a direct call would have served"),
        (one(4.5, status=0, right=False, row_id=""), "1 requests failed that a direct call would have served"),
        (one(4.5, status=502, right=False, direct_ok=True), "1 requests failed that a direct call would have served"),
        (one(4.5, right=False), "1 wrong answers"),
        (one(4.5, row_id="c"), "1 ledger rows lost beyond the window"),
        (one(4.5, row_id="bb"), "1 ledger rows lost beyond the window"),
    ],
)
def test_each_claim_can_break(asked: Asked, broken: str) -> None:
    assert broken in line(one(1), one(4.1), asked).broken


def test_a_claim_of_the_faults_own_can_break() -> None:
    found = line_of("f", "p", [one(1), one(3), one(5)], Counter("aaa"), Moments(2, 4), range(1), {"broke": ["it lied"]})

    assert "it lied" in found.broken


@pytest.mark.parametrize(
    ("before", "after", "broken"),
    [
        (Spent("d1", 0.5), Spent("d1", 0.5), []),
        (Spent("d1", 0.5), Spent("d1", 0.4), ["$0.400000 is known to be spent, of $0.500000"]),
        (Spent("d1", 0.5), Spent("d2", 0.1), []),
        (Spent("d1", 0.0), Spent("d1", 0.5), ["nothing was spent before the fault"]),
    ],
)
def test_what_was_spent_can_be_forgotten(before: Spent, after: Spent, broken: list[str]) -> None:
    assert remembered(before, after) == broken


def test_a_log_line_for_each_request_is_seen() -> None:
    found = line_of("f", "p", [one(1), one(4.1)], Counter("a"), Moments(2, 4), range(1), log_lines=32)

    assert found.broken == ["32 log lines"]


@pytest.mark.parametrize("asked", [one(1, cache="miss"), one(1, right=False, status=502), one(1.995), one(3)])
def test_a_replica_that_was_not_well_before_the_fault_is_seen(asked: Asked) -> None:
    asked.replica = 1
    found = line_of("f", "p", [one(1), asked, one(4.1), one(4.1, replica=1)], Counter("a"), Moments(2, 4), range(2))

    assert "replicas that served no hit before the fault: [1]" in found.broken


def test_a_row_written_twice_is_seen() -> None:
    assert "1 requests have two rows" in line(one(4.1), rows="aa").broken


@pytest.mark.parametrize(
    "asked",
    [
        one(3, "b", status=502, right=False, direct_ok=False),
        one(3, "b", status=0, right=False, down=True),
        one(1.999, "b", status=502, right=False, direct_ok=True),
    ],
)
def test_what_a_direct_call_would_not_have_got_either_is_no_failure(asked: Asked) -> None:
    assert line(one(4.1), asked, moments=Moments(2, 4, cuts=[(2.0, 2.001)])).broken == []


@pytest.mark.parametrize(
    ("began", "ended", "replica", "lost"),
    [(1, 1.95, 0, 0), (1, 1.8, 0, 1), (1, 2.01, 0, 0), (2.001, 2.01, 0, 1), (1, 1.95, 1, 1)],
)
def test_only_rows_within_the_window_before_a_kill_may_be_lost(
    began: float, ended: float, replica: int, lost: int
) -> None:
    gone = one(began, "gone", ended=ended, replica=replica)
    found = line(one(4.1), gone, moments=Moments(2, 4, kills=[(0, 2.0)]))

    assert (found.lost_rows, found.in_window) == (lost, 1 - lost)


@pytest.mark.parametrize(("woke", "lost"), [(1.9, 0), (2.15, 0), (0.9, 1), (2.3, 1)])
def test_the_window_is_longer_by_what_the_machine_kept_a_thread_waiting_just_then(woke: float, lost: int) -> None:
    gone = one(1, "gone", ended=1.75)
    found = line(one(4.1), gone, moments=Moments(2, 4, kills=[(0, 2.0)], stalls=[(woke, 0.2)]))

    assert found.lost_rows == lost


def test_recovery_is_the_last_replicas_first_hit_after_the_fault() -> None:
    asked = [one(3.9), one(4.2, replica=1), one(4.5, cache="miss"), one(5.0)]
    two = line_of("f", "p", asked, Counter("a"), Moments(2, 4), range(2))

    assert two.recovery_s == pytest.approx(1.01)
    assert line_of("f", "p", asked, Counter("a"), Moments(2, 4), range(3)).recovery_s == NEVER_S


@pytest.mark.parametrize("prompt", ["known 1", "long known 0", "fresh 1 2 é"])
def test_an_answer_is_known_by_its_prompt_in_both_shapes(prompt: str) -> None:
    stream = b"".join(events(prompt))

    assert prompt_of(asked(prompt, stream=True)) == (prompt, True)
    assert said(whole(prompt), stream=False) == said(stream, stream=True) == answer(prompt)
    assert said(stream.removesuffix(b"data: [DONE]\n\n"), stream=True) is None
    assert said(stream.replace(answer(prompt)[:8].encode(), b"nonsense", 1), stream=True) != answer(prompt)
    assert answer(prompt) != answer(f"{prompt}x")


async def test_links_pass_slow_hold_and_cut(tmp_path: Any) -> None:
    under_way: set[Any] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way.add(asyncio.current_task())
        with suppress(ConnectionError):
            try:
                while piece := await reader.read(100):
                    writer.write(piece)
            finally:
                writer.close()
                await writer.wait_closed()

    port = free_port()
    async with await asyncio.start_server(echo, "127.0.0.1", port):
        links = Links(tmp_path, [port])
        await asyncio.to_thread(links.start)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", links.ports[0])

            async def round_s() -> float:
                began = time.monotonic()
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                return time.monotonic() - began

            await round_s()
            await asyncio.to_thread(links.become, "slow 0.2", [0])
            assert await round_s() >= 0.4
            await asyncio.to_thread(links.become, "hole", [0])
            waiting = asyncio.create_task(round_s())
            assert not (await asyncio.wait({waiting}, timeout=0.3))[0]
            await asyncio.to_thread(links.become, "pass", [0])
            assert await waiting >= 0.3
            await asyncio.to_thread(links.become, "cut", [0])
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", links.ports[0])
            await asyncio.to_thread(links.become, "pass", [0])
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", links.ports[0])
            await round_s()
            writer.close()
        finally:
            links.close()
            await asyncio.wait(under_way)  # a line that is still open when the loop ends is a later test's failure
