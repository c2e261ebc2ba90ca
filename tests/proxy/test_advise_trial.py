"""What a trial asks, of whom, and within which budget."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from farthing.proxy.advise_ask import Asker, Budget, OutOfBudget, as_case
from farthing.proxy.advise_find import find_parts
from farthing.proxy.advise_requests import Asked, read_requests
from farthing.proxy.advise_trial import Terms, cases_of, slice_of, try_draft
from farthing.proxy.config_prices import ModelPrice
from farthing.proxy.prices import RateCard
from farthing.proxy.tokens import Tokenizer
from tests.fakes.upstream import Script, ScriptedUpstream, scripted

SYSTEM = "Be brief, and name the team."


def requests(endpoint: str, count: int = 12) -> list[Asked]:
    bodies: list[dict[str, Any]] = []
    for number in range(count):
        user = [{"role": "user", "content": f"Question {number}?"}]
        if endpoint == "responses":
            bodies.append({"model": "m", "instructions": SYSTEM, "input": user})
        elif endpoint == "messages":
            bodies.append({"model": "m", "system": SYSTEM, "messages": user, "max_tokens": 20})
        else:
            bodies.append({"model": "m", "messages": [{"role": "system", "content": SYSTEM}, *user]})
    return read_requests(json.dumps(bodies), "f")[0]


def asker(up: ScriptedUpstream, http: httpx.AsyncClient, budget: Budget) -> Asker:
    price = ModelPrice(input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(1))
    return Asker(http, up.url, "sk-test", RateCard({"m": price}), budget, 0.0, Tokenizer(), asyncio.Semaphore(4))


@pytest.mark.parametrize("endpoint", ["chat", "responses", "messages"])
async def test_every_kind_of_request_is_asked_under_both_versions(endpoint: str) -> None:
    asked = requests(endpoint)
    (part,) = find_parts(asked)
    async with scripted() as up, httpx.AsyncClient() as http:
        up.default = Script(says="cards")
        budget = Budget(None)
        trial = await try_draft(asked, part, "Name the team.", asker(up, http, budget), Terms(8, 0.0, 0.1, 0.05), None)
        said = [json.dumps(call.json) for call in up.calls]
        headers = [{name.lower(): value for name, value in call.headers.items()} for call in up.calls]
    assert (trial.judged.cases, trial.judged.differ, trial.failed, trial.available) == (8, 0, 0, 12), trial.error
    assert sum(SYSTEM in text for text in said) == 8
    assert sum("Name the team." in text and SYSTEM not in text for text in said) == 8
    keys = {head.get("x-api-key") or head.get("authorization") for head in headers}
    assert keys == ({"sk-test"} if endpoint == "messages" else {"Bearer sk-test"})
    assert trial.long is not None and trial.short is not None
    used = trial.long.tokens_in + trial.short.tokens_in + trial.long.tokens_out + trial.short.tokens_out
    assert budget.spent_pico == used * 1_000_000


@pytest.mark.parametrize(
    ("endpoint", "body", "sent"),
    [
        ("chat", {"model": "a", "n": 3, "stream": True, "stream_options": {}}, {"model": "m", "temperature": 0}),
        ("responses", {"input": "x", "temperature": 1}, {"input": "x", "model": "m", "temperature": 0, "store": False}),
        ("messages", {"max_tokens": 9, "top_p": 0.5}, {"max_tokens": 9, "model": "m", "temperature": 0}),
        ("messages", {}, {"max_tokens": 1024, "model": "m", "temperature": 0}),
    ],
)  # fmt: skip
def test_a_case_is_whole_single_and_greedy(endpoint: str, body: dict[str, Any], sent: dict[str, Any]) -> None:
    assert as_case(endpoint, body, "m") == sent


def test_equal_requests_are_one_case_and_chained_ones_none() -> None:
    asked = requests("responses", 3)
    chained = read_requests(json.dumps([dict(asked[0].body) | {"previous_response_id": "r"}]), "f")[0]
    every = [*asked, *asked, *chained]
    (part,) = find_parts(every)
    assert len(part.requests) == 7
    assert len(cases_of(every, part)) == 3


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ({"messages": [{"role": "user", "content": "x" * 20}]}, "chat, short message"),
        ({"messages": [{"role": "user", "content": "x" * 200}]}, "chat, middling message"),
        ({"messages": [{"role": "user", "content": "x" * 2000}]}, "chat, long message"),
        ({"slice": "faq", "messages": [{"role": "user", "content": "x"}]}, "faq"),
    ],
)
def test_slices(line: dict[str, Any], name: str) -> None:
    assert slice_of(read_requests(json.dumps(line), "f")[0][0]) == name


def test_what_is_held_counts_against_the_budget_until_it_is_settled() -> None:
    budget = Budget(100)
    budget.hold(60)
    with pytest.raises(OutOfBudget):
        budget.hold(41)
    budget.settle(60, 10)
    budget.hold(90)
    with pytest.raises(OutOfBudget):
        budget.hold(1)
