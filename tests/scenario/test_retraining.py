"""A student is trained anew by itself, proves itself beside the one before, and takes over without a restart."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from farthing.proxy import student_files
from farthing.proxy.students import Students
from tests.fakes.commands import ran
from tests.fakes.proxying import PRICES, Proxied, chat, proxied, quiet
from tests.fakes.students import ready
from tests.fakes.upstream import Script, ScriptedUpstream, scripted

SYSTEM = {"role": "system", "content": "Name the intent."}
THINGS = tuple(f"{what} {thing}" for what in ("a new", "the old", "my") for thing in (
    "lamp", "chair", "bike", "phone", "pair of shoes", "book", "table", "wine", "coat", "clock", "mirror", "kettle",
))  # fmt: skip
FORMS = ("I want my money back for {}", "where is the parcel with {}?", "please refund {}", "track my delivery of {}")
SETTINGS: dict[str, Any] = {
    "prices": PRICES, "capture__enabled": True, "distill__deadline_ms": 5000, "distill__audit_share": 1.0,
    "distill__retrain_days": 1e-9, "distill__retrain_least_hours": 0,
    "variants": [{"name": "pupil", "student": "intents", "kind": "distilled"}, {"name": "big", "model": "m"}],
    "routes": [{"name": "r", "mode": "serve", "model": "m", "strategy": "cascade", "variants": ["pupil", "big"]}],
}  # fmt: skip


async def ask(proxy: Proxied, round: int) -> list[str]:
    """Every thing in every form; who answered, as the client is told."""
    told = []
    for thing in THINGS:
        for form in FORMS:
            text = form.format(f"{thing} no {round}")
            answer = await proxy.post(chat() | {"messages": [SYSTEM, {"role": "user", "content": text}]})
            told.append(answer.headers["x-farthing-model"])
    await quiet(proxy)
    return told


def run(*words: str) -> None:
    done = ran("distill", *words)
    assert done.returncode == 0, done.stderr + done.stdout


def answering(proxy: Proxied) -> str:
    students = proxy.running.services.students
    assert isinstance(students, Students)
    (known,) = students.known.values()
    return known.student.hash


def answers(up: ScriptedUpstream) -> None:
    up.by_text = {word: Script(says="track") for word in ("parcel", "track")}
    up.default = Script(says="refund")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state whose student was trained by the command line on what came by; each test has a copy of its own."""
    state = tmp_path_factory.mktemp("first") / "state"
    async with scripted() as up:
        answers(up)
        async with proxied(up.url, state, **SETTINGS) as proxy:
            await ask(proxy, 0)
            await ask(proxy, 1)
    lenient = ("--max-disagree", "0.2", "--level", "0.2", "--near", "0", "--state", str(state))
    await asyncio.to_thread(run, "train", "--name", "intents", *lenient)
    return state


async def test_it_learns_again_proves_itself_and_takes_over(first: Path, tmp_path: Path) -> None:
    state = shutil.copytree(first, tmp_path / "state")
    async with scripted() as up:
        answers(up)

        async with proxied(up.url, state, **SETTINGS) as proxy:
            await ready(proxy)
            training, policies = proxy.running.training, proxy.running.policies
            await training.open()
            await ask(proxy, 2)
            old, before = answering(proxy), policies.standing.active
            await training.tick()
            assert training.latest["intents"]["result"] == "heir", training.latest
            heir = proxy.services.state.heirs["intents"]
            assert answering(proxy) == old and not heir.standing.serves  # it has yet to prove itself
            policies.hindered = lambda: "the experiment x is under way"
            await ask(proxy, 3)
            assert heir.standing.serves and heir.did["answered"] == 0
            await training.tick()
            assert answering(proxy) == old and training.waits == {"intents": "the experiment x is under way"}
            policies.hindered = None
            await training.tick()
            assert answering(proxy) == heir.student.hash != old
            assert policies.standing.active == policies.standing.file != before
            told = await ask(proxy, 4)  # which of them it holds for its own hangs on what it was trained with
            rows = await proxy.rows()
            (incident,) = [one for one in proxy.services.state.incidents.latest() if one["kind"] == "student"]
            second = policies.standing.active
        mine = [row for row in rows if (row["model_served"], row["policy"]) == ("student/intents", second)]
        assert 0 < len(mine) == told.count("student/intents")
        assert (incident["policy"], incident["evidence"]["before"]) == (second, old)
        assert policies.book.changes(1)[0]["what"] == "a student was retrained"
        assert student_files.heir_of(state, "intents") is None

        async with proxied(up.url, state, **SETTINGS) as proxy:
            assert proxy.running.policies.standing.active == second and answering(proxy) == heir.student.hash
            await proxy.running.policies.roll_back()  # the version before has the student before
            assert proxy.running.policies.standing.active == before and answering(proxy) == old
        async with proxied(up.url, state, **SETTINGS) as proxy:
            assert proxy.running.policies.standing.active == before and answering(proxy) == old


async def test_a_training_that_fails_leaves_the_old_one_says_so_once_and_is_tried_again(
    first: Path, tmp_path: Path
) -> None:
    """Of a student that went back to observe, until there is an heir: not in a year, when its schedule comes."""
    state = shutil.copytree(first, tmp_path / "state")
    async with scripted() as up:
        answers(up)
        failing = {"distill__retrain_timeout_s": 0.01, "distill__retrain_days": 365}
        async with proxied(up.url, state, **SETTINGS | failing) as proxy:
            training, old = proxy.running.training, answering(proxy)
            assert proxy.services.students is not None
            (known,) = proxy.services.students.known.values()
            known.standing = replace(known.standing, turn=1)
            await training.tick()
            await training.tick()
            told = [one for one in proxy.services.state.incidents.latest() if one["kind"] == "student"]
            assert training.latest["intents"]["result"] == "failed" and answering(proxy) == old
    assert [one["why"] for one in told] == ["it took longer than 0.01 s"]
    assert len((state / "students" / "training.jsonl").read_bytes().splitlines()) == 2
