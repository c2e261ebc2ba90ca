"""A real run and its replay, held against each other: the same hits, the same money, row by row and in all.

The proxy runs with its ledger in front of a scripted upstream; capture lines are written from what the client sent and
the rows that came of it. Replayed under the same configuration, they must add up to what the ledger says.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from farthing.cache.embedder import open_embedder
from farthing.cache.verifier import Verifier
from farthing.proxy.config import Config, load
from farthing.proxy.prices import RateCard
from farthing.proxy.replay_facts import reading_of
from farthing.proxy.replay_lane import Lane
from farthing.proxy.replay_near import NearLane, Reader
from farthing.proxy.replay_read import open_trace
from farthing.proxy.replay_run import Run, play
from farthing.proxy.row import MONEY_COLUMNS
from tests.fakes.proxying import PRICES, Proxied, chat, proxied
from tests.fakes.upstream import Call, Script, scripted
from tests.wire.test_counterfactual import USD_PER_MTOK, Asked, Turns, mixed, system, user, world
from tests.wire.test_counterfactual import run as run_both
from tests.wire.test_reuse import SAYS, pairs, quiet
from tests.wire.test_semantic import loaded

TOOL_RESULT = json.dumps([{"id": n, "name": f"item {n}", "price": 10 * n} for n in range(20)], indent=2)


def with_tool(question: str, **more: Any) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": TOOL_RESULT},
    ]
    return {"model": "m", "messages": turns} | more


class Capturing:
    """Sends requests, and keeps what a capture store would."""

    def __init__(self, proxy: Proxied) -> None:
        self.proxy = proxy
        self.sent: dict[str, tuple[str, dict[str, Any], Any]] = {}

    async def post(self, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> str:
        """Send one; the proxy's id for it."""
        answer = await self.proxy.post(body, path, **headers)
        try:
            whole = answer.json()
        except ValueError:
            whole = None  # a stream: a capture holds its whole form, which is known to the store alone
        name = answer.headers["x-farthing-id"]
        self.sent[name] = (path, body, whole)
        await asyncio.sleep(0.02)
        while len(self.proxy.services.state.tasks):
            # An answer is kept when its flight has ended, after its client has it: what a prompt was sent without and
            # each input of a batch are counted first, by a tokenizer that must be loaded once. Till then one joins it.
            await asyncio.sleep(0.02)
        return name

    async def lines(self, *, rows: bool = True) -> list[dict[str, Any]]:
        """The capture's lines, in the ledger's order. `rows`: with the ledger's row beside each."""
        found = []
        for row in await self.proxy.rows(len(self.sent)):
            if row["id"] not in self.sent:
                continue  # an audit: no client asked for it
            path, body, whole = self.sent[row["id"]]
            kept = row if rows else {name: row[name] for name in ("latency_ms", "upstream_ms", "model_served")}
            found.append(
                {
                    "id": row["id"],
                    "ts": row["ts"],
                    "tenant": row["tenant"],
                    "user": row["user"],
                    "tags": json.loads(row["tags"]),
                    "endpoint": row["endpoint"],
                    "path": path,
                    "stream": bool(row["stream"]),
                    "request": body,
                    "response": whole,
                    "status": row["status"],
                    "row": kept,
                }
            )
        return found


def replayed(config: Config, trace: Path, **lane: Any) -> Run:
    """The trace under the configuration, in this process."""
    card = RateCard(config.prices.models, config.upstream.provider, config.upstream.url)
    run = Run([Lane(config, 0, card, **lane)])
    play(run, open_trace(trace), [reading_of(config, near="near" in lane, beyond=False)], "", processes=1)
    return run


def written(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


async def ask(seen: Capturing) -> None:
    """Traffic of many kinds: repeats, other users, tools, bypasses, errors, requests at the same time."""
    for _ in range(3):
        await seen.post(chat("where is my parcel"))
        await seen.post(with_tool("what do you have"))
    await seen.post(chat("where is my parcel"), Authorization="Bearer sk-two")
    await seen.post(chat("where is my parcel", temperature=0))
    await seen.post(chat("where is my parcel", temperature=0.0))
    await seen.post(chat("where is my parcel"), Cache_Control="no-cache")
    await seen.post(chat("where is my parcel"), Cache_Control="no-store")
    await seen.post(chat("where is my parcel"), x_farthing_off="1")
    await seen.post(with_tool("what do you have"), x_farthing_off="1")
    await seen.post(chat("where is my parcel"), x_farthing_cache="off")
    await seen.post(chat("look it up", tools=[{"type": "web_search"}]))
    await seen.post({"model": "m", "input": "say hello"}, "/v1/responses")
    await seen.post({"model": "m", "input": "say hello", "store": False}, "/v1/responses")
    await seen.post({"model": "m", "input": "say hello", "store": False}, "/v1/responses")
    await seen.post({"model": "m", "input": ["one", "two"]}, "/v1/embeddings")
    await seen.post({"model": "m", "input": ["one", "two"]}, "/v1/embeddings")
    await seen.post({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}, "/v1/messages")
    await seen.post({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}, "/v1/messages")
    await seen.post(chat("priceless", model="nobody-knows-this-model"))
    await seen.post(chat("broken please"))
    await seen.post(chat("broken please"))
    await asyncio.gather(*(seen.post(chat("slow please")) for _ in range(4)))
    await seen.post(chat("slow please"))


@pytest.mark.parametrize("rows", [True, False], ids=["with rows", "without rows"])
@pytest.mark.parametrize("ttl_s", [pytest.param(3600, marks=pytest.mark.long), 4])
async def test_a_replay_of_a_real_run_adds_up_to_its_ledger(tmp_path: Path, rows: bool, ttl_s: int) -> None:
    # Somebody else's log knows of no tidying: there the recorded usage is that of the recorded request.
    settings = {"cache__ttl_s": ttl_s, "compress__tidy": rows}
    async with scripted() as upstream, proxied(upstream.url, tmp_path / "state", **settings) as proxy:
        upstream.by_text["broken please"] = Script(status=500)
        upstream.by_text["slow please"] = Script(wait_s=0.4)
        seen = Capturing(proxy)
        await ask(seen)
        if ttl_s == 4:
            await asyncio.sleep(4.2)
            await seen.post(chat("where is my parcel"))
            await seen.post(with_tool("what do you have"))
        lines = await seen.lines(rows=rows)
        ledger = await proxy.rows()
        config = proxy.services.config

    if not rows:  # headers are known from the row alone
        asked = {"no-cache", "no-store", "x-farthing-off", "x-farthing-cache: off"}
        lines, ledger = zip(*((a, b) for a, b in zip(lines, ledger, strict=True) if b["cache_reason"] not in asked),
                            strict=True)  # fmt: skip
    run = replayed(config, written(tmp_path / "trace.jsonl", lines))
    total = run.lanes[0].tally.total

    assert (run.broken.told, run.skipped) == ([], {})
    assert {name: n for name, n in total.statuses.items() if n} == Counter(row["cache"] for row in ledger)
    assert total.statuses["hit-exact"] >= 5 and total.statuses["joined"] == 3
    assert total.unpriced == sum(row["baseline_usd"] is None for row in ledger) == 1
    for name in MONEY_COLUMNS:
        assert (name, getattr(total, name.removesuffix("_usd"))) == (name, sum(row[name] or 0 for row in ledger))
    assert (total.saved_compress > 0) == rows
    assert total.tokens_in == sum(row["tokens_in_original"] or 0 for row in ledger)
    assert total.tokens_sent == sum(row["tokens_in_sent"] or 0 for row in ledger)
    assert total.tokens_out == sum(row["tokens_out"] or 0 for row in ledger)
    if rows:
        assert run.recorded.as_json() == total.as_json() | {"tokens_unknown": 0}


async def test_a_ledger_alone_gives_the_same_exact_hits(tmp_path: Path) -> None:
    async with scripted() as upstream, proxied(upstream.url, tmp_path / "state") as proxy:
        upstream.by_text["slow please"] = Script(wait_s=0.4)
        seen = Capturing(proxy)
        for _ in range(3):
            await seen.post(chat("where is my parcel"))
        await asyncio.gather(*(seen.post(chat("slow please")) for _ in range(3)))
        ledger = await proxy.rows(6)
        config = proxy.services.config

    run = replayed(config, written(tmp_path / "ledger.jsonl", ledger))
    total = run.lanes[0].tally.total

    assert run.formats == {"ledger": 6}
    assert (total.statuses["hit-exact"], total.statuses["joined"], total.statuses["miss"]) == (2, 2, 2)
    assert total.saved_exact == sum(row["saved_exact_usd"] for row in ledger) > 0
    assert total.cost == sum(row["cost_usd"] for row in ledger) > 0


async def test_streams_and_whole_answers_serve_each_other_where_the_proxy_lets_them(tmp_path: Path) -> None:
    completion = {"model": "m", "prompt": "once upon a time"}
    async with scripted() as upstream, proxied(upstream.url, tmp_path / "state") as proxy:
        upstream.by_text["slow please"] = Script(wait_s=1.5)
        seen = Capturing(proxy)
        for text, streams in (("a", (True, True, False)), ("b", (False, True)), ("c", (True, True))):
            for stream in streams:
                await seen.post(chat(text, stream=stream))
        for stream in (True, False, True, False):
            await seen.post(completion | {"stream": stream})
        for stream in ((True, True), (True, False), (False, True)):  # at the same time, the first one first
            first = asyncio.ensure_future(seen.post(chat(f"slow please {stream}", stream=stream[0])))
            await asyncio.sleep(0.1)
            await seen.post(chat(f"slow please {stream}", stream=stream[1]))
            await first
        lines, ledger, config = await seen.lines(), await proxy.rows(), proxy.services.config

    total = replayed(config, written(tmp_path / "trace.jsonl", lines)).lanes[0].tally.total

    assert {name: n for name, n in total.statuses.items() if n} == Counter(row["cache"] for row in ledger)
    assert total.statuses["joined"] == 2 and total.statuses["hit-exact"] >= 4
    assert total.baseline == sum(row["baseline_usd"] for row in ledger)
    assert total.cost == sum(row["cost_usd"] for row in ledger)


async def test_a_shorter_life_costs_what_a_real_run_with_it_costs(tmp_path: Path) -> None:
    """The what-if itself: recorded under one configuration, replayed under another, and that one run for real."""
    question = chat("where is my parcel")
    async with scripted() as upstream:
        async with proxied(upstream.url, tmp_path / "long") as proxy:
            seen = Capturing(proxy)
            for pause_s in (0.0, 1.2, 0.0):
                await asyncio.sleep(pause_s)
                await seen.post(question)
            trace = written(tmp_path / "trace.jsonl", await seen.lines())
        async with proxied(upstream.url, tmp_path / "short", cache__ttl_s=1) as proxy:
            other = Capturing(proxy)
            for pause_s in (0.0, 1.2, 0.0):
                await asyncio.sleep(pause_s)
                await other.post(question)
            real, config = await proxy.rows(3), proxy.services.config

    total = replayed(config, trace).lanes[0].tally.total

    assert total.statuses["hit-exact"] == 1 == sum(row["cache"] == "hit-exact" for row in real)
    assert total.saved_exact == sum(row["saved_exact_usd"] for row in real)
    assert total.cost == sum(row["cost_usd"] for row in real)


def capture_lines(traffic: Sequence[Asked], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was sent beside the rows. The fake clock stands still while an answer is under way, so that it took a tenth
    of a second is said here; who began it stands first."""
    bodies = [asked.body for asked in traffic for _ in range(asked.times)]
    pairs = sorted(zip(rows, bodies, strict=True), key=lambda pair: (pair[0]["ts"], pair[0]["cache"] == "joined"))
    return [
        {
            "id": row["id"],
            "ts": row["ts"],
            "tenant": row["tenant"],
            "endpoint": row["endpoint"],
            "path": "/v1/chat/completions",
            "request": body,
            "status": row["status"],
            "row": row | {"upstream_ms": 100},
        }
        for row, body in pairs
    ]


def with_tools(chance: random.Random, traffic: Sequence[Asked]) -> list[Asked]:
    """The same, and an agent's conversation in between, whose tool's results grow with every turn."""
    turns: Turns = [system("agent", 1300)]
    found = []
    for number, asked in enumerate(traffic):
        found.append(asked)
        if number % 4 == 0:
            turns = [*turns, *with_tool(f"look up {number}")["messages"]] if number % 8 == 0 else turns
            found.append(Asked(turns, chance.choice((5.0, 60.0, 700.0))))
    return found


def amounts(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    rows = list(rows)
    return {name: sum(row[name] or 0 for row in rows) for name in MONEY_COLUMNS}


def of_replay(run: Run) -> dict[str, int]:
    return {name: getattr(run.lanes[0].tally.total, name.removesuffix("_usd")) for name in MONEY_COLUMNS}


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "tools", [pytest.param(False, marks=pytest.mark.long, id="plain"), pytest.param(True, id="tools")]
)
async def test_long_prompts_would_have_read_in_a_replay_what_they_would_in_the_ledger(
    tmp_path: Path, seed: int, tools: bool
) -> None:
    """The provider's prompt cache of a real run, simulated again from what was recorded of it."""
    chance = random.Random(seed)
    traffic = mixed(chance)
    traffic = with_tools(chance, traffic) if tools else traffic
    async with world(tmp_path / "state") as w:
        rows = await run_both(w, traffic, booked=tools)
        config = w.proxy.services.config

    run = replayed(config, written(tmp_path / "trace.jsonl", capture_lines(traffic, rows)))

    total = run.lanes[0].tally.total
    assert {name: n for name, n in total.statuses.items() if n} == Counter(row["cache"] for row in rows)
    assert of_replay(run) == amounts(rows)
    assert run.recorded.as_json() == total.as_json() | {"tokens_unknown": 0}
    assert total.saved_prompt_cache < 0 and total.modelled > 10
    assert (total.saved_compress != 0) == tools


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_hits_of_a_ledger_alone_are_worth_what_the_provider_would_not_have_read(
    tmp_path: Path, seed: int
) -> None:
    """A hit's row counts no reads of the provider's cache, but its amount knows of them: at the full price of its
    prompt a replay would promise more than the ledger says was saved."""
    async with world(tmp_path / "state") as w:
        rows = await run_both(w, mixed(random.Random(seed)))
        config = w.proxy.services.config
    lines = [row | {"upstream_ms": 100} for row in sorted(rows, key=lambda row: (row["ts"], row["cache"] == "joined"))]

    run = replayed(config, written(tmp_path / "ledger.jsonl", lines))

    total, free = run.lanes[0].tally.total, [row for row in rows if row["cache"] in ("hit-exact", "joined")]
    assert total.statuses["hit-exact"] + total.statuses["joined"] == len(free)
    assert total.saved_exact == amounts(rows)["saved_exact_usd"] > 0
    assert total.cost == amounts(rows)["cost_usd"]
    assert sum(row["tokens_in_original"] * 2_000_000 for row in free) > 1.05 * total.saved_exact


def log_lines(calls: Sequence[Call], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A log of requests that knew of no proxy."""
    return [
        {
            "ts": row["ts"],
            "tenant": call.headers["Authorization"],
            "body": call.json,
            "latency_ms": 100,
            "response": "Fine.",
            "usage": {
                "prompt_tokens": call.tokens_in,
                "completion_tokens": call.tokens_out,
                "prompt_tokens_details": {"cached_tokens": call.cached},
            },
        }
        for call, row in zip(calls, rows, strict=True)
    ]


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))])
async def test_a_log_of_no_proxy_comes_to_what_a_real_run_with_one_cost(tmp_path: Path, seed: int) -> None:
    """Hits leave the provider's cache cold, so what goes upstream reads less of it than the log says. The baseline is
    what the log was billed."""
    traffic = mixed(random.Random(seed), headers=False, streams=False)
    async with world(tmp_path / "state") as w:
        rows = await run_both(w, traffic)
        config, calls = w.proxy.services.config, w.direct.calls
        billed, direct = (up.bill(USD_PER_MTOK) for up in (w.behind, w.direct))

    run = replayed(config, written(tmp_path / "trace.jsonl", log_lines(calls, rows)))

    assert run.lanes[0].tally.total.statuses["hit-exact"] > 20
    assert of_replay(run) == amounts(rows)
    assert (of_replay(run)["baseline_usd"], of_replay(run)["cost_usd"]) == (int(direct * 10**12), int(billed * 10**12))
    assert of_replay(run)["saved_prompt_cache_usd"] < 0


async def test_a_provider_that_keeps_less_than_it_says_is_believed_less_in_a_log_as_well(tmp_path: Path) -> None:
    """The baseline stays the bill, whatever the simulation would have promised."""
    turns = [[user("contract", 2000), user(f"q{n % 7}", 5 + n % 3)] for n in range(60)]
    traffic = [Asked(one, 50.0) for one in turns]
    async with world(tmp_path / "state") as w:
        w.direct.prompt_cache = None
        rows = await run_both(w, traffic)
        config, calls, direct = w.proxy.services.config, w.direct.calls, w.direct.bill(USD_PER_MTOK)

    run = replayed(config, written(tmp_path / "trace.jsonl", log_lines(calls, rows)))

    assert of_replay(run)["baseline_usd"] == int(direct * 10**12)
    assert of_replay(run)["saved_prompt_cache_usd"] == 0


async def real_near(tmp_path: Path, count: int, **settings: Any) -> tuple[Config, list[dict[str, Any]], list[Any]]:
    """Questions and rewordings through a real proxy with the semantic cache: config, capture lines, rows."""
    async with scripted() as upstream, proxied(upstream.url, tmp_path / "state", **settings) as proxy:
        upstream.default.says = SAYS
        await loaded(proxy)
        seen = Capturing(proxy)
        for question, again in islice(pairs(), count):
            for text in (question, again):
                await seen.post(chat(text))
                await quiet(proxy)
        rows = [row for row in await proxy.rows(2 * count) if row["endpoint"] == "chat"]
        return proxy.services.config, await seen.lines(), rows


async def test_near_duplicates_are_served_as_in_a_real_run(tmp_path: Path) -> None:
    settings = {"semantic__mode": "serve", "semantic__unproven": True, "semantic__threshold": 0.9}
    config, lines, rows = await real_near(tmp_path, 12, **settings, semantic__deadline_ms=5000)
    reader = Reader(open_embedder("minilm-int8"), Verifier.open())
    trace = written(tmp_path / "trace.jsonl", lines)

    run = replayed(config, trace, near=NearLane(config.semantic, reader))

    total, tally = run.lanes[0].tally.total, run.lanes[0].tally
    assert total.statuses["hit-semantic"] == sum(row["cache"] == "hit-semantic" for row in rows) > 3
    assert total.statuses["miss"] == sum(row["cache"] == "miss" for row in rows) > 0
    assert total.saved_semantic == sum(row["saved_semantic_usd"] for row in rows)
    assert total.baseline == sum(row["baseline_usd"] for row in rows)
    # What was recorded of a hit is the neighbour's own answer, which says nothing of what the model would have said.
    assert (tally.all_wrong.count, tally.near_unknown) == (0, total.statuses["hit-semantic"])


async def test_a_route_is_proved_by_recorded_answers_as_it_is_by_live_ones(tmp_path: Path) -> None:
    loose = {"semantic__mode": "serve", "semantic__max_wrong": 0.25, "semantic__confidence": 0.8}
    config, lines, rows = await real_near(tmp_path, 24, **loose, semantic__deadline_ms=5000)
    reader = Reader(open_embedder("minilm-int8"), Verifier.open())
    trace = written(tmp_path / "trace.jsonl", lines)

    near = replayed(config, trace, near=NearLane(config.semantic, reader)).lanes[0].tally

    assert near.total.statuses["hit-semantic"] == sum(row["cache"] == "hit-semantic" for row in rows) > 0


async def test_wrong_near_duplicates_are_estimated_from_the_traces_own_answers(tmp_path: Path) -> None:
    """Every second rewording is answered otherwise in the trace: half of the served ones were wrong."""
    reader = Reader(open_embedder("minilm-int8"), Verifier.open())
    lines = []
    for number, (question, again) in enumerate(islice(pairs(), 20)):
        for text, said in ((question, "It costs 10 dollars."), (again, f"It costs {10 + number % 2} dollars.")):
            answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": said},
                                   "finish_reason": "stop"}],
                      "usage": {"prompt_tokens": 10, "completion_tokens": 5}}  # fmt: skip
            lines.append({"ts": 1.79e9 + len(lines), "body": chat(text), "response": answer, "tags": {"n": number % 2}})
    flags = {"prices": PRICES, "semantic.mode": "serve", "semantic.unproven": True, "semantic.threshold": 0.9}
    config = load(None, {}, flags)

    tally = replayed(config, written(tmp_path / "t", lines), near=NearLane(config.semantic, reader)).lanes[0].tally

    served = tally.total.statuses["hit-semantic"]
    right, wrong = tally.wrong["tag:n", "0"], tally.wrong["tag:n", "1"]
    assert served >= 10 and tally.all_wrong.count == served == right.count + wrong.count
    assert (right.different + right.unsure, wrong.same) == (0, 0)
    estimate = tally.all_wrong.estimate(0.95)
    assert estimate is not None and estimate.low < estimate.share < estimate.high
