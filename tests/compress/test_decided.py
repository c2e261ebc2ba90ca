"""What was sent once is sent again just so: in conversations that grow, branch, are edited, restarted and raced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.compress.decided import (
    FROZEN,
    KEY_BYTES,
    LEFT,
    LOST,
    Decision,
    chain,
    decode,
    encode,
    first_new,
    request_ends,
    tenant_tag,
)
from farthing.compress.decided_disk import FileDecisions
from farthing.compress.decided_store import Decisions, Found, MemoryDecisions, in_force_s, settle
from farthing.compress.tidy import tidied_text
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import StoreFault

Turn = dict[str, Any]
USER: Turn = {"role": "user", "content": "hello"}
ANSWER: Turn = {"role": "assistant", "content": "hi"}
RESULT: Turn = {"role": "tool", "tool_call_id": "1", "content": '{"a": 1}'}
PREFILL: Turn = {"role": "assistant", "content": "{"}


# -- keys


def test_a_key_hangs_on_tenant_policy_all_before_and_the_turn() -> None:
    turns = [USER, ANSWER, RESULT]
    keys = chain("t", "p", turns)

    assert len({*keys}) == 3 and {len(key) for key in keys} == {KEY_BYTES}
    assert all(key.startswith(tenant_tag("t")) for key in keys)
    assert chain("t", "p", [*turns, USER])[:3] == keys
    for others in (
        chain("u", "p", turns),
        chain("t", "q", turns),
        chain("t", "p", turns, before="system"),
        chain("t", "p", [{**USER, "content": "Hello"}, ANSWER, RESULT]),
        chain("t", "p", [{**USER, "role": "system"}, ANSWER, RESULT]),
        chain("t", "p", [ANSWER, USER, RESULT])[2:],
        chain("t", "p", [RESULT]),
    ):
        assert not {*others} & {*keys}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"role": "user", "content": "x"}, {"content": "x", "role": "user"}),
        (
            {"role": "user", "content": "x"},
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
        ),
        (
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": "x", "cache_control": {"type": "ephemeral"}}
                ],
            },
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "x"},
                    {"type": "text", "text": "y", "prompt_cache_breakpoint": {}},
                ],
            },
        ),
    ],
)
def test_what_means_the_same_has_the_same_key(one: Turn, other: Turn) -> None:
    assert chain("t", "p", [one]) == chain("t", "p", [other])
    assert chain("t", "p", [], before=one["content"]) == chain("t", "p", [], before=other["content"])


def test_a_mark_inside_of_what_a_tool_was_given_is_content() -> None:
    def call(given: Any) -> Turn:
        return {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": given}]}

    assert chain("t", "p", [call({"cache_control": 1})]) != chain("t", "p", [call({})])


def test_turns_of_any_kind_have_keys_but_for_those_nested_too_deep() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    odd = [{"content": "\ud800"}, 1, None, "x", {"n": 2**80}, [], {"content": [1, {"text": 3}]}]

    assert len({*chain("\ud800", "p", odd)}) == len(odd)
    assert chain("t", "p", [USER, {"content": deep}, USER]) == chain("t", "p", [USER])
    while isinstance(deep, list):  # taken down by hand: its destructor would recurse
        deep = deep.pop()


# -- what is new


@pytest.mark.parametrize(
    ("turns", "new"),
    [
        ([], 0),
        ([USER], 0),
        ([USER, RESULT], 0),
        ([USER, ANSWER, RESULT], 2),
        ([USER, ANSWER, RESULT, RESULT], 2),
        ([USER, ANSWER, RESULT, USER], 2),
        ([USER, ANSWER, RESULT, ANSWER, USER], 4),
        ([USER, ANSWER, RESULT, PREFILL], 2),
        ([USER, PREFILL], 0),
        (["rubbish", ANSWER, 3], 2),
    ],
)
def test_a_turn_is_new_that_no_answer_follows(turns: list[Any], new: int) -> None:
    assert first_new("chat", turns) == new
    assert first_new("messages", turns) == new


def test_in_responses_what_the_model_wrote_has_many_types() -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "1", "output": "{}"}
    for written in (call, {"type": "reasoning", "summary": []}, {"type": "web_search_call"}, ANSWER):
        assert first_new("responses", [USER, written, result]) == 2
    assert first_new("responses", [USER, call, call, result, result]) == 3
    assert first_new("chat", [USER, call, result]) == 0


@pytest.mark.parametrize(
    ("turns", "ends"),
    [
        ([], []),
        ([USER], [0]),
        ([USER, ANSWER, RESULT, RESULT, USER, ANSWER, ANSWER, USER], [0, 4, 7]),
        ([USER, ANSWER, RESULT, PREFILL], [0, 2]),
        ([ANSWER], [0]),
    ],
)
def test_requests_end_before_answers(turns: list[Turn], ends: list[int]) -> None:
    assert request_ends("chat", turns) == ends


# -- decisions as bytes


@given(
    st.builds(
        Decision,
        st.lists(st.none() | st.text(st.characters())).map(tuple),
        st.lists(st.text()).map(tuple),
        st.lists(st.integers(-(2**40), 2**40)).map(tuple),
    ),
    st.integers(0, 10**6),
    st.integers(0, 255),
)
def test_bytes_are_a_decision_under_their_key_alone(decision: Decision, at: int, byte: int) -> None:
    one, other = chain("t", "p", [USER, ANSWER])
    stored = encode(one, decision)
    spoiled = bytearray(stored)
    spoiled[at % len(stored)] ^= byte

    assert decode(one, stored) == decision
    assert decode(other, stored) is None
    assert decode(one, stored[:-1]) is None
    assert decode(one, bytes(spoiled)) == (None if byte else decision)
    assert decode(one, b"") is None


# -- conversations


class Away:
    """A store that can't be reached."""

    async def get_many(self, keys: Sequence[bytes]) -> Found:
        return Found([None] * len(keys), away=True)

    async def put_many(self, decided: Sequence[tuple[bytes, Decision]]) -> list[Decision]:
        raise StoreFault("away")

    async def forget(self, tag: bytes) -> None: ...

    async def close(self) -> None: ...


class Client:
    """Sends conversations by way of a compressor that never decides the same thing twice: the worst there could be."""

    def __init__(self, store: Decisions, fresh_start: bool = False) -> None:
        self.store = store
        self.fresh_start = fresh_start
        self.sent: dict[bytes, bytes] = {}
        self.calls = count()
        self.changed: list[bytes] = []
        self.shortened = 0

    async def send(self, turns: list[Turn], frozen: Sequence[int] = ()) -> None:
        """One request; notes each beginning whose last turn is sent with other bytes than before."""

        async def decide(new: list[int], known: dict[int, Decision]) -> list[Decision]:
            return [Decision((f"short {next(self.calls)}",), ("rows",)) for _ in new]

        results = [number for number, turn in enumerate(turns) if turn["role"] == "tool"]
        keys, new = chain("t", "p", turns), first_new("chat", turns)
        ends = request_ends("chat", turns) if self.fresh_start else []
        settled = await settle(self.store, keys, results, new, decide, frozen, ends=ends)
        for number, turn in enumerate(turns):
            text = turn["content"]
            if number in settled:
                decision = settled[number].decision
                short = decision.texts[0] if decision.texts else None
                self.shortened += short is not None
                text = text if decision == FROZEN else short or tidied_text(text) or text
            beginning = orjson.dumps(turns[: number + 1])
            was = self.sent.setdefault(beginning, text.encode())
            if was != text.encode():
                self.changed.append(beginning)
                self.sent[beginning] = text.encode()


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[Turn], bool]]:
    """Requests of one conversation, as (turns, whether the process was restarted before)."""
    numbers = count()
    turns: list[Turn] = [{"role": "system", "content": "be good"}]
    requests: list[tuple[list[Turn], bool]] = []

    def said(role: str) -> Turn:
        return {"role": role, "content": draw(st.sampled_from(["a", "b", f"{next(numbers)}"]))}

    def result() -> Turn:
        return {"role": "tool", "content": draw(st.sampled_from(['{"a": 1}', f"[1, {next(numbers)}]", "text"]))}

    for _ in range(draw(st.integers(2, 14))):
        step = draw(
            st.sampled_from(["ask", "tool", "tools", "tool and ask", "branch", "edit", "again", "both", "drop"])
        )
        last = turns[-1]["role"]
        if step in ("ask", "tool", "tools", "tool and ask", "both") and last != "assistant" and len(turns) > 1:
            turns = [*turns, said("assistant")]
        if step == "ask":
            turns = [*turns, said("user")]
        elif step in ("tool", "tool and ask"):
            turns = [*turns, said("assistant"), result()] + ([said("user")] if "ask" in step else [])
        elif step == "tools":
            turns = [*turns, said("assistant"), *(result() for _ in range(draw(st.integers(2, 4))))]
        elif step == "both":  # several new turns, an answer of ours among them that was never sent
            turns = [*turns, said("user"), said("assistant"), result(), said("assistant"), result(), said("user")]
        elif step == "branch":
            turns = turns[: draw(st.integers(1, len(turns)))]
        elif step == "drop" and len(turns) > 3:
            at = draw(st.integers(1, len(turns) - 1))
            turns = turns[:at] + turns[at + 1 :]
        elif step == "edit":
            at = draw(st.integers(0, len(turns) - 1))
            turns = [*turns[:at], {**turns[at], "content": f"edit {next(numbers)}"}, *turns[at + 1 :]]
        requests.append((turns, draw(st.booleans())))
    return requests


@settings(deadline=None)
@given(histories(), st.booleans(), st.booleans())
def test_every_earlier_turn_is_sent_with_the_same_bytes(
    requests: list[tuple[list[Turn], bool]], away: bool, fresh_start: bool
) -> None:
    async def run() -> None:
        store: Decisions = Away() if away else MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6)
        client = Client(store, fresh_start)
        for turns, _ in requests:
            await client.send(turns)
        assert client.changed == []
        if away:
            assert client.shortened == 0

    asyncio.run(run())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(histories())
def test_a_restart_changes_no_byte(tmp_path: Path, requests: list[tuple[list[Turn], bool]]) -> None:
    path = tmp_path / "decided.db"
    path.unlink(missing_ok=True)

    async def opened() -> FileDecisions:
        store = FileDecisions(path, clock=FakeClock(), ttl_s=100, max_bytes=10**7, memory_bytes=10**6, flush_ms=1)
        await store.open()
        return store

    async def run() -> None:
        client = Client(await opened())
        for turns, restart in requests:
            if restart:
                await client.store.close()
                client.store = await opened()
            await client.send(turns)
        await client.store.close()
        assert client.changed == []

    asyncio.run(run())


@settings(deadline=None)
@given(histories(), st.integers(0, 13), st.booleans())
def test_a_lost_store_changes_each_turn_at_most_once(
    requests: list[tuple[list[Turn], bool]], loss: int, fresh_start: bool
) -> None:
    async def run() -> None:
        client = Client(MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6), fresh_start)
        for number, (turns, _) in enumerate(requests):
            if number == loss:
                client.store = MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6)
            await client.send(turns)
            if number < loss:
                assert client.changed == []
        assert len({*client.changed}) == len(client.changed)

    asyncio.run(run())


@settings(deadline=None)
@given(histories())
def test_two_replicas_that_race_send_the_same_bytes(requests: list[tuple[list[Turn], bool]]) -> None:
    async def run() -> None:
        store = MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6)
        one, two = Client(store), Client(store)
        two.calls = count(10**6)
        for turns, _ in requests:
            await asyncio.gather(one.send(turns), two.send(turns))
        assert one.changed == two.changed == []
        assert one.sent == two.sent

    asyncio.run(run())


async def test_frozen_turns_stay_frozen_and_what_was_decided_before_a_mark_is_replayed() -> None:
    client = Client(MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6))
    turns = [USER, ANSWER, RESULT]
    await client.send(turns, frozen=[2])
    assert client.sent[orjson.dumps(turns)] == RESULT["content"].encode()
    longer = [*turns, ANSWER, {**RESULT, "content": "[1]"}]
    await client.send(longer)
    await client.send([*longer, ANSWER, USER], frozen=range(7))

    assert client.changed == []
    assert client.shortened == 2


async def test_after_a_loss_turns_are_tidied_until_new_ones_come() -> None:
    store = MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6)
    turns = [USER, ANSWER, RESULT, RESULT, ANSWER, USER, ANSWER, RESULT]
    asked: list[list[int]] = []

    async def decide(new: list[int], known: dict[int, Decision]) -> list[Decision]:
        asked.append(new)
        return [LEFT for _ in new]

    settled = await settle(store, chain("t", "p", turns), [2, 3, 7], first_new("chat", turns), decide)

    assert asked == [[7]]
    assert [settled[n].decision for n in (2, 3, 7)] == [LOST, LOST, LEFT]
    assert [settled[n].why for n in (2, 3, 7)] == ["the decision is lost"] * 2 + [""]
    assert await settle(store, chain("t", "p", turns[:3]), [2, 9], 0, decide) == {2: (LOST, False, "")}
    assert await settle(store, [], [2], 0, decide) == {}


@pytest.mark.parametrize("fresh_start", [False, True])
async def test_a_clock_in_the_system_prompt_is_another_beginning_each_time(fresh_start: bool) -> None:
    client = Client(MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6), fresh_start)
    turns = [USER, ANSWER, RESULT, ANSWER, RESULT]
    for minute in range(5):
        await client.send([{"role": "system", "content": f"It is 12:0{minute}."}, *turns])
    assert client.shortened == (10 if fresh_start else 5)
    assert client.changed == []
    await client.send([{"role": "system", "content": "It is 12:00."}, *turns, ANSWER, USER])
    assert client.changed == []


@pytest.mark.parametrize("fresh_start", [False, True])
async def test_behind_an_edit_nothing_was_sent_before(fresh_start: bool) -> None:
    client = Client(MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6), fresh_start)
    turns = [{"role": "system", "content": "be good"}, USER]
    for number in range(4):
        await client.send(turns)
        turns = [*turns, ANSWER, {**RESULT, "content": f"[{number}, 1]"}]
    await client.send(turns)
    shortened = client.shortened
    assert shortened == 1 + 2 + 3 + 4
    await client.send([*turns[:3], {**RESULT, "content": "left out"}, *turns[4:], ANSWER, USER])
    assert client.shortened - shortened == (4 if fresh_start else 0)
    assert client.changed == []


async def test_a_policy_is_in_force_since_the_store_first_heard_of_it() -> None:
    store = MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**6)
    assert await in_force_s(store, "p", 1000.0) == 0
    assert await in_force_s(store, "p", 1090.5) == 90.5
    assert await in_force_s(store, "q", 1090.5) == 0
    assert await in_force_s(store, "p", 900.0) == 0
    assert await in_force_s(Away(), "p", 1090.5) == 0


async def test_growing_conversations_of_the_measurements() -> None:
    """The long chats of the shared data, turn by turn; skipped where they aren't there."""
    path = Path(__file__).parents[3] / "shared" / "data" / "compress" / "long_chat_history.jsonl"
    if not path.is_file():
        pytest.skip(f"{path.name} isn't there")
    client = Client(MemoryDecisions(clock=FakeClock(), ttl_s=100, most_bytes=10**8))
    steps = 0
    for line in path.read_text("utf-8").splitlines():
        turns = [{**turn, "content": turn.get("content") or ""} for turn in json.loads(line)["messages"]]
        ends = [number for number, turn in enumerate(turns) if turn["role"] == "assistant" and number] + [len(turns)]
        for end in ends:
            await client.send(turns[:end])
            steps += 1
    assert client.changed == []
    assert steps > 500 and client.shortened > 1000
