"""What the demo asks, and how it counts and judges the answers."""

import random
from decimal import Decimal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.clock import SystemClock
from farthing.proxy.demo_replay import (
    BURST,
    Answered,
    Judged,
    Plan,
    Step,
    Tally,
    decimal,
    judge,
    median_and_p95,
    plan,
    replay,
)
from farthing.proxy.simulated import MODEL, Pace, application
from farthing.proxy.traffic import Question
from tests.fakes.examples import examples

QUESTIONS = tuple(Question(f"question {i}", f"intent {i % 5}") for i in range(60))


def answered(intent: str, cache: str, text: str, error: str = "") -> Answered:
    return Answered(Question(f"{intent} {cache} {text}", intent), text, cache, None, Decimal("0.5"), 10.0, error)


@given(requests=st.integers(1, 300), seed=st.integers(0, 1000))
@settings(max_examples=examples(60), deadline=None)
def test_a_plan_has_its_size_and_a_fresh_burst(requests: int, seed: int) -> None:
    planned = plan(QUESTIONS, requests, random.Random(seed))
    assert len(planned) == requests
    assert len(planned.burst) == min(BURST, requests // 4)
    assert len(set(planned.burst)) <= 1
    singles = {step.question for step in (*planned.before, *planned.after)}
    if len(singles) < len(QUESTIONS):
        assert all(step.question not in singles for step in planned.burst)
    assert planned == plan(QUESTIONS, requests, random.Random(seed))


def test_about_half_of_the_requests_stream() -> None:
    planned = plan(QUESTIONS, 1000, random.Random(3))
    streams = sum(step.stream for step in (*planned.before, *planned.after))
    assert 400 < streams < 600


def test_a_tally_counts_successes_by_how_they_were_had() -> None:
    tally = Tally()
    for one in (answered("a", "miss", "x"), answered("a", "hit-exact", "x"), answered("a", "miss", "", error="boom")):
        tally.add(one)
    assert (tally.counts["miss"], tally.counts["hit-exact"], tally.failed) == (1, 1, 1)
    assert tally.saved_usd == Decimal("1.0")
    assert tally.latencies_ms("miss") == [10.0]


def test_semantic_hits_are_judged_by_whose_answer_they_got() -> None:
    judged = judge(
        [
            answered("lost card", "miss", "A"),
            answered("exchange", "miss", "B"),
            answered("lost card", "miss", "shrug"),
            answered("exchange", "miss", "shrug"),
            answered("lost card", "hit-semantic", "A"),
            answered("lost card", "hit-semantic", "B"),
            answered("lost card", "hit-semantic", "shrug"),
            answered("lost card", "hit-semantic", "never seen"),
            answered("refund", "hit-semantic", "shrug"),
            answered("refund", "hit-exact", "A"),
        ]
    )
    assert judged == Judged(same=1, other=2, untold=2)


def test_few_values_have_no_95th_percentile() -> None:
    assert median_and_p95([1.0, 2.0, 9.0]) == (2.0, None)
    assert median_and_p95([float(x) for x in range(101)]) == (50.0, 95.0)


def test_a_header_that_is_no_number_is_no_number() -> None:
    assert [decimal(text) for text in ("0.25", "", None, "soon")] == [Decimal("0.25"), None, None, None]


async def test_a_replay_asks_everything_through_the_official_client() -> None:
    import openai

    server = TestServer(application(Pace(0, 0)), host="127.0.0.1")
    await server.start_server()
    planned = plan(QUESTIONS, 24, random.Random(1))
    tally = Tally()
    async with openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="none", max_retries=0) as client:
        await replay(client, MODEL, planned, SystemClock(), tally.add)
    await server.close()
    steps = (*planned.before, *planned.burst, *planned.after, *planned.looked_up)
    assert len(planned.looked_up) == 2
    assert tally.failed == 0
    assert sorted(a.question.text for a in tally.answers) == sorted(step.question.text for step in steps)
    assert all(a.text.startswith("[simulated]") and a.latency_ms > 0 for a in tally.answers)
    by_question: dict[str, set[str]] = {}
    with_records = {step.question for step in planned.looked_up}
    for a in tally.answers:
        if a.question not in with_records:
            by_question.setdefault(a.question.text, set()).add(a.text)
    assert all(len(texts) == 1 for texts in by_question.values())  # streams and whole answers say the same


@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_is_counted_not_raised(stream: bool) -> None:
    import openai

    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'data: {"id": "x", "object": "chat.completion.chunk", "choices": []}\n\n')
        assert request.transport is not None
        request.transport.close()
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", breaks)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    tally = Tally()
    async with openai.AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="none", max_retries=0) as client:
        await replay(client, MODEL, Plan((Step(QUESTIONS[0], stream),), (), ()), SystemClock(), tally.add)
    await server.close()
    assert tally.failed == 1
    assert tally.answers[0].error
