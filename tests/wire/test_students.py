"""Students over real servers, with the real embedder: who answers, what is checked, and that the books are right."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI

from farthing.cache.embedder import MiniLmOnnx
from farthing.policies.rollout import Plan
from farthing.policies.student import Student
from farthing.policies.student_standing import Standing
from farthing.proxy import student_files
from farthing.proxy.config import Config
from farthing.proxy.distill_again import answers_from
from farthing.proxy.distill_template import Divided, divided
from farthing.proxy.exchange import Endpoint
from farthing.proxy.row import SAVED_COLUMNS
from farthing.proxy.student_pins import pinned, unpinned
from farthing.proxy.students import Students
from tests.fakes.proxying import PRICES, Proxied, chat, proxied, quiet
from tests.fakes.students import ready
from tests.fakes.upstream import Script, ScriptedUpstream, scripted

SYSTEM = {"role": "system", "content": "Name the intent."}
ROUTED: dict[str, Any] = {
    "prices": PRICES,
    "variants": [{"name": "pupil", "student": "s", "kind": "distilled"}, {"name": "big", "model": "m"}],
    "routes": [{"name": "r", "mode": "serve", "model": "m", "strategy": "cascade", "variants": ["pupil", "big"]}],
    "distill__audit_share": 1e-9,
    "distill__teach_share": 1e-9,
    "distill__deadline_ms": 5000,
    "cache__mode": "exact",
}
REFUNDS = ("I want my money back for order {}", "please refund purchase {}", "when do I get a refund for {}?")
WEATHERS = ("will it rain in town {}?", "what is the weather like in {}", "is it sunny near {} today?")


def asked(text: str, **more: Any) -> dict[str, Any]:
    return chat(**more) | {"messages": [SYSTEM, {"role": "user", "content": text}]}


@pytest.fixture(scope="module")
def taught() -> Student:
    """Two labels, whose weights are the means of a few texts' vectors."""
    embedder = MiniLmOnnx()
    means = [embedder.embed([text.format(9) for text in texts]).mean(axis=0) for texts in (REFUNDS, WEATHERS)]
    place = divided(Endpoint.CHAT, asked("x"))
    assert isinstance(place, Divided)
    weights = np.array(means, np.float32) * 9
    labels = ("refund", "Weather!")
    return Student(
        "s", place.template, "chat", "m", embedder.name, labels, weights, np.zeros(2, np.float32), 0.9, 0.3, 0.2
    )  # fmt: skip


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with scripted() as upstream:
        upstream.by_text |= {word: Script(says="refund") for word in ("money back", "refund")}
        upstream.by_text |= {word: Script(says="Weather!") for word in ("rain", "weather", "sunny")}
        yield upstream


@asynccontextmanager
async def school(
    up: ScriptedUpstream, tmp_path: Path, student: Student, *, serves: bool = True, **settings: Any
) -> AsyncIterator[tuple[Proxied, Students]]:
    """A proxy with that student, whose client the teacher has answered once."""
    student_files.save(tmp_path, student)
    student_files.save_standing(tmp_path, student, replace(Standing(student.bound, student.level), serves=serves))
    async with proxied(up.url, tmp_path, **(ROUTED | settings)) as proxy:
        students = await ready(proxy)
        await proxy.post(chat("hello, not of this template"))
        await quiet(proxy)
        up.calls.clear()
        yield proxy, students


def why(row: dict[str, Any]) -> list[str]:
    return [f"{action}: {reason}" for stage, action, reason in json.loads(row["decisions"]) if stage == "student"]


def said(response: Any) -> str:
    text: str = response.json()["choices"][0]["message"]["content"]
    return text.rstrip()  # the scripted upstream ends each word with a space


async def test_a_student_answers_in_its_teachers_words_for_nothing(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    async with school(up, tmp_path, taught) as (proxy, _):
        answer = await proxy.post(asked(REFUNDS[0].format(5)))
        again = await proxy.post(asked(REFUNDS[0].format(5)))
        row = (await proxy.rows(3))[1]
    assert said(answer) == said(again) == "refund" and up.calls == []
    assert answer.headers["x-farthing-model"] == "student/s"
    assert answer.json()["usage"]["total_tokens"] == row["tokens_in_sent"] + row["tokens_out"]
    assert (row["cost_usd"], row["upstream_ms"], row["model_served"]) == (0, None, "student/s")
    assert row["baseline_usd"] == row["saved_route_usd"] == sum(row[name] for name in SAVED_COLUMNS) > 0
    assert row["usage_source"] == "counted" and row["modelled"] == 1
    assert why(row)[0].startswith("answered: s: ")
    assert again.headers["x-farthing-cache"] != "hit-exact"  # it may have lost its standing by then


async def test_one_that_may_wait_is_answered_at_once(up: ScriptedUpstream, tmp_path: Path, taught: Student) -> None:
    """For nothing, where a batch would cost half."""
    async with school(up, tmp_path, taught, upstream__batch=True, defer__min_s=0) as (proxy, _):
        answer = await proxy.post(asked(REFUNDS[0].format(5)), x_farthing_defer="24h")
        row = (await proxy.rows(2))[1]
    assert answer.status_code == 200 and said(answer) == "refund" and row["cost_usd"] == 0
    assert ["defer", "at once", "a student may answer it"] in json.loads(row["decisions"])


async def test_its_own_declared_price_is_booked(up: ScriptedUpstream, tmp_path: Path, taught: Student) -> None:
    models = PRICES["models"] | {"student/s": {"input_usd_per_mtok": 0, "request_usd": 0.000001}}
    async with school(up, tmp_path, taught, prices={"models": models}) as (proxy, _):
        await proxy.post(asked(REFUNDS[0].format(5)))
        row = (await proxy.rows(2))[1]
    assert row["cost_usd"] == 10**6 and row["price_source"] == "config"


@pytest.mark.parametrize("usage", [False, True])
async def test_streams_are_answered_too(up: ScriptedUpstream, tmp_path: Path, taught: Student, usage: bool) -> None:
    async with school(up, tmp_path, taught) as (proxy, _):
        client = AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0)
        body = asked(WEATHERS[0].format("York"))
        more = {"stream_options": {"include_usage": True}} if usage else {}
        stream = await client.chat.completions.create(**body, stream=True, **more)
        chunks = [chunk async for chunk in stream]
        await client.close()
        row = (await proxy.rows(2))[1]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Weather!"
    assert any(chunk.usage is not None for chunk in chunks) is usage
    assert up.calls == [] and row["model_served"] == "student/s" and row["stream"] == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (asked("what is the capital of France?"), "abstained: s: 0."),
        (asked(REFUNDS[0].format(1), temperature=0.5), "passed by: of another template"),
        (chat("refund"), "passed by: of another template"),
        (asked(REFUNDS[0].format(1), store=True), "passed by: to be stored upstream"),
        (asked("refund " * 400), "passed by: the text is longer than the model's window"),
    ],
)  # fmt: skip
async def test_what_it_is_not_sure_of_or_was_not_taught_is_its_teachers(
    up: ScriptedUpstream, tmp_path: Path, taught: Student, body: dict[str, Any], reason: str
) -> None:
    async with school(up, tmp_path, taught) as (proxy, _):
        await proxy.post(body)
        row = (await proxy.rows(2))[1]
    assert len(up.calls) == 1 and row["model_served"] == "m" and row["cost_usd"] == row["baseline_usd"] > 0
    assert why(row)[0].startswith(reason)


async def test_a_client_whom_the_teacher_never_answered_gets_nothing_from_it(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    refusal = {"error": {"message": "bad key", "type": "invalid_request_error"}}
    async with school(up, tmp_path, taught) as (proxy, _):
        up.by_text = {}
        up.default = Script(status=401, body=json.dumps(refusal).encode())
        stranger = [await proxy.post(asked(REFUNDS[0].format(at)), Authorization="Bearer sk-two") for at in (1, 2)]
        known = await proxy.post(asked(REFUNDS[0].format(3)))
        revoked = await proxy.post(asked("what is the capital of France?"))  # the upstream refuses that one now
        after = await proxy.post(asked(REFUNDS[0].format(4)))
    assert [answer.status_code for answer in stranger] == [401, 401]
    assert (known.status_code, revoked.status_code, after.status_code) == (200, 401, 401)


async def test_one_that_is_late_or_missing_costs_nothing_but_its_deadline(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    async with school(up, tmp_path, taught) as (proxy, students):
        embeds = students.embeds

        class Slow:
            name = embeds.name

            async def __call__(self, text: str) -> Any:
                await asyncio.sleep(30)

        students.embeds, students.deadline_s = Slow(), 0.02
        late = await proxy.post(asked(REFUNDS[0].format(1)))
        student_files.place(tmp_path, "s").unlink()
        student_files.place(tmp_path, f"s@{taught.hash}").unlink()
        await proxy.running.reload(unpinned(proxy.services.config))
        missing = await proxy.post(asked(REFUNDS[0].format(2)))
        rows = await proxy.rows(3)
    assert said(late) == said(missing) == "refund" and len(up.calls) == 2
    assert why(rows[1]) == ["late: nothing within 20 ms"]


async def test_it_begins_in_observe_and_serves_once_its_bound_is_proved_on_live_requests(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    async with school(up, tmp_path, taught, serves=False) as (proxy, students):
        (known,) = students.known.values()
        for at in range(40):
            answer = await proxy.post(asked(REFUNDS[at % 3].format(at)))
            assert said(answer) == "refund"
            await quiet(proxy)
            if known.standing.serves:
                break
        asked_before = len(up.calls)
        served = await proxy.post(asked(WEATHERS[0].format("Rome")))
        rows = await proxy.rows(asked_before + 2)
        await quiet(proxy)
    assert known.standing.serves and asked_before == known.standing.evidence.seen > 5
    assert said(served) == "Weather!" and len(up.calls) == asked_before
    assert why(rows[1]) == ["observes: s"] and why(rows[-1])[0].startswith("answered")
    again = student_files.standing_of(tmp_path, taught)
    assert again.serves and again.evidence.bad == 0


async def test_a_share_is_audited_in_the_background_and_a_worse_one_goes_back_to_observe(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    async with school(up, tmp_path, taught, distill__audit_share=1.0) as (proxy, students):
        told: list[str] = []
        students.note = lambda what, why, evidence: told.append(f"{what}: {why}")
        (known,) = students.known.values()
        first = await proxy.post(asked(REFUNDS[0].format(1)))
        await quiet(proxy)
        audit = next(row for row in await proxy.rows(3) if row["endpoint"] == "audit")
        assert answers_from(tmp_path, taught) == taught.threshold
        assert known.standing.evidence.seen == 1 and known.standing.evidence.bad == 0
        up.by_text = {}
        up.default = Script(says="something else")  # the teacher has changed its mind
        for at in range(60):
            await proxy.post(asked(REFUNDS[0].format(at + 2)))
            await quiet(proxy)
            if not known.standing.serves:
                break
        back = await proxy.post(asked(REFUNDS[1].format(7)))
        rows = await proxy.rows()
    assert audit["cache_reason"] == f"audit of {first.headers['x-farthing-id']}"
    assert audit["overhead_usd"] > 0 and audit["cost_usd"] == 0 and audit["model_served"] == "m"
    assert known.standing.turn == 1 and said(back) == "something else"
    assert len(told) == 1 and "goes back to observe" in told[0]
    assert student_files.standing_of(tmp_path, taught).turn == 1
    assert answers_from(tmp_path, taught) == math.inf  # an heir needn't answer what this one said wrongly
    bill = sum(row["cost_usd"] + row["overhead_usd"] for row in rows[1:])
    assert bill == up.bill(("2", "1", "8")) * 10**12


async def test_what_it_does_is_told_to_operators(up: ScriptedUpstream, tmp_path: Path, taught: Student) -> None:
    variants = [*ROUTED["variants"], {"name": "ghost", "student": "nobody"}]
    async with school(up, tmp_path, taught, distill__audit_share=1.0, variants=variants) as (proxy, _):
        for text in (REFUNDS[0].format(1), WEATHERS[0].format(2), "what is the capital of France?"):
            await proxy.post(asked(text))
        await quiet(proxy)
        told = (await proxy.client.get("/farthing/api/students")).json()
        metrics = (await proxy.client.get("/metrics")).text
    one, ghost = told["students"]
    assert ghost == {"name": "nobody", "state": "not there", "training": None}
    assert [one[name] for name in ("name", "state", "answered", "abstained", "compared", "differed")] == [
        "s", "serves", 2, 1, 2, 0,
    ]  # fmt: skip
    assert one["hash"] == taught.hash and one["now"]["compared"] == 2 and one["heir"] is None
    for line in ("answered_total", "compared_total"):
        assert f'farthing_student_{line}{{student="s"}} 2.0' in metrics
    assert 'farthing_student_abstained_total{student="s"} 1.0' in metrics
    assert 'farthing_student_serving{student="s"} 1.0' in metrics
    assert 'farthing_student_bound_ratio{student="s"} 0.3' in metrics


async def test_requests_drawn_for_teaching_are_the_teachers_and_are_compared(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    async with school(up, tmp_path, taught, distill__teach_share=1.0) as (proxy, students):
        await proxy.post(asked(REFUNDS[0].format(1)))
        await quiet(proxy)
        row = (await proxy.rows(2))[1]
        (known,) = students.known.values()
    assert why(row) == ["left to the teacher: drawn for teaching"] and known.standing.evidence.seen == 1


async def test_without_money_for_its_audit_a_request_is_the_teachers(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    async with school(up, tmp_path, taught, distill__audit_share=1.0, semantic__audit_daily_usd=0) as (proxy, students):
        await proxy.post(asked(REFUNDS[0].format(1)))
        await quiet(proxy)
        row = (await proxy.rows(2))[1]
        (known,) = students.known.values()
    assert why(row) == ["left to the teacher: no audit may be paid for"] and known.standing.evidence.seen == 1


async def test_a_route_that_observes_lets_its_student_watch(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    routes = [ROUTED["routes"][0] | {"mode": "observe"}]
    async with school(up, tmp_path, taught, routes=routes) as (proxy, students):
        await proxy.post(asked(REFUNDS[0].format(1)))
        await quiet(proxy)
        (known,) = students.known.values()
    assert len(up.calls) == 1 and known.standing.evidence.seen == 1


async def test_a_student_trained_anew_begins_anew_after_a_reload(
    up: ScriptedUpstream, tmp_path: Path, taught: Student
) -> None:
    async with school(up, tmp_path, taught) as (proxy, _):
        before = proxy.services.routing
        student_files.save(tmp_path, replace(taught, threshold=0.95))
        changed = proxy.services.config.model_copy(
            update={"distill": proxy.services.config.distill.model_copy(update={"deadline_ms": 60.0})}
        )
        first = proxy.running.policies.standing.active
        await proxy.running.reload(unpinned(changed))
        assert proxy.running.policies.standing.active != first  # a policy's version names its students
        services = proxy.running.services
        assert services.students is not None and before is not None and services.routing is not None
        (known,) = services.students.known.values()
    assert known.student.threshold == 0.95 and not known.standing.serves
    assert services.routing.routes.routes[0].signature != before.routes.routes[0].signature


async def test_a_reload_beside_another_policys_coming_reads_its_students_again(
    up: ScriptedUpstream, tmp_path: Path, taught: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with school(up, tmp_path, taught) as (proxy, _):
        config, policies, loop = proxy.services.config, proxy.running.policies, asyncio.get_running_loop()
        again = config.distill.model_copy(update={"deadline_ms": 60.0})
        read: list[str] = []

        def reading(given: Config) -> Config:
            made = pinned(given)
            if not read:  # while that was read another student came, with a policy that is promoted meanwhile
                student_files.save(tmp_path, replace(taught, threshold=0.95))
                other = given.model_copy(update={"distill": again})
                promoted = policies.promote(other, now=True, plan=Plan(), unit="request")
                read.append("first")
                asyncio.run_coroutine_threadsafe(promoted, loop).result(10)
            read.append(made.routes[0].name)
            return made

        monkeypatch.setattr("farthing.proxy.rollouts.pinned", reading)
        later = again.model_copy(update={"deadline_ms": 70.0})
        await proxy.running.reload(unpinned(config.model_copy(update={"distill": later})))
        services = proxy.running.services
        assert services.students is not None
        (known,) = services.students.known.values()
    assert len(read) == 4  # the reload's, the promotion's, and the reload's again
    assert (services.config.distill.deadline_ms, known.student.threshold) == (70.0, 0.95)
