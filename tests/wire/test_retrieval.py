"""The retrieval tool on the wire: one answer to the client, honest books, and no marker that can't be followed."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from farthing.compress.marker import TOOL, handles
from tests.fakes.proxying import Proxied, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.wire.test_compress import UNPROVEN, told
from tests.wire.test_reuse import quiet

ON: dict[str, Any] = UNPROVEN | {"compress__retrieval": True}
SQUEEZING: dict[str, Any] = ON | {"compress__squeeze": "serve"}
OWN_TOOL = {"type": "function", "function": {"name": "list_orders", "parameters": {"type": "object"}}}
CLAUDE = "/v1/messages"


def blob(seed: int = 0, size: int = 3000) -> str:
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


def result(seed: int = 0) -> str:
    return json.dumps({"name": "scan.bin", "data": blob(seed), "note": "an attachment"})


def asked(seed: int = 0, turns: int = 0, **more: Any) -> dict[str, Any]:
    """A conversation that begins; with `turns`, as many calls and their results behind it."""
    said: list[dict[str, Any]] = [{"role": "user", "content": f"What is in the file ({seed})?"}]
    for i in range(turns):
        call = {"id": f"c{i}", "type": "function", "function": {"name": "list_orders", "arguments": "{}"}}
        said.append({"role": "assistant", "content": None, "tool_calls": [call]})
        said.append({"role": "tool", "tool_call_id": f"c{i}", "content": result(seed + i)})
    return {"model": "m", "messages": said, "tools": [OWN_TOOL], "temperature": 0} | more


def claude(turns: int = 0, **more: Any) -> dict[str, Any]:
    said: list[dict[str, Any]] = [{"role": "user", "content": "What is in the file?"}]
    for i in range(turns):
        said.append(
            {"role": "assistant", "content": [{"type": "tool_use", "id": f"c{i}", "name": "read", "input": {}}]}
        )
        said.append(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"c{i}", "content": result(i)}]}
        )
    own = {"name": "read", "input_schema": {"type": "object"}}
    return {"model": "m", "max_tokens": 100, "messages": said, "tools": [own]} | more


def names(call_body: bytes) -> list[str]:
    return [tool.get("function", tool)["name"] for tool in json.loads(call_body).get("tools") or ()]


def chunks(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


async def begun(proxy: Proxied, body: dict[str, Any], path: str = "/v1/chat/completions") -> None:
    """Send the conversation's first request."""
    first = body | {"messages": body["messages"][:1], "stream": False}
    assert (await proxy.post(first, path)).status_code == 200


async def meter_is_in_the_books(proxy: Proxied, up: ScriptedUpstream, count: int) -> list[dict[str, Any]]:
    rows = await proxy.rows(count)
    assert sum(row["tokens_in_sent"] or 0 for row in rows) == sum(call.tokens_in for call in up.calls)
    assert sum(row["tokens_out"] or 0 for row in rows) == sum(call.tokens_out for call in up.calls)
    meter = sum(2 * call.tokens_in + 8 * call.tokens_out for call in up.calls if call.status == 200) * 10**6
    assert sum(row["cost_usd"] or 0 for row in rows) == meter
    for row in rows:
        saved = sum(
            row[f"saved_{kind}_usd"] or 0 for kind in ("exact", "semantic", "compress", "route", "prompt_cache")
        )
        assert row["baseline_usd"] - row["cost_usd"] == saved
    return rows


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rounds", [0, 1, 2])
async def test_the_model_gets_what_it_asks_for_and_the_client_one_answer(
    up: ScriptedUpstream, tmp_path: Path, stream: bool, rounds: int
) -> None:
    up.default = Script(fetches=rounds, looks_for=(blob()[:40],))
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, asked())
        answer = await proxy.post(
            asked(turns=1, stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
        )
        rows = await meter_is_in_the_books(proxy, up, 2)
    calls = up.calls[1:]
    assert len(calls) == rounds + 1
    assert blob() not in calls[0].body.decode()
    assert all(names(call.body) == ["list_orders", TOOL] for call in up.calls)
    for before, after in pairwise(calls):
        assert after.json["messages"][: len(before.json["messages"])] == before.json["messages"]
        assert after.json["messages"][-1] == {
            "role": "tool",
            "tool_call_id": after.json["messages"][-1]["tool_call_id"],
            "content": blob(),
        }
    says = f"Seen: {blob()[:40]} done. " if rounds else "Seen: done. "
    if stream:
        seen = chunks(answer.text)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert {chunk["id"] for chunk in seen} == {seen[0]["id"]}
        deltas = [chunk["choices"][0]["delta"] for chunk in seen if chunk["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == says
        assert not any("tool_calls" in delta for delta in deltas)
        assert sum("role" in delta for delta in deltas) == 1
        assert [chunk["choices"][0]["finish_reason"] for chunk in seen if chunk["choices"]][-1] == "stop"
        (usage,) = [chunk["usage"] for chunk in seen if chunk.get("usage")]
    else:
        choice = answer.json()["choices"][0]
        assert choice["message"]["content"] == says
        assert "tool_calls" not in choice["message"]
        assert choice["finish_reason"] == "stop"
        usage = answer.json()["usage"]
    assert usage["prompt_tokens"] == sum(call.tokens_in for call in calls) == rows[1]["tokens_in_sent"]
    assert usage["completion_tokens"] == sum(call.tokens_out for call in calls)
    assert rows[1]["attempts"] == rounds + 1
    assert len(json.loads(rows[1]["attempts_detail"])) == rounds + 1
    retrieved = [reason for _, action, reason in json.loads(rows[1]["decisions"]) if action == "retrieved"]
    assert len(retrieved) == bool(rounds)


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_messages_alike(up: ScriptedUpstream, tmp_path: Path, stream: bool) -> None:
    up.default = Script(fetches=1, first="Let me look.", looks_for=(blob()[:40],))
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, claude(), CLAUDE)
        answer = await proxy.post(claude(turns=1, stream=stream), CLAUDE)
        await meter_is_in_the_books(proxy, up, 2)
    first, second = up.calls[-2:]
    assert names(first.body) == ["read", TOOL]
    assert second.json["messages"][: len(first.json["messages"])] == first.json["messages"]
    assert second.json["messages"][-1]["content"][0]["content"] == blob()
    assert second.json["messages"][-2]["content"][-1]["type"] == "tool_use"
    if not stream:
        whole = answer.json()
        assert [block["text"] for block in whole["content"]] == [f"Seen: {blob()[:40]} done. "]
        assert whole["stop_reason"] == "end_turn"
        usage = whole["usage"]
        assert usage["input_tokens"] == first.tokens_in + second.tokens_in
    else:
        seen = chunks(answer.text)
        assert [event["type"] for event in seen].count("message_start") == 1
        assert [event["index"] for event in seen if event["type"] == "content_block_start"] == [0, 1]
        texts = [event["delta"]["text"] for event in seen if event["type"] == "content_block_delta"]
        assert "".join(texts) == f"Letmelook.Seen: {blob()[:40]} done. "
        assert seen[-2]["delta"]["stop_reason"] == "end_turn"
        assert seen[-1]["type"] == "message_stop"
        usage = seen[-2]["usage"]
    assert usage["output_tokens"] == first.tokens_out + second.tokens_out


async def test_what_was_said_before_a_call_stands_apart_from_what_is_said_after_it(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    up.default = Script(fetches=1, first="Let me look.")
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, asked())
        answer = await proxy.post(asked(turns=1, stream=True))
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks(answer.text))
    assert said == "Let me look. \n\nSeen: done. "
    assert up.calls[-1].json["messages"][-2]["content"] == "Let me look. "


@pytest.mark.parametrize("stream", [False, True])
async def test_a_clients_own_calls_win(up: ScriptedUpstream, tmp_path: Path, stream: bool) -> None:
    up.default = Script(fetches=1, beside="list_orders")
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, asked())
        answer = await proxy.post(asked(turns=1, stream=stream))
        await meter_is_in_the_books(proxy, up, 2)
    assert len(up.calls) == 2
    if stream:
        seen = [chunk["choices"][0] for chunk in chunks(answer.text)]
        calls = [call for choice in seen for call in choice["delta"].get("tool_calls") or ()]
        assert {call["index"] for call in calls} == {0}
        assert [call["function"]["name"] for call in calls if call.get("id")] == ["list_orders"]
        assert "".join(call["function"]["arguments"] for call in calls) == "{}"
        assert seen[-1]["finish_reason"] == "tool_calls"
    else:
        choice = answer.json()["choices"][0]
        assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["list_orders"]
        assert choice["finish_reason"] == "tool_calls"


async def test_unknown_handles_and_those_of_other_tenants_give_nothing(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default = Script(fetches=0)
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, asked())
        await proxy.post(asked(turns=1))
        (handle,) = handles(up.calls[-1].json["messages"][-1]["content"])
        told = []
        for tried, key in (
            (handle, "Bearer sk-one"),
            (handle, "Bearer sk-two"),
            ("a" * 16, "Bearer sk-one"),
            ("?", "Bearer sk-one"),
        ):
            up.default = Script(fetches=1, handle=tried)
            body = asked(seed=len(told) + 50)
            await proxy.post(body, Authorization=key)
            told.append(up.calls[-1].json["messages"][-1]["content"])
    assert told[0] == blob()
    assert told[1:] == ["Nothing is kept under this handle."] * 3


@pytest.mark.parametrize("stream", [False, True])
async def test_it_comes_to_an_end(up: ScriptedUpstream, tmp_path: Path, stream: bool) -> None:
    up.default = Script(fetches=99)
    async with proxied(up.url, tmp_path, **ON) as proxy:
        up.script(Script(fetches=0))
        await begun(proxy, asked())
        del up.calls[:]
        up.default = Script(fetches=99)
        answer = await proxy.post(asked(turns=1, stream=stream))
        await proxy.rows(2)
    assert len(up.calls) == 5
    assert up.calls[-1].json["messages"][-1]["content"].startswith("No more can be given")
    if stream:
        choices = [chunk["choices"][0] for chunk in chunks(answer.text)]
        assert choices[-1]["finish_reason"] == "stop"
        assert not any("tool_calls" in choice["delta"] for choice in choices)
    else:
        choice = answer.json()["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", "")


AGAINST: list[dict[str, Any]] = [
    {"n": 2},
    {"tool_choice": "none"},
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "list_orders"}}},
    {"tools": [OWN_TOOL, {"type": "function", "function": {"name": TOOL}}]},
    {"prediction": {"type": "content", "content": "x"}},
]


@pytest.mark.parametrize("more", AGAINST, ids=str)
async def test_where_it_could_not_be_called_it_is_not_offered_and_nothing_is_marked(
    up: ScriptedUpstream, tmp_path: Path, more: dict[str, Any]
) -> None:
    up.default = Script(fetches=0)
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, asked())
        await proxy.post(asked(turns=1))
        await proxy.post(asked(turns=1) | more)  # of the same conversation
        await begun(proxy, asked(seed=9) | more)
        await proxy.post(asked(seed=9, turns=1))  # one that began so
    assert handles(up.calls[1].body.decode())
    for call in up.calls[2:]:
        assert not handles(call.body.decode())
    assert names(up.calls[1].body) == ["list_orders", TOOL]
    assert names(up.calls[-1].body) == ["list_orders"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_fails_in_the_second_round_fails_as_usual_and_what_was_billed_is_booked(
    up: ScriptedUpstream, tmp_path: Path, stream: bool
) -> None:
    async with proxied(up.url, tmp_path, **ON, upstream__retries=0) as proxy:
        up.script(Script(fetches=0), Script(fetches=1), Script(status=500), Script(fetches=1), Script(fetches=1))
        await begun(proxy, asked())
        answer = await proxy.post(asked(turns=1, stream=stream))
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == "scripted 500"
        await meter_is_in_the_books(proxy, up, 2)
        again = await proxy.post(asked(turns=1, stream=stream))
        assert again.status_code == 200


async def test_a_failure_behind_what_was_seen_breaks_the_stream_off(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **ON, upstream__retries=0) as proxy:
        up.script(Script(fetches=0), Script(fetches=1, first="Let me look."), Script(status=500))
        await begun(proxy, asked())
        answer = await proxy.post(asked(turns=1, stream=True))
        rows = await proxy.rows(2)
    assert "error" in chunks(answer.text)[-1]
    assert rows[1]["outcome"] == "failed"


async def test_an_upstream_that_takes_no_tools_gets_the_clients_own_request(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    up.by_text = {f'"name":"{TOOL}"': Script(status=400)}
    async with proxied(up.url, tmp_path, **ON, compress__tidy=False) as proxy:
        answers = [await proxy.post(asked(turns=turns)) for turns in (0, 1)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [names(call.body) for call in up.calls] == [["list_orders", TOOL], ["list_orders"], ["list_orders"]]
    assert up.calls[-1].json == asked(turns=1)


async def test_an_upstream_that_tells_no_usage_is_counted(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **ON) as proxy:
        up.default = Script(fetches=1, no_usage=True)
        await begun(proxy, asked())
        await proxy.post(asked(turns=1))
        rows = await proxy.rows(2)
    assert rows[1]["usage_source"] == "counted"
    assert rows[1]["tokens_in_sent"] > len(blob()) / 4
    assert rows[1]["baseline_usd"] - rows[1]["cost_usd"] == rows[1]["saved_compress_usd"]


async def test_the_cache_keeps_the_final_answer_alone(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default = Script(fetches=1)
    async with proxied(up.url, tmp_path, **ON | {"cache__mode": "exact"}) as proxy:
        await begun(proxy, asked())
        first = await proxy.post(asked(turns=1))
        await proxy.rows(2)
        second = await proxy.post(asked(turns=1))
        streamed = await proxy.post(asked(turns=1, stream=True))
        rows = await proxy.rows(4)
    assert rows[2]["saved_exact_usd"] == rows[3]["saved_exact_usd"] == rows[1]["baseline_usd"] > 0
    assert second.headers["x-farthing-cache"] == streamed.headers["x-farthing-cache"] == "hit-exact"
    assert second.json()["choices"] == first.json()["choices"]
    assert len(up.calls) == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fetches", [0, 1])
async def test_answers_in_an_encoding_are_read_all_the_same(
    up: ScriptedUpstream, tmp_path: Path, stream: bool, fetches: int
) -> None:
    up.default = Script(fetches=fetches, gzip=True)
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, asked())
        answer = await proxy.post(asked(turns=1, stream=stream))
    assert len(up.calls) == 2 + fetches
    assert TOOL not in answer.text
    if stream:
        said = "".join(
            chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks(answer.text) if chunk["choices"]
        )
    else:
        said = answer.json()["choices"][0]["message"]["content"]
    assert said == "Seen: done. "


async def test_who_leaves_ends_the_rounds_and_what_was_used_is_booked(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **ON) as proxy:
        up.script(Script(fetches=0), Script(fetches=1), Script(hang=True))
        await begun(proxy, asked())
        client = asyncio.create_task(proxy.post(asked(turns=1)))
        while len(up.calls) < 3:
            await asyncio.sleep(0.01)
        client.cancel()
        rows = await proxy.rows(2)
    assert rows[1]["outcome"] == "abandoned"
    assert len(up.calls) == 3
    first, prompt = up.calls[1], rows[1]["tokens_in_sent"] - up.calls[1].tokens_in
    assert prompt > 1000  # of the call that was given up: counted, since it may be billed
    assert rows[1]["cost_usd"] == (2 * (first.tokens_in + prompt) + 8 * first.tokens_out) * 10**6


async def test_the_official_client_sees_nothing_of_it(up: ScriptedUpstream, tmp_path: Path) -> None:
    import openai

    up.default = Script(fetches=1, first="Let me look.")
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, asked())
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0) as client:
            body: Any = asked(turns=1)
            whole = await client.chat.completions.create(**body)
            async with client.chat.completions.stream(**body, stream_options={"include_usage": True}) as live:
                final = await live.get_final_completion()
            up.default = Script(fetches=1, beside="list_orders")
            mixed = await client.chat.completions.create(**body)
            async with client.chat.completions.stream(**body) as live:
                streamed = await live.get_final_completion()
    assert whole.choices[0].message.content == "Seen: done. "
    assert whole.choices[0].message.tool_calls is None
    assert final.choices[0].message.content == "Let me look. \n\nSeen: done. "
    assert not final.choices[0].message.tool_calls
    assert whole.usage is not None
    assert final.usage is not None
    assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    for answer in (mixed, streamed):
        assert [call.function.name for call in answer.choices[0].message.tool_calls or ()] == ["list_orders"]


async def test_a_squeezed_text_and_a_page_can_be_had_whole(up: ScriptedUpstream, tmp_path: Path) -> None:
    lines = [f"2026-01-01 10:00:{i % 60:02d} INFO worker-{i % 4} job {i} done in {i * 7 % 90} ms" for i in range(300)]
    lines[123] = "2026-01-01 10:02:03 ERROR worker-3 job 123 failed: connection reset by db-7"
    rows = "".join(f'<tr class="row r{i}"><td style="x">{i}</td><td><b>item {i}</b></td></tr>' for i in range(60))
    page = f"<!doctype html><html><head><script>var x={{}}</script></head><body><table>{rows}</table></body></html>"
    for text, rule in (("\n".join(lines), "squeeze"), (page, "html")):
        body = asked(turns=1)
        body["messages"][0]["content"] = f"Why did job 123 fail ({rule})?"
        body["messages"][-1]["content"] = text
        up.default = Script(fetches=1)
        async with proxied(up.url, tmp_path / rule, **SQUEEZING, compress__reduce_html=True) as proxy:
            await begun(proxy, body)
            await proxy.post(body)
            row = (await proxy.rows(2))[-1]
        short = up.calls[-2].json["messages"][2]["content"]
        assert rule in row["decisions"]
        assert len(short) < len(text) / 2
        assert len(handles(short)) == 1
        assert up.calls[-1].json["messages"][-1]["content"] == text


async def test_without_the_option_nothing_is_offered_or_marked(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await begun(proxy, asked())
        await proxy.post(asked(turns=1))
    assert all(names(call.body) == ["list_orders"] and not handles(call.body.decode()) for call in up.calls)
    assert not (tmp_path / "removed.db").exists()


async def test_switched_off_later_a_conversation_goes_on_without_markers(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **ON) as proxy:
        await begun(proxy, asked())
        await proxy.post(asked(turns=1))
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(asked(turns=2))
    assert handles(up.calls[1].body.decode())
    assert not handles(up.calls[2].body.decode())


@pytest.mark.parametrize("seed", range(12))
async def test_no_marker_is_ever_sent_without_the_tool_and_each_can_be_followed(
    up: ScriptedUpstream, tmp_path: Path, seed: int
) -> None:
    """Conversations that grow, branch, are edited, ask for what forbids the tool, across restarts and lost stores."""
    rng = random.Random(seed)
    talks: list[list[dict[str, Any]]] = []
    settings, marked, bare = SQUEEZING, 0, 0
    for restart in range(5):
        async with proxied(up.url, tmp_path, **settings) as proxy:
            for step in range(6):
                if restart == 0 and step < 2:
                    talks.append([{"role": "user", "content": f"Question {step}"}])
                    turns = talks[-1]
                else:
                    turns = rng.choice(talks)
                    if rng.random() < 0.2:
                        turns = turns[: rng.randrange(1, len(turns) + 1)]
                        talks.append(turns)
                    if rng.random() < 0.1:
                        turns[0] = {"role": "user", "content": f"Edited {rng.random()}"}
                    if rng.random() < 0.7:
                        answered = {"role": "tool", "tool_call_id": "x", "content": result(rng.randrange(3))}
                        turns += [told(rng.randrange(3))[1], answered]
                more = rng.choice([{}, {}, {}, *AGAINST]) if restart else {}
                up.default = Script(fetches=rng.randrange(2))
                before = len(up.calls)
                await proxy.post({"model": "m", "messages": turns, "tools": [OWN_TOOL], "temperature": 0} | more)
                for call in up.calls[before:]:
                    found = handles(call.body.decode())
                    marked += bool(found)
                    bare += not found and len(turns) > 1
                    if found:
                        assert names(call.body) == ["list_orders", TOOL]
                for turn in up.calls[-1].json["messages"][len(turns) :]:
                    if turn["role"] == "tool":
                        assert turn["content"] in {blob(n) for n in range(3)}
            await quiet(proxy)
        for name in ("decided", "removed"):
            if rng.random() < 0.3:
                for path in tmp_path.glob(f"{name}.db*"):
                    path.unlink()
        settings = rng.choice([SQUEEZING, SQUEEZING, ON, UNPROVEN])
    assert marked
    assert bare
