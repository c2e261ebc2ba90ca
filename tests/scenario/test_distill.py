"""The whole way: traffic is captured, a student is trained of it, proves itself on live requests and takes over."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.capture import Capture
from tests.fakes.commands import ran
from tests.fakes.proxying import PRICES, Proxied, chat, proxied, quiet
from tests.fakes.students import ready
from tests.fakes.upstream import Script, scripted

SYSTEM = {"role": "system", "content": "Name the intent."}
THINGS = ("a lamp", "two chairs", "the red bike", "a phone", "my new shoes", "an old book", "that table", "some wine")
ASKS = {
    "refund": (
        "I want my money back for {}", "please refund {}", "{} broke, I want a refund", "return my payment for {}",
    ),
    "track": ("where is the parcel with {}?", "track my delivery of {}", "has {} been shipped", "when will {} arrive"),
}  # fmt: skip


def asked(text: str) -> dict[str, Any]:
    return chat() | {"messages": [SYSTEM, {"role": "user", "content": text}]}


def texts(round: int) -> list[str]:
    forms = [form for pair in zip(*ASKS.values(), strict=True) for form in pair]
    return [form.format(f"{thing} no {round}") for thing in THINGS for form in forms]


async def ask_all(proxy: Proxied, round: int) -> None:
    for text in texts(round):
        await proxy.post(asked(text))
        await quiet(proxy)


@pytest.mark.long  # what learns again (test_retraining.py) is trained first, in the same way
async def test_a_student_is_trained_of_traffic_and_takes_over(tmp_path: Path) -> None:
    state = tmp_path / "state"
    settings: dict[str, Any] = {
        "prices": PRICES, "capture__enabled": True, "distill__deadline_ms": 5000,
        "variants": [{"name": "pupil", "student": "intents", "kind": "distilled"}, {"name": "big", "model": "m"}],
        "routes": [{"name": "r", "mode": "serve", "model": "m", "strategy": "cascade", "variants": ["pupil", "big"]}],
    }  # fmt: skip
    async with scripted() as up:
        up.by_text = {word: Script(says="track") for word in ("parcel", "track", "shipped", "arrive")}
        up.default = Script(says="refund")
        async with proxied(up.url, state, **settings) as proxy:
            for round in range(3):
                await ask_all(proxy, round)
            capture = proxy.services.state.capture
            assert isinstance(capture, Capture)
        teacher_calls = len(up.calls)

        out = tmp_path / "out"
        exported = await asyncio.to_thread(ran, "distill", "export", str(out), "--state", str(state), "--json")
        assert exported.returncode == 0, exported.stderr
        facts = json.loads(exported.stdout)
        lines = [json.loads(line) for line in (out / "train.jsonl").read_text("utf-8").splitlines()]
        assert facts["teachers"] == {"m": sum(part["rows"] for part in facts["parts"].values())}
        assert {line["messages"][-1]["content"].strip() for line in lines} == {"refund", "track"}

        lenient = ("--max-disagree", "0.2", "--level", "0.2", "--near", "0", "--state", str(state))
        strict = await asyncio.to_thread(ran, "distill", "train", "--name", "x", "--near", "0", "--state", str(state))
        assert strict.returncode == 1 and "A proof takes 149 answers" in strict.stdout
        trained = await asyncio.to_thread(ran, "distill", "train", "--name", "intents", *lenient)
        assert trained.returncode == 0, trained.stderr + trained.stdout
        assert "observes until live traffic proves it too" in trained.stdout

        async with proxied(up.url, state, **settings) as proxy:
            await ready(proxy)
            for round in range(3, 6):
                await ask_all(proxy, round)
            rows = await proxy.rows()
        served = [row for row in rows if row["model_served"] == "student/intents"]
        assert len(served) > 60 and len(up.calls) - teacher_calls < 130
        assert all(row["cost_usd"] == 0 and row["saved_route_usd"] > 0 for row in served)

    shown = json.loads((await asyncio.to_thread(ran, "distill", "show", "--state", str(state), "--json")).stdout)
    assert [(one["name"], one["serves"], one["fell_back"]) for one in shown] == [("intents", True, 0)]
    again = await asyncio.to_thread(ran, "distill", "train", "--name", "intents", *lenient, "--json")
    assert json.loads(again.stdout)["dropped"]["a student's answer"] >= 60


def test_a_name_that_is_a_path_and_a_format_that_is_none_are_refused(tmp_path: Path) -> None:
    for words in (
        ("train", "--name", "../x"),
        ("export", "--format", "x"),
        ("show", "nobody"),
        ("train", "--name", "x"),
        ("train", "--name", "x", "--route", "none"),
    ):
        found = ran("distill", *words, "--state", str(tmp_path))
        assert found.returncode == 2, (words, found.stdout, found.stderr)
