"""What was learnt of near-duplicates outlives a restart and a reload, and nothing that it doesn't speak for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from farthing.policies.reuse import Action, Candidate, Label, Policy, RouteKey
from farthing.policies.static import Static
from farthing.policies.vcache import VCache
from farthing.policies.verified import Verified
from farthing.proxy import reuse_state
from farthing.proxy.config import Semantic
from farthing.proxy.learnt import Learnt, lines, load, save
from farthing.proxy.reuse_state import REUSE, new_policy
from farthing.proxy.tasks import TaskGroup

ROUTE = RouteKey("t", "m 1")
LOOSE = Semantic(mode="serve", max_wrong=0.25, confidence=0.8)


def taught(policy: Policy, labels: int = 60) -> Policy:
    for number in range(labels):
        candidate = Candidate("e", 0.5 + 0.4 * (number % 10) / 10, 0.9)
        verdict = policy.decide(ROUTE, candidate, 0.5)
        if verdict.action is not Action.SERVE:
            policy.learn(ROUTE, candidate, verdict, Label(0.0))
    return policy


def test_what_is_proved_is_proved_after_a_restart(tmp_path: Path) -> None:
    policy = taught(new_policy(LOOSE))
    assert policy.serves(ROUTE)
    save(tmp_path / "reuse.json", lines(REUSE, LOOSE, policy))
    again = load(tmp_path / "reuse.json", REUSE, LOOSE)
    assert again.serves(ROUTE)
    assert again.state() == policy.state()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"made_with": 1}', b'{"made_with": "another scorer", "policy": {}}', None],
)
def test_what_can_not_be_trusted_is_turned_aside(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "reuse.json"
    save(path, lines(REUSE, LOOSE, taught(new_policy(LOOSE))))
    whole = path.read_bytes()
    if content is None:  # of the right scorer, but damaged within
        kept = [orjson.loads(line) for line in whole.splitlines()]
        next(part for part in kept[1:] if part[0] == "routes" and part[1])[1][0][2]["book"]["evidence"] = [[-1, 0]]
        content = b"\n".join(map(orjson.dumps, kept))
    path.write_bytes(content)
    assert load(path, REUSE, LOOSE).state() == []
    assert not path.exists()
    assert (tmp_path / "reuse.other.json").read_bytes() == content


def test_another_scorer_turns_the_file_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reuse.json"
    save(path, lines(REUSE, LOOSE, taught(new_policy(LOOSE))))
    other = tmp_path / "verifier.json"
    other.write_text("{}", "utf-8")
    monkeypatch.setattr(reuse_state, "MODEL", other)
    assert not load(path, REUSE, LOOSE).serves(ROUTE)
    assert (tmp_path / "reuse.other.json").exists()


def test_no_file_is_no_evidence_and_no_complaint(tmp_path: Path) -> None:
    assert load(tmp_path / "reuse.json", REUSE, LOOSE).state() == []
    assert list(tmp_path.iterdir()) == []


def test_a_stricter_promise_is_judged_anew_by_the_same_evidence(tmp_path: Path) -> None:
    save(tmp_path / "reuse.json", lines(REUSE, LOOSE, taught(new_policy(LOOSE))))
    strict = load(tmp_path / "reuse.json", REUSE, LOOSE.model_copy(update={"max_wrong": 0.01}))
    assert not strict.serves(ROUTE)
    assert strict.state()[0].labels > 0


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reuse.json"
    save(path, lines(REUSE, LOOSE, taught(new_policy(LOOSE))))
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(path, lines(REUSE, LOOSE, new_policy(LOOSE)))
    assert path.read_bytes() == before
    assert load(path, REUSE, LOOSE).serves(ROUTE)


def test_the_policy_is_what_the_configuration_asks_for() -> None:
    assert isinstance(new_policy(Semantic()), Verified)
    assert isinstance(new_policy(Semantic(policy="vcache", per="request")), VCache)
    assert isinstance(new_policy(Semantic(unproven=True)), Static)


class Owner:
    """A Learnt with its tasks, closed at the end of a test."""

    def __init__(self, path: Path) -> None:
        self.tasks = TaskGroup()
        self.learnt = Learnt(path, self.tasks.spawn, REUSE)

    async def __aenter__(self) -> Learnt[Semantic]:
        return self.learnt

    async def __aexit__(self, *_: Any) -> None:
        await self.learnt.close()
        await self.tasks.drain(1)


async def test_a_reload_keeps_what_was_learnt_and_not_yet_written(tmp_path: Path) -> None:
    async with Owner(tmp_path) as learnt:
        first = taught(await learnt.use(LOOSE))
        assert await learnt.use(LOOSE.model_copy()) is first
        second = await learnt.use(LOOSE.model_copy(update={"deadline_ms": 7.0}))
        assert second is not first
        assert second.serves(ROUTE)
        observing = await learnt.use(LOOSE.model_copy(update={"mode": "observe"}))
        assert not observing.serves(ROUTE)
        assert observing.state()[0].labels > 0


async def test_a_candidate_shares_what_it_agrees_in_and_brings_the_rest_along(tmp_path: Path) -> None:
    async with Owner(tmp_path) as learnt:
        active = taught(await learnt.use(LOOSE))
        assert await learnt.beside(LOOSE.model_copy()) is active
        other = LOOSE.model_copy(update={"deadline_ms": 7.0})
        candidate = await learnt.beside(other)
        assert candidate is not active
        assert candidate.serves(ROUTE)
        assert await learnt.beside(other.model_copy()) is candidate
        assert await learnt.use(LOOSE) is active
        assert await learnt.use(other) is candidate


async def test_what_a_candidate_learns_is_not_kept_unless_it_comes_into_use(tmp_path: Path) -> None:
    async with Owner(tmp_path) as learnt:
        await learnt.use(LOOSE)
        taught(await learnt.beside(LOOSE.model_copy(update={"deadline_ms": 7.0})))
    assert not load(tmp_path / "reuse-verified.json", REUSE, LOOSE).serves(ROUTE)


async def test_a_reload_to_another_embedder_begins_anew(tmp_path: Path) -> None:
    async with Owner(tmp_path) as learnt:
        taught(await learnt.use(LOOSE))
        other = await learnt.use(LOOSE.model_copy(update={"model": "sentence-transformers:other"}))
        assert other.state() == []


async def test_it_is_written_at_the_end_and_not_where_the_cache_is_off(tmp_path: Path) -> None:
    async with Owner(tmp_path) as learnt:
        await learnt.use(Semantic(mode="off"))
    assert list(tmp_path.iterdir()) == []
    async with Owner(tmp_path) as learnt:
        taught(await learnt.use(LOOSE))
    assert [path.name for path in tmp_path.iterdir()] == ["reuse-verified.json"]
    assert load(tmp_path / "reuse-verified.json", REUSE, LOOSE).serves(ROUTE)


async def test_trying_another_policy_loses_nothing(tmp_path: Path) -> None:
    async with Owner(tmp_path) as learnt:
        taught(await learnt.use(LOOSE))
        await learnt.use(LOOSE.model_copy(update={"unproven": True}))
        again = await learnt.use(LOOSE)
        assert again.serves(ROUTE)


JUDGED = LOOSE.model_copy(update={"second_stage": "judge:cheap"})


@pytest.mark.parametrize(
    "other",
    [
        {"second_stage": "off"},
        {"second_stage": "judge:dear"},
        {"second_stage": "cross-encoder:cheap"},
        {"judge_band": (0.4, 0.85)},
        {"judge_band": (0.5, 0.9)},
    ],
)
def test_what_was_learnt_under_another_second_stage_proves_nothing(tmp_path: Path, other: dict[str, Any]) -> None:
    path = tmp_path / "reuse.json"
    save(path, lines(REUSE, JUDGED, taught(new_policy(JUDGED))))
    assert not load(path, REUSE, JUDGED.model_copy(update=other)).serves(ROUTE)
    assert (tmp_path / "reuse.other.json").exists()


def test_the_question_that_a_judge_is_asked_is_part_of_what_was_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reuse.json"
    save(path, lines(REUSE, JUDGED, taught(new_policy(JUDGED))))
    monkeypatch.setattr(reuse_state.judge, "VERSION", 99)
    assert not load(path, REUSE, JUDGED).serves(ROUTE)


def test_the_judges_money_and_patience_change_nothing_of_what_was_learnt(tmp_path: Path) -> None:
    path = tmp_path / "reuse.json"
    save(path, lines(REUSE, JUDGED, taught(new_policy(JUDGED))))
    assert load(path, REUSE, JUDGED.model_copy(update={"judge_daily_usd": 9, "judge_deadline_ms": 9.0})).serves(ROUTE)


async def test_writing_gives_others_their_turn_after_every_few_routes(tmp_path: Path) -> None:
    """Turns are counted: as many as the file has lines, while the routes are far more."""
    async with Owner(tmp_path) as learnt:
        policy = await learnt.use(LOOSE)
        for number in range(500):
            policy.decide(RouteKey("t", str(number)), Candidate("e", 0.9, 0.9), 0.5)
        turns, writing = 0, asyncio.ensure_future(learnt.close())
        while not writing.done():
            turns += 1
            await asyncio.sleep(0)
        written = (tmp_path / "reuse-verified.json").read_bytes().splitlines()

    assert len(written) > 500 / 40
    assert turns >= len(written)
    assert load(tmp_path / "reuse-verified.json", REUSE, LOOSE).count == 500
