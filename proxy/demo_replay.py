"""The demo's client: asks the questions through the official OpenAI client, and counts what came back.

Rules of this file: `plan`, `Tally` and `judge` are pure; counts and times are what the client saw, money is what
the answers' headers said. What the ledger knows is the report's to tell.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from farthing.proxy.clock import Clock
from farthing.proxy.traffic import Question, sample

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageFunctionToolCallParam, ChatCompletionMessageParam
    from openai.types.chat.chat_completion_message_function_tool_call_param import Function

__all__ = ["Answered", "Judged", "Plan", "Step", "Tally", "judge", "plan", "replay"]

SYSTEM = "You are the support assistant of a bank. Answer the customer's question in one short sentence."
MAX_TOKENS = 24
CONCURRENCY = 3
BURST = 8
LOOK_UPS = 6
RECORDS = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One request to make. `records`: what a tool has found about the customer, as JSON; '' where none was asked."""

    question: Question
    stream: bool
    records: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests in order: `before`, `burst` all at once, `after`, and those for which a tool was asked."""

    before: tuple[Step, ...]
    burst: tuple[Step, ...]
    after: tuple[Step, ...]
    looked_up: tuple[Step, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.burst) + len(self.after) + len(self.looked_up)


def plan(questions: Sequence[Question], requests: int, rng: random.Random) -> Plan:
    """`requests` requests in all, half of them streams; the burst is one question that nobody asks otherwise.

    The burst (8, fewer in short runs) shows identical requests sharing one upstream call. The last ones (6, fewer in
    short runs) carry made transactions as a tool's result, which the compressor writes shorter.
    """
    burst, look_ups = min(BURST, requests // 4), min(LOOK_UPS, requests // 10)
    asked = sample(questions, requests - burst - look_ups, rng)
    fresh = [question for question in questions if question not in set(asked)]
    steps = [Step(question, rng.random() < 0.5) for question in asked]
    together = [Step(rng.choice(fresh or list(questions)), stream=True)] * burst
    middle = len(steps) // 2
    looked_up = [Step(rng.choice(questions), stream=False, records=transactions(rng)) for _ in range(look_ups)]
    return Plan(tuple(steps[:middle]), tuple(together), tuple(steps[middle:]), tuple(looked_up))


def transactions(rng: random.Random) -> str:
    """What a bank's tool might find: some card payments, indented as many tools write JSON. Made, not real."""
    rows = [
        {
            "transaction_id": f"TX-{rng.randrange(10**6):06d}",
            "booked_at": f"2026-10-{rng.randint(1, 28):02d}T{rng.randint(7, 21):02d}:00:00Z",
            "merchant": rng.choice(("Grocer", "Cafe", "Railway", "Bookshop")),
            "amount": rng.randint(100, 9_000) / 100,
            "currency": "GBP",
            "state": "settled" if number else "pending",
        }
        for number in range(RECORDS)
    ]
    return json.dumps({"customer": f"C-{rng.randrange(10**4):04d}", "transactions": rows}, indent=2)


@dataclass(frozen=True, slots=True)
class Answered:
    """What the client saw. `cache`: the header x-farthing-cache. `saved_usd`: None where no header told it.

    `latency_ms`: until the last byte. `error`: empty on success.
    """

    question: Question
    text: str
    cache: str
    similarity: float | None
    saved_usd: Decimal | None
    latency_ms: float
    error: str = ""


@dataclass(slots=True)
class Tally:
    """Running counts of a replay."""

    answers: list[Answered] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    saved_usd: Decimal = Decimal(0)

    def add(self, answered: Answered) -> None:
        """Count one answer."""
        self.answers.append(answered)
        if answered.error:
            self.failed += 1
            return
        self.counts[answered.cache] += 1
        self.saved_usd += answered.saved_usd or 0

    def latencies_ms(self, cache: str) -> list[float]:
        """The latencies of successful answers had that way, ascending."""
        return sorted(a.latency_ms for a in self.answers if a.cache == cache and not a.error)


def median_and_p95(values: Sequence[float]) -> tuple[float, float | None]:
    """The median and the 95th percentile of ascending values; None for the latter under 20 values."""
    p95 = statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) >= 20 else None
    return statistics.median(values), p95


@dataclass(frozen=True, slots=True)
class Judged:
    """Semantic hits by whose answer they got: a question of the `same` intent, of an`other`, or `untold`."""

    same: int
    other: int
    untold: int


def judge(answers: Iterable[Answered]) -> Judged:
    """Judge each semantic hit by the labels of those questions that the upstream itself gave that very answer.

    The client doesn't see which neighbour a hit came from; it finds it by the answer's text. Where the upstream gave
    the same text to questions of several intents, one of them its own, or to none that was seen, it can't be told.
    """
    answers = list(answers)
    sources: dict[str, set[str]] = {}
    for answered in answers:
        if answered.cache == "miss" and not answered.error:
            sources.setdefault(answered.text, set()).add(answered.question.intent)
    same = other = untold = 0
    for answered in answers:
        if answered.cache != "hit-semantic" or answered.error:
            continue
        intents = sources.get(answered.text, set())
        if intents == {answered.question.intent}:
            same += 1
        elif intents and answered.question.intent not in intents:
            other += 1
        else:
            untold += 1
    return Judged(same, other, untold)


async def replay(
    client: AsyncOpenAI, model: str, planned: Plan, clock: Clock, on_answer: Callable[[Answered], None]
) -> None:
    """Make the planned requests, CONCURRENCY at a time, and tell each answer as it comes."""

    async def work(steps: list[Step]) -> None:
        while steps:
            on_answer(await ask(client, model, steps.pop(0), clock))

    parts = (planned.before, CONCURRENCY), (planned.burst, BURST), (planned.after + planned.looked_up, CONCURRENCY)
    for steps, workers in parts:
        waiting = list(steps)
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work(waiting))


async def ask(client: AsyncOpenAI, model: str, step: Step, clock: Clock) -> Answered:
    """One request through the official client; an error answer or a broken connection becomes `error`."""
    import openai

    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": step.question.text},
    ]
    if step.records:
        function: Function = {"name": "list_transactions", "arguments": "{}"}
        call: ChatCompletionMessageFunctionToolCallParam = {"id": "call_1", "type": "function", "function": function}
        messages.append({"role": "assistant", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": step.records})
    create = client.chat.completions.with_raw_response.create
    failures: tuple[type[Exception], ...] = (openai.OpenAIError, *transport_errors())
    begun = clock.tick_s()
    try:
        if step.stream:
            streamed = await create(
                model=model,
                messages=messages,
                max_tokens=MAX_TOKENS,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
            headers: Mapping[str, str] = streamed.headers
            pieces = [c.choices[0].delta.content or "" async for c in streamed.parse() if c.choices]
            text = "".join(pieces)
        else:
            whole = await create(model=model, messages=messages, max_tokens=MAX_TOKENS, temperature=0)
            headers = whole.headers
            text = whole.parse().choices[0].message.content or ""
    except failures as error:
        elapsed = (clock.tick_s() - begun) * 1000
        return Answered(step.question, "", "", None, None, elapsed, error=f"{type(error).__name__}: {error}"[:300])
    return Answered(
        question=step.question,
        text=text,
        cache=headers.get("x-farthing-cache", ""),
        similarity=float(number) if (number := decimal(headers.get("x-farthing-similarity"))) is not None else None,
        saved_usd=decimal(headers.get("x-farthing-saved-usd")),
        latency_ms=(clock.tick_s() - begun) * 1000,
    )


def transport_errors() -> tuple[type[Exception], ...]:
    """What a connection that breaks in mid-stream raises: openai 2 stands on httpx, openai 3 on its fork httpx2."""
    found = [importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
    return tuple(module.TransportError for module in found)


def decimal(text: str | None) -> Decimal | None:
    """The header's number; None where there is none."""
    try:
        return Decimal(text) if text else None
    except InvalidOperation:
        return None
