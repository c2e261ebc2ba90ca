"""Recode and squeeze on the wire: watched first, served once proved, the same bytes ever after, and honest books."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from farthing.compress.rows import decode_rows
from farthing.proxy.clock import SystemClock
from tests.fakes.proxying import Proxied, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.wire.test_reuse import quiet

SAYS = "The order is on its way and arrives on Monday."
LOOSE: dict[str, Any] = {
    "compress__recode": "serve",
    "compress__max_worse": 0.25,
    "compress__confidence": 0.8,
    "compress__shadow_share": 1.0,
    "compress__shadow_daily_usd": "5",
    "compress__latency_usd_per_s": 0,
    "cache__mode": "off",
}
# Time costs nothing here, since a busy test machine takes much of it: what pays is tests/compress/test_pay.py's.
UNPROVEN: dict[str, Any] = {
    "compress__recode": "serve",
    "compress__unproven": True,
    "compress__latency_usd_per_s": 0,
    "cache__mode": "off",
}


def orders(salt: int = 0, count: int = 120) -> list[dict[str, Any]]:
    return [
        {
            "order_id": f"A-{salt}-{i:04d}",
            "state": "shipped" if i % 7 else "late",
            "total_eur": i * 3.5,
            "items": i % 5 + 1,
        }
        for i in range(count)
    ]


def told(salt: int = 0, count: int = 120, **more: Any) -> list[dict[str, Any]]:
    """A question, a call, and its result."""
    call = {"id": f"c{salt}", "type": "function", "function": {"name": "list_orders", "arguments": "{}"}}
    return [
        {"role": "user", "content": f"Which of my orders is late ({salt})?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{salt}", "content": json.dumps(orders(salt, count), indent=1), **more},
    ]


def body(turns: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": turns, "temperature": 0} | more


def results(call_body: bytes) -> list[str]:
    return [turn["content"] for turn in json.loads(call_body)["messages"] if turn["role"] == "tool"]


def said(row: dict[str, Any]) -> list[str]:
    return [f"{action}: {reason}" for stage, action, reason in json.loads(row["decisions"]) if stage == "compress"]


@pytest.fixture
def up(up: ScriptedUpstream) -> ScriptedUpstream:
    up.default.says = SAYS
    return up


async def test_by_default_a_result_is_tidied_and_what_recoding_would_save_is_told(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    up.default.wait_s = 0.3
    async with proxied(up.url, tmp_path) as proxy:
        proxy.services.state.tokenizer.count("loads the ranks", "m")
        await proxy.post(body(told()))
        (row,) = await proxy.rows(1)
    assert results(up.calls[0].body) == [json.dumps(orders(), separators=(",", ":"))]
    assert row["compress"] == "tidy"
    assert any(one.startswith("observed: rows would save ") for one in said(row))
    assert not (tmp_path / "decided.db").exists()


async def test_unproven_recoding_is_sent_decodes_to_the_same_and_stands_in_the_books(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(body(told()))
        (row,) = await proxy.rows(1)
    (sent,) = results(up.calls[0].body)
    assert json.loads(decode_rows(sent)) == orders()
    assert len(sent) < len(json.dumps(orders())) / 2
    assert row["compress"] == "recode"
    assert row["tokens_in_original"] > row["tokens_in_sent"]
    assert row["saved_compress_usd"] > 0
    assert row["baseline_usd"] - row["cost_usd"] == row["saved_compress_usd"]
    assert any("predicted" in one for one in said(row))


async def test_in_a_growing_conversation_every_earlier_byte_stays_across_a_restart(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    turns: list[dict[str, Any]] = []
    for salt in range(3):
        turns += told(salt)
        async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
            for _ in range(2):
                await proxy.post(body(turns))
            turns.append({"role": "assistant", "content": SAYS})
            turns.append({"role": "user", "content": f"And then ({salt})?"})
            await proxy.post(body(turns))
    sent = [json.loads(call.body)["messages"] for call in up.calls]
    for before, after in pairwise(sent):
        assert after[: len(before)] == before
    assert all("[{" not in text for text in results(up.calls[-1].body))


async def test_a_lost_decision_leaves_old_turns_tidied(up: ScriptedUpstream, tmp_path: Path) -> None:
    turns = [*told(1), {"role": "assistant", "content": SAYS}, *told(2)]
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(body(turns))
    old, new = results(up.calls[0].body)
    assert json.loads(old) == orders(1)
    assert json.loads(decode_rows(new)) == orders(2)


async def until_recoded(proxy: Proxied, up: ScriptedUpstream, most: int = 60) -> int:
    """Send conversations until a client's own request is recoded; how many that took."""
    for salt in range(most):
        answer = await proxy.post(body(told(salt)))
        assert answer.status_code == 200
        await quiet(proxy)
        row = next(row for row in await proxy.rows() if row["id"] == answer.headers["x-farthing-id"])
        if row["compress"] == "recode":
            return salt
    raise AssertionError(f"nothing was recoded after {most}")


async def test_a_route_is_recoded_once_shadows_have_proved_it_and_they_are_paid_for_in_the_books(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        took = await until_recoded(proxy, up)
        rows = await proxy.rows()
    assert 3 < took < 40
    shadows = [row for row in rows if row["endpoint"] == "shadow"]
    assert len(shadows) >= took
    assert all(row["overhead_usd"] > 0 and row["cost_usd"] == 0 for row in shadows)
    assert {row["compress"] for row in shadows[:took]} == {"recode"}
    meter = sum(2 * call.tokens_in + 8 * call.tokens_out for call in up.calls) * 10**6
    assert sum((row["cost_usd"] or 0) + (row["overhead_usd"] or 0) for row in rows) == meter


async def test_answers_that_get_worse_prove_nothing(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.by_text = {'\\"order_id\\":': Script(says=SAYS)}  # it stands in the whole form; in rows it is a column's name
    up.default.says = "I can't tell."
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        with pytest.raises(AssertionError, match="nothing was recoded"):
            await until_recoded(proxy, up, 25)
        rows = await proxy.rows()
    assert sum(row["endpoint"] == "shadow" for row in rows) >= 20


async def test_a_route_goes_back_by_itself_when_its_answers_get_worse(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        took = await until_recoded(proxy, up)
        up.by_text = {'\\"order_id\\":': Script(says="Something else altogether, and 17 more.")}
        kinds = []
        for salt in range(took + 1, took + 40):
            await proxy.post(body(told(salt)))
            await quiet(proxy)
            kinds.append((await proxy.rows())[-1]["compress"])
        rows = [row for row in await proxy.rows() if row["endpoint"] == "chat"]
    assert rows[-1]["compress"] == "tidy"


@pytest.mark.parametrize(("asked", "form"), [("off", ""), ("tidy", "tidy"), ("squeeze", "recode")])
async def test_a_header_can_ask_for_less_and_never_for_more(
    up: ScriptedUpstream, tmp_path: Path, asked: str, form: str
) -> None:
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(body(told()), x_farthing_compress=asked)
        (row,) = await proxy.rows(1)
    assert row["compress"] == form
    assert (asked == "squeeze") == ("plan: squeeze is switched off in the configuration" in said(row))


async def test_nothing_before_a_clients_cache_mark_is_touched_nor_later_once_it_was_sent_so(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    first = [*told(1, **mark), *told(2)[1:]]
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(body(first))
        unmarked = [*told(1), *told(2)[1:], {"role": "assistant", "content": SAYS}, {"role": "user", "content": "Why?"}]
        await proxy.post(body(unmarked))
    whole = json.dumps(orders(1), indent=1)
    for call in up.calls:
        old, new = results(call.body)
        assert old == whole
        assert json.loads(decode_rows(new)) == orders(2)


async def test_squeeze_leaves_out_what_the_question_does_not_need_and_says_so(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    lines = [
        f"2026-01-01 10:{i // 60:02d}:{i % 60:02d} INFO worker-{i % 4} job {i} done in {i * 7 % 90} ms"
        for i in range(300)
    ]
    lines[123] = "2026-01-01 10:02:03 ERROR worker-3 job 123 failed: connection reset by db-7"
    turns = [*told()[:2], {"role": "tool", "tool_call_id": "c0", "content": "\n".join(lines)}]
    turns[0] = {"role": "user", "content": "Why did job 123 fail?"}
    async with proxied(up.url, tmp_path, **UNPROVEN, compress__squeeze="serve") as proxy:
        await proxy.post(body(turns))
        (row,) = await proxy.rows(1)
    (sent,) = results(up.calls[0].body)
    assert "connection reset by db-7" in sent
    assert len(sent) < len("\n".join(lines)) / 2
    assert row["compress"] == "squeeze", said(row)
    assert row["saved_compress_usd"] > 0


async def test_what_the_operator_marks_as_retrieved_may_be_squeezed_and_nothing_beside_it(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    passages = "\n\n".join(
        f"Passage {i}. The town of Nr{i} lies on a river. Its mill was built in {1700 + i}. People there grow apples."
        for i in range(150)
    )
    text = f"Use the documents.\n<docs>{passages}</docs>\nWhen was the mill of Nr17 built?"
    async with proxied(
        up.url,
        tmp_path,
        **UNPROVEN,
        compress__squeeze="serve",
        compress__retrieved=[{"begin": "<docs>", "end": "</docs>"}],
    ) as proxy:
        await proxy.post(body([{"role": "user", "content": text}]))
        (row,) = await proxy.rows(1)
    sent = json.loads(up.calls[0].body)["messages"][0]["content"]
    assert row["compress"] == "squeeze", said(row)
    assert sent.startswith("Use the documents.\n<docs>")
    assert sent.endswith("</docs>\nWhen was the mill of Nr17 built?")
    assert "1717" in sent
    assert len(sent) < len(text) * 0.6


async def test_an_answer_to_a_squeezed_request_is_not_served_to_who_asked_for_the_whole(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **UNPROVEN | {"cache__mode": "exact"}) as proxy:
        await proxy.post(body(told()))
        await proxy.rows(1)
        again = await proxy.post(body(told()))
        whole = await proxy.post(body(told()), x_farthing_compress="off")
    assert again.headers["x-farthing-cache"] == "hit-exact"
    assert whole.headers["x-farthing-cache"] == "miss"


async def test_streams_are_compressed_and_shadowed_alike(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        answer = await proxy.post(body(told(), stream=True))
        assert answer.text.rstrip().endswith("data: [DONE]")
        await quiet(proxy)
        kinds = {row["endpoint"] for row in await proxy.rows()}
    assert kinds == {"chat", "shadow"}


async def test_a_purge_of_everything_forgets_what_was_decided(up: ScriptedUpstream, tmp_path: Path) -> None:
    turns = [*told(1), {"role": "assistant", "content": SAYS}, {"role": "user", "content": "And then?"}]
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        await proxy.post(body(told(1)))
        purged = await proxy.post({}, "/farthing/api/cache/purge", x_farthing_admin="1")
        assert purged.status_code == 200
        await proxy.post(body(turns))
    assert [text[:1] == "[" for call in up.calls for text in results(call.body)] == [False, True]


async def test_a_shadow_that_fails_costs_nothing(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.by_text = {"JSON as rows": Script(status=500)}
    async with proxied(up.url, tmp_path, **LOOSE, upstream__retries=0) as proxy:
        for salt in range(3):
            await proxy.post(body(told(salt)))
            await quiet(proxy)
        rows = await proxy.rows()
        spent = proxy.services.state.shadowed.spent_pico
    shadows = [row for row in rows if row["endpoint"] == "shadow"]
    assert shadows
    assert {row["status"] for row in shadows} == {500}
    assert not any(row["overhead_usd"] or row["tokens_out"] for row in shadows)
    assert spent == 0


async def test_a_compressed_request_that_fails_used_no_tokens(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default.status = 500
    async with proxied(up.url, tmp_path, **UNPROVEN, upstream__retries=0) as proxy:
        await proxy.post(body(told()))
        (row,) = await proxy.rows(1)
    assert row["compress"] == "recode"
    assert (row["tokens_in_sent"], row["tokens_out"], row["cost_usd"]) == (None, None, 0)


async def test_an_upstream_that_fails_is_not_asked_once_more(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default.status = 429
    async with proxied(up.url, tmp_path, **LOOSE, upstream__retries=0) as proxy:
        for salt in range(3):
            await proxy.post(body(told(salt)))
            await quiet(proxy)
    assert len(up.calls) == 3


async def test_a_question_about_what_was_recoded_before_is_looked_at_as_well(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    asked = []
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        salt = await until_recoded(proxy, up)
        turns = told(salt)
        for number in range(12):
            turns += [{"role": "assistant", "content": SAYS}, {"role": "user", "content": f"And number {number}?"}]
            answer = await proxy.post(body(turns))
            await quiet(proxy)
            asked.append(answer.headers["x-farthing-id"])
        rows = await proxy.rows()
    assert all(row["compress"] == "recode" for row in rows if row["id"] in asked)
    assert {row["cache_reason"] for row in rows if row["endpoint"] == "shadow"} & {
        f"whole shadow of {id}" for id in asked
    }


async def test_a_route_that_nobody_was_allowed_to_look_at_is_looked_at_again_and_serves(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await until_recoded(proxy, up)
        policy = await proxy.services.state.recoded.use(proxy.services.config.compress)
        for standing in policy._routes.values():  # type: ignore[attr-defined]
            standing.unaudited = 1_000  # as after a day without money
        kinds = []
        for salt in range(100, 106):
            await proxy.post(body(told(salt)))
            await quiet(proxy)
            kinds.append([row for row in await proxy.rows() if row["endpoint"] == "chat"][-1]["compress"])
    assert kinds[0] == "tidy"
    assert kinds[-1] == "recode"


async def test_marks_that_overlap_leave_the_bytes_of_earlier_messages(up: ScriptedUpstream, tmp_path: Path) -> None:
    marks = [{"begin": "<docs>", "end": "</docs>"}, {"begin": "<doc>", "end": "</doc>"}]
    passages = "\n\n".join(f"Passage {i}. The mill of Nr{i} was built in {1700 + i}. Apples grow." for i in range(150))
    text = f"<docs>Found:\n<doc>{passages}</doc>\n</docs> When was the mill of Nr17 built?"
    more = [{"role": "assistant", "content": SAYS}, {"role": "user", "content": text}]
    async with proxied(up.url, tmp_path, **UNPROVEN, compress__squeeze="serve", compress__retrieved=marks) as proxy:
        await proxy.post(body(told()))
        await proxy.post(body([*told(), *more]))
    first, second = [json.loads(call.body)["messages"] for call in up.calls]
    assert second[:3] == first
    assert len(second[-1]["content"]) < len(text) / 2


class Shifted(SystemClock):
    """The system's clock, some time on."""

    ahead_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self.ahead_s


@pytest.mark.parametrize("asked", ["tidy", "off"])
async def test_turns_that_were_sent_as_the_client_asked_stay_so_once_the_policy_is_long_in_force(
    up: ScriptedUpstream, tmp_path: Path, asked: str
) -> None:
    clock = Shifted()
    async with proxied(up.url, tmp_path, **UNPROVEN, clock=clock) as proxy:
        await proxy.post(body(told(99)))
        clock.ahead_s = 90_000
        less = {"x_farthing_compress": asked} if asked == "tidy" else {"x_farthing_off": "1"}
        await proxy.post(body(told(1)), **less)
        turns = [*told(1), {"role": "assistant", "content": SAYS}, {"role": "user", "content": "And then?"}]
        await proxy.post(body(turns))
    _, first, second = [json.loads(call.body)["messages"] for call in up.calls]
    assert [json.loads(turn["content"]) if turn["role"] == "tool" else turn for turn in second[:3]] == [
        json.loads(turn["content"]) if turn["role"] == "tool" else turn for turn in first
    ]


async def test_a_model_that_proved_nothing_gets_no_text_in_the_form_that_another_has_proved(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        salt = await until_recoded(proxy, up)
        turns = [*told(salt), {"role": "assistant", "content": SAYS}, {"role": "user", "content": "And then?"}]
        await proxy.post(body(turns, model="other"))
        await quiet(proxy)
    sent = [call.body for call in up.calls if json.loads(call.body)["model"] == "other"]
    assert json.loads(results(sent[0])[0]) == orders(salt)


@pytest.mark.parametrize("where", ["seed", "tools", "messages"])
async def test_a_number_beyond_a_double_keeps_no_request_out_of_the_books(
    up: ScriptedUpstream, tmp_path: Path, where: str
) -> None:
    tool = {"type": "function", "function": {"name": "list_orders", "parameters": {"maximum": 987654}}}
    more = {"seed": {"seed": 987654}, "tools": {"tools": [tool]}, "messages": {}}[where]
    turns = told(n=987654) if where == "messages" else told()
    asked = json.dumps(body(turns, **more)).replace("987654", "1e400").encode()
    async with proxied(up.url, tmp_path, **UNPROVEN) as proxy:
        answer = await proxy.post(asked)
        assert answer.status_code == 200
        (row,) = await proxy.rows(1)
    assert row["compress"] == ("tidy" if where == "messages" else "recode")  # no key can be had of such a message
    assert row["saved_compress_usd"] > 0


@pytest.mark.parametrize("endpoint", ["messages", "responses"])
async def test_on_the_other_endpoints_every_earlier_byte_stays_with_parallel_results_branches_and_edits(
    up: ScriptedUpstream, tmp_path: Path, endpoint: str
) -> None:
    new = _anthropic if endpoint == "messages" else _responses
    async with proxied(up.url, tmp_path, **UNPROVEN, compress__squeeze="serve") as proxy:
        turns: list[dict[str, Any]] = []
        for salt in range(3):
            turns = [*turns, *new(salt)]
            await _send(proxy, endpoint, turns)
            await _send(proxy, endpoint, turns)
            turns = [*turns, {"role": "assistant", "content": SAYS}]
        branch = [*turns[:-1], *new(7)]
        await _send(proxy, endpoint, branch)
        await _send(proxy, endpoint, [*turns, {"role": "user", "content": "And?"}])
        rows = await proxy.rows(8)
    field = "messages" if endpoint == "messages" else "input"
    sent = [json.loads(call.body)[field] for call in up.calls]
    for before, after in pairwise(sent[:6]):
        assert after[: len(before)] == before
    assert sent[6][: len(sent[5])] == sent[7][: len(sent[5])] == sent[5]
    assert all(row["compress"] in ("recode", "squeeze") for row in rows)
    for row in rows:  # a prompt that falls below the provider's least length is one that it doesn't read
        saved = row["saved_compress_usd"] + row["saved_prompt_cache_usd"]
        assert row["baseline_usd"] - row["cost_usd"] == saved > 0
        assert row["saved_compress_usd"] > 0 >= row["saved_prompt_cache_usd"]


async def _send(proxy: Proxied, endpoint: str, turns: list[dict[str, Any]]) -> None:
    field = "messages" if endpoint == "messages" else "input"
    answer = await proxy.post({"model": "m", field: turns, "max_tokens": 50}, f"/v1/{endpoint}")
    assert answer.status_code == 200


def _anthropic(salt: int) -> list[dict[str, Any]]:
    calls = [{"type": "tool_use", "id": f"t{salt}{i}", "name": "list", "input": {"page": i}} for i in range(2)]
    found = [
        {"type": "tool_result", "tool_use_id": f"t{salt}{i}", "content": [{"type": "text", "text": one}]}
        for i, one in enumerate(_texts_of(salt))
    ]
    return [
        {"role": "user", "content": f"Which of my orders is late ({salt})?"},
        {"role": "assistant", "content": calls},
        {"role": "user", "content": [*found, {"type": "text", "text": "Be brief."}]},
    ]


def _responses(salt: int) -> list[dict[str, Any]]:
    calls = [{"type": "function_call", "call_id": f"c{salt}{i}", "name": "list", "arguments": "{}"} for i in range(2)]
    found = [
        {"type": "function_call_output", "call_id": f"c{salt}{i}", "output": one}
        for i, one in enumerate(_texts_of(salt))
    ]
    return [{"role": "user", "content": f"Which is late ({salt})?"}, *calls, *found]


def _texts_of(salt: int) -> tuple[str, str]:
    lines = [f"2026-01-01 10:{i // 60:02d}:{i % 60:02d} INFO job {i} of {salt} done" for i in range(200)]
    return json.dumps(orders(salt), indent=1), "\n".join(lines)
