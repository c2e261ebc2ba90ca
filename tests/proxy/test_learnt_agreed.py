"""What replicas learn together: each label counts once and for all, a wrong answer at one takes a route back at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Action, Bound, Candidate, Label, Policy, RouteKey
from farthing.policies.static import Static
from farthing.policies.vcache import VCache
from farthing.policies.verified import Settings, Verified
from farthing.proxy.agreed import AgreedState
from farthing.proxy.agreement import Agreement
from farthing.proxy.clock import SystemClock, SystemRandomness
from farthing.proxy.config import Semantic
from farthing.proxy.learnt import Learnt, lines, load, observes, save
from farthing.proxy.learnt_agreed import AgreedPolicy, SharedLearning
from farthing.proxy.learnt_crew import Copy
from farthing.proxy.reuse_state import REUSE
from farthing.proxy.tasks import TaskGroup
from tests.fakes.valkey import ValkeyProcess

ROUTES = tuple(RouteKey(tenant, name) for tenant in ("acme", "other") for name in ("faq", "search"))
MANY = 1_000


def verified() -> Policy:
    return Verified(Settings(Bound(0.05), mode="serve", max_routes=3))


def on_a_ladder() -> Policy:
    return Verified(Settings(Bound(0.1), mode="serve", ladder=Ladder((0.9, 0.5), (0.5, 0.5))))


def vcache() -> Policy:
    return VCache(Bound(0.1, per="request"), mode="serve", max_entries=50)


def static() -> Policy:
    return Static(0.8, bound=Bound(0.1), mode="serve", max_routes=3)


class Heard:
    """A log that one replica tells, as far as a policy minds it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.full = False
        self.closed = False
        self.state = AgreedState(current=True)

    def tell(self, event: Any, *, always: bool = False) -> None:
        self.events.append(event)


def alone(new: Callable[[], Policy]) -> tuple[AgreedPolicy, Heard]:
    policy, heard = AgreedPolicy(new, new()), Heard()
    policy.log = heard  # type: ignore[assignment]
    return policy, heard


def live(policy: Policy, random: Random, *, wrong: float = 0.02, route: RouteKey | None = None) -> None:
    """One request."""
    where = random.choice(ROUTES) if route is None else route
    cosine = random.uniform(0.6, 1.0)
    candidate = Candidate(f"entry {random.randrange(9)}", cosine, cosine)
    verdict = policy.decide(where, candidate, random.random())
    if verdict.action is not Action.SERVE or verdict.audit:
        policy.learn(where, candidate, verdict, Label(float(random.random() < wrong)))


@pytest.mark.parametrize("new", [verified, on_a_ladder, vcache, static])
async def test_who_followed_and_who_took_the_state_on_the_way_have_the_same(new: Callable[[], Policy]) -> None:
    """So that digests of replicas that began at different times are equal."""
    (one, first), (other, second), (late, _) = alone(new), alone(new), alone(new)
    random, begun = Random(3), False
    for step in range(MANY):
        live(one if step % 2 else other, random)
        for policy, heard in ((one, first), (other, second)):
            for event in heard.events:
                for each in (one, other, *((late,) if begun else ())):
                    each.apply(event, own=each is policy)
            heard.events.clear()
        if step == MANY // 2:
            await late.put(list(one.slices()))
            begun = True
    states = [list(each.slices()) for each in (one, other, late)]
    assert states[0] == states[1] == states[2]
    assert sum(one.state_of(route) is not None for route in ROUTES) > 1


async def test_what_decides_here_has_the_others_labels_and_its_own_before_they_come_back() -> None:
    policy, heard = alone(on_a_ladder)
    random = Random(1)
    while not policy.serves(ROUTES[0]):
        live(policy, random, wrong=0.0, route=ROUTES[0])
    assert not AgreedPolicy(on_a_ladder, policy._agreed).inner.serves(ROUTES[0])  # nobody has heard it yet

    told = list(heard.events)
    for event in told:
        policy.apply(event, own=True)
    slices = list(policy.slices())
    while policy.serves(ROUTES[0]):
        live(policy, random, wrong=1.0, route=ROUTES[0])
    await policy.stands(lambda: slices, lambda: heard.events[len(told) :])
    assert not policy.serves(ROUTES[0]), "its own word counts, though nobody has heard it"
    await policy.stands(lambda: slices, list)
    assert policy.serves(ROUTES[0])


@pytest.mark.parametrize("why", ["full", "behind"])
async def test_where_nobody_can_be_told_nothing_is_served_or_learnt(why: str) -> None:
    policy, heard = alone(on_a_ladder)
    random = Random(1)
    while not policy.serves(ROUTES[0]):
        live(policy, random, wrong=0.0, route=ROUTES[0])
    before, told = policy.dump(), len(heard.events)
    heard.full, heard.state.current = why == "full", why != "behind"
    verdict = policy.decide(ROUTES[0], Candidate("entry", 0.99, 0.99), 0.5)
    policy.learn(ROUTES[0], Candidate("entry", 0.99, 0.99), verdict, Label(1.0))
    assert (verdict.action, verdict.reason) == (Action.OBSERVE, "the other replicas can't be told")
    assert not policy.serves(ROUTES[0])
    assert (policy.dump(), len(heard.events)) == (before, told)
    heard.full, heard.state.current = False, True
    assert policy.serves(ROUTES[0])


async def test_a_word_that_cant_be_understood_is_passed_by() -> None:
    policy, _ = alone(static)
    before = list(policy.slices())
    for event in ([], ["learn", ["acme"], {}], ["decide", ["a", "b"], {"entry": 1}, 0.5, True], "x", None, 7):
        policy.apply(event, own=False)
    policy.apply(["sing", ["a", "b"]], own=False)
    assert list(policy.slices()) == before
    with pytest.raises(ValueError, match="not this policy's state"):
        await policy.put([["version", 99]])
    assert list(policy.slices()) == before


@pytest.fixture
def server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as running:
        yield running


@asynccontextmanager
async def replica(url: str, folder: Path) -> AsyncIterator[Learnt[Semantic]]:
    """One replica's evidence, as `farthing serve` opens it."""
    folder.mkdir(exist_ok=True)
    agreement = Agreement(url, clock=SystemClock(), randomness=SystemRandomness(), tasks=TaskGroup())
    learnt = Learnt(folder, TaskGroup().spawn, REUSE, SharedLearning(agreement))
    try:
        yield learnt
    finally:
        await learnt.close()
        await agreement.close()


async def soon(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


def shown(policy: Policy) -> tuple[float, float, int, bool]:
    state = policy.state_of(ROUTES[0])
    return (state.own_labels, state.own_wrong, state.served, state.serving) if state else (0.0, 0.0, 0, False)


async def test_labels_of_all_prove_a_route_for_all_and_wrong_ones_take_it_back(
    server: ValkeyProcess, tmp_path: Path
) -> None:
    settings, random = Semantic(mode="serve", max_wrong=0.1), Random(5)
    async with replica(server.url, tmp_path / "a") as one, replica(server.url, tmp_path / "b") as other:
        here, there = await one.use(settings), await other.use(settings)
        told: list[str] = []
        assert isinstance(here, AgreedPolicy)
        await soon(lambda: all(isinstance(each, AgreedPolicy) and each.can_tell for each in (here, there)))
        here.on_taken_back = lambda route, why, evidence: told.append(why)
        for number in range(60):
            policy, candidate = (here, there)[number % 2], Candidate(f"{number}", 0.99, 0.99)
            policy.learn(ROUTES[0], candidate, policy.decide(ROUTES[0], candidate, 0.5), Label(0.0))
        assert not here.serves(ROUTES[0]) and not there.serves(ROUTES[0]), "30 labels prove nothing"
        await soon(lambda: here.serves(ROUTES[0]) and there.serves(ROUTES[0]))
        await soon(lambda: shown(here) == shown(there))

        while here.serves(ROUTES[0]):
            live(here, random, wrong=1.0, route=ROUTES[0])
        await soon(lambda: not there.serves(ROUTES[0]))
        await soon(lambda: bool(told))
    async with replica(server.url, tmp_path / "c") as third:
        late = await third.use(settings)
        assert isinstance(late, AgreedPolicy) and late.log is not None
        while not late.log.state.current:
            assert not late.serves(ROUTES[0]), "what it had on the way may have been proved, and was taken back since"
            await asyncio.sleep(0)
        assert shown(late) == shown(here)


async def test_other_settings_are_another_state_that_begins_with_what_was_known(
    server: ValkeyProcess, tmp_path: Path
) -> None:
    before, after = Semantic(mode="observe"), Semantic(mode="observe", max_wrong=0.2)
    async with replica(server.url, tmp_path / "a") as one, replica(server.url, tmp_path / "b") as other:
        here = await one.use(before)
        assert isinstance(here, AgreedPolicy) and here.log is not None
        left = here.log
        await soon(lambda: left.state.current)
        for number in range(40):
            candidate = Candidate(f"{number}", 0.95, 0.95)
            here.learn(ROUTES[0], candidate, here.decide(ROUTES[0], candidate, 0.5), Label(0.0))
        await soon(lambda: left.state.applied == 80)
        changed = await one.use(after)
        assert shown(changed) == shown(here)
        assert shown(here)[0] == 40
        await soon(lambda: isinstance(changed, AgreedPolicy) and changed.log is not None and changed.log.state.current)
        there = await other.use(after)
        await soon(lambda: there.dump() == changed.dump())
        del here  # nobody answers by it any more
        await soon(lambda: left.closed)


async def test_several_policies_beside_the_active_one_are_followed_as_long_as_they_answer(
    server: ValkeyProcess, tmp_path: Path
) -> None:
    """As arms of an experiment are."""
    settings = [Semantic(mode="serve", max_wrong=share) for share in (0.1, 0.2, 0.3)]
    async with replica(server.url, tmp_path / "a") as one:
        active = await one.use(settings[0])
        arms = [await one.beside(each) for each in settings[1:]]
        await soon(lambda: all(isinstance(each, AgreedPolicy) and each.can_tell for each in (active, *arms)))


async def test_a_file_says_whether_the_workers_that_read_it_may_serve(tmp_path: Path) -> None:
    policy, heard = alone(on_a_ladder)
    path, settings = tmp_path / "reuse.json", Semantic(mode="serve")
    for current in (True, False):
        heard.state.current = current
        save(path, lines(REUSE, settings, policy))
        assert observes(path) is not current
        load(path, REUSE, settings, aside=False)
    told: list[Any] = []
    copy = Copy(policy.inner, told.append, observes=observes(path))
    random = Random(1)
    while not policy.inner.serves(ROUTES[0]):
        live(policy.inner, random, wrong=0.0, route=ROUTES[0])
    assert not copy.serves(ROUTES[0])
    assert copy.decide(ROUTES[0], Candidate("entry", 0.99, 0.99), 0.5).action is Action.OBSERVE
    copy.observes = False
    assert copy.serves(ROUTES[0])
    assert copy.decide(ROUTES[0], Candidate("entry", 0.99, 0.99), 0.5).action is Action.SERVE


async def test_a_take_back_is_told_where_its_word_was_said_and_once() -> None:
    policy, heard = alone(on_a_ladder)
    other, _ = alone(on_a_ladder)
    told: list[str] = []
    policy.on_taken_back = lambda route, why, evidence: told.append(f"here: {why}")
    other.on_taken_back = lambda route, why, evidence: told.append(f"there: {why}")
    random = Random(1)
    while not policy.serves(ROUTES[0]):
        live(policy, random, wrong=0.0, route=ROUTES[0])
    while policy.serves(ROUTES[0]):
        live(policy, random, wrong=1.0, route=ROUTES[0])
    live(policy, random, route=ROUTES[0])
    for event in heard.events:
        policy.apply(event, own=True)
        other.apply(event, own=False)
    assert [one.partition(":")[0] for one in told] == ["here"]
