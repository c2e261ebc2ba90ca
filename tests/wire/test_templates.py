"""Apps that paste instructions or documents into the user's message, through the official client: what varies is
matched, what is common is a wall."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.cache.test_template import PAPER, RULES, STATIONS
from tests.fakes.proxying import Proxied, proxied
from tests.fakes.upstream import scripted
from tests.wire.test_semantic import SERVE, learnt, loaded

OBSERVE = SERVE | {"semantic__mode": "observe", "semantic__unproven": False}
QUESTIONS = (
    "How long are lost things kept?",
    "Where do I find the lift?",
    "May my dog come along?",
    "Who runs the counter?",
    "How do I reset my password?",
)
AGAIN = "How can I reset my password?"
SYLLABLES = [one + two for one in "bdfgklmnprst" for two in "aeiou"]
NAMES = [f"{one}{SYLLABLES[n * 7 % 60]}{SYLLABLES[n * 11 % 60]}" for n, one in enumerate(SYLLABLES)]
LONG = "".join(f"The {' '.join(NAMES[n : n + 6])} lies behind the {NAMES[n + 1][::-1]}. " for n in range(50))


def client_of(proxy: Proxied) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0, timeout=30)


async def ask(client: openai.AsyncOpenAI, text: str, **more: Any) -> str:
    """How the answer was had."""
    raw = await client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": text}], **more
    )
    assert (await asyncio.to_thread(raw.parse)).choices[0].message.content
    return str(raw.headers["x-farthing-cache"])


async def taught(proxy: Proxied, client: openai.AsyncOpenAI, forms: Sequence[str], last: str = QUESTIONS[4]) -> None:
    """Ask four questions under each form and `last` under the first, while nothing is served; then serve."""
    asked = [form.format(question) for form in forms for question in QUESTIONS[:4]] + [forms[0].format(last)]
    for text in asked:
        assert await ask(client, text) == "miss"
        await settled(proxy)
    await learnt(proxy, len(asked))
    config = proxy.services.config
    serving = config.semantic.model_copy(update={"mode": "serve", "unproven": True, "deadline_ms": 5000})
    await proxy.running.reload(config.model_copy(update={"semantic": serving}))
    proxy.services = proxy.running.services
    await loaded(proxy)


async def settled(proxy: Proxied) -> None:
    """Wait until the semantic thread has nothing to do."""
    thread = proxy.services.thread
    assert thread is not None
    for _ in range(500):
        await asyncio.sleep(0.01)
        if not thread.pending:
            return
    raise AssertionError("the semantic thread is busy")


@pytest.mark.parametrize("form", [RULES + "{}", "{}\n\nAnswer from this text:\n" + PAPER, LONG + "\n\nQuestion: {}"])
async def test_what_varies_is_matched(tmp_path: Path, form: str) -> None:
    """The last form is beyond the model's window; its first three entries waited until the form was known."""
    async with scripted() as up, proxied(up.url, tmp_path, **OBSERVE) as proxy:
        await loaded(proxy)
        async with client_of(proxy) as client:
            await taught(proxy, client, [form])
            assert await ask(client, form.format(AGAIN)) == "hit-semantic"
            assert await ask(client, form.format(AGAIN.replace("reset", "not reset"))) == "miss"
            assert await ask(client, form.format("Where could I find the lift?")) == "hit-semantic"
        rows = await proxy.rows(len(QUESTIONS) + 3)
        explained = await proxy.client.post(
            "/farthing/api/cache/explain",
            json={"body": {"model": "m", "messages": [{"role": "user", "content": form.format(AGAIN)}]},
                  "headers": {"authorization": "Bearer sk-one"}},
            headers={"x-farthing-admin": "1"},
        )  # fmt: skip
    assert rows[len(QUESTIONS)]["cache_reason"] == "unproven"
    found = explained.json()
    assert found["varying"].endswith(AGAIN) and found["route"].endswith(" parts")
    assert found["nearest"][0]["text"].endswith(QUESTIONS[4])


async def test_another_template_or_document_is_a_wall(tmp_path: Path) -> None:
    forms = [f"{RULES}{PAPER}\n{{}}", f"{RULES}{STATIONS}\n{{}}", f"{RULES.replace('brief', 'thorough')}{PAPER}\n{{}}"]
    async with scripted() as up, proxied(up.url, tmp_path, **OBSERVE) as proxy:
        await loaded(proxy)
        async with client_of(proxy) as client:
            await taught(proxy, client, forms)
            assert await ask(client, forms[1].format(AGAIN)) == "miss"
            assert await ask(client, forms[2].format(AGAIN)) == "miss"
            assert await ask(client, forms[0].format(AGAIN)) == "hit-semantic"


async def test_one_slot_in_what_is_common_is_a_wall(tmp_path: Path) -> None:
    """A number inside the pasted part: the same question about another one is another question."""
    form = f"{RULES}Tariff {{}} applies from May on and ends in June.\n{PAPER}\n{{}}"
    numbers = (12, 123, 1)
    async with scripted() as up, proxied(up.url, tmp_path, **OBSERVE) as proxy:
        await loaded(proxy)
        async with client_of(proxy) as client:
            await taught(proxy, client, [form.replace("{}", str(number), 1) for number in numbers])
            for number in (123, 1, 2, 1234):
                assert await ask(client, form.format(number, AGAIN)) == "miss"
            assert await ask(client, form.format(12, AGAIN)) == "hit-semantic"


async def test_what_is_asked_for_now_stays_unmatched_though_a_template_says_it(tmp_path: Path) -> None:
    form = RULES + "Use today's timetable. " + PAPER + "\n{}"
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        async with client_of(proxy) as client:
            for question in (*QUESTIONS, AGAIN):
                assert await ask(client, form.format(question)) == "miss"
        rows = await proxy.rows(6)
    assert ["semantic", "passed by", "freshness"] in json.loads(rows[-1]["decisions"])


async def test_switched_off_texts_are_matched_whole(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, **OBSERVE, semantic__templates=False) as proxy:
        await loaded(proxy)
        async with client_of(proxy) as client:
            for question in QUESTIONS:
                assert await ask(client, f"{LONG}\n{question}") == "miss"
            assert await ask(client, f"{LONG}\n{AGAIN}") == "miss"
        await settled(proxy)
        assert proxy.services.thread is not None and proxy.services.thread.entries == 0


async def test_after_a_restart_the_form_is_learnt_again_and_old_entries_are_found(tmp_path: Path) -> None:
    form = LONG + "\n\nQuestion: {}"
    async with scripted() as up:
        async with proxied(up.url, tmp_path, **OBSERVE) as proxy, client_of(proxy) as client:
            await loaded(proxy)
            await taught(proxy, client, [form])
        async with proxied(up.url, tmp_path, **SERVE) as proxy, client_of(proxy) as client:
            await loaded(proxy)
            for question in ("What is a kind?", "Who may travel?", "Where does it begin?"):
                assert await ask(client, form.format(question)) == "miss"
            assert await ask(client, form.format(AGAIN)) == "hit-semantic"
