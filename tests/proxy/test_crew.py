"""What workers share, piece by piece: the board, the hub, metrics, evidence with one owner, rows that are followed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from structlog.testing import capture_logs

from farthing.policies.outcome import Outcome
from farthing.policies.reuse import Action, Bound, Candidate, Label, RouteKey, Source, Verdict
from farthing.policies.routes import Conditions, Route
from farthing.policies.verified import Settings, Verified
from farthing.proxy.board import Board, SharedTotal
from farthing.proxy.config import Semantic
from farthing.proxy.crew import Crew
from farthing.proxy.crew_words import nearest_of, share_outcomes
from farthing.proxy.hub import LONGEST_LINE, MOST_HELD, Hub
from farthing.proxy.learnt_crew import Copied, Copy, Kept
from farthing.proxy.ledger import Ledger
from farthing.proxy.ledger_follow import LedgerFollower
from farthing.proxy.metrics import Metrics, rendered
from farthing.proxy.metrics_merge import Families, added, merged
from farthing.proxy.outcomes import Change, Outcomes
from farthing.proxy.peers import Peers
from farthing.proxy.reuse_state import REUSE
from farthing.proxy.route_standing import FILE, RouteStandings
from farthing.proxy.supervise import bound, pause_s
from farthing.proxy.tasks import TaskGroup
from tests.fakes.rows import row


class Join(Protocol):
    def __call__(self, slot: int, *, ready: bool = True) -> Awaitable[Peers]: ...


DAY_S = 86_400.0


@pytest.fixture
async def hub() -> Hub:
    return Hub(TaskGroup())


@pytest.fixture
async def join(hub: Hub) -> AsyncIterator[Join]:
    """One more worker at the hub."""
    async with AsyncExitStack() as stack:

        async def joined(slot: int, *, ready: bool = True) -> Peers:
            ours, theirs = socket.socketpair()
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
            line = hub.listen(slot, reader, writer)
            peers = Peers(TaskGroup(), lambda: None)
            await peers.open(theirs)
            stack.push_async_callback(peers.close)
            if ready:
                peers.ready()
                await line.ready.wait()
            return peers

        yield joined


async def soon(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


# -- the board


def test_totals_are_all_cells_of_the_day_and_stay_when_a_process_ends() -> None:
    board = Board.make(2)
    other = Board(board.fd, 2)  # as another process maps it
    one, two = SharedTotal(board, 0, 0), SharedTotal(other, 3, 0)
    one.begin(100, DAY_S)
    two.begin(100, DAY_S)  # said once for all
    one.add(5, DAY_S)
    two.add(7, DAY_S + 1)
    board.gone(3)

    assert one.read(DAY_S) == two.read(DAY_S) == 112
    assert SharedTotal(board, 0, 1).read(DAY_S) == 0
    two.add(1, 2 * DAY_S)
    assert one.read(2 * DAY_S) == 1
    assert one.read(DAY_S) == 112, "a clock that was ahead comes back to its day"
    for day in range(3, 50):
        two.add(day, day * DAY_S)
        one.add(1, day * DAY_S)
        assert one.read(day * DAY_S) == day + 1
    assert one.read(DAY_S) == 100, "what the two said of it has gone, to make room"


def test_the_fewest_connections_are_those_of_whoever_takes_some() -> None:
    board = Board.make(2)
    assert board.fewest(0) is None
    for cell, connections in ((1, 5), (2, 3)):
        board.takes(cell, takes=True)
        board.opened(cell, connections)
    assert (board.fewest(0), board.fewest(2)) == (3, 5)
    board.gone(2)
    assert board.fewest(0) == 5


# -- the hub


async def test_what_one_tells_all_others_hear_in_order(join: Join) -> None:
    workers = [await join(slot) for slot in range(3)]
    heard: list[list[Any]] = [[], [], []]
    for at, peers in enumerate(workers):
        peers.when_told("news", heard[at].append)
    for number in range(100):
        workers[1].tell("news", {"number": number})
    await soon(lambda: len(heard[0]) == len(heard[2]) == 100)

    assert heard[0] == heard[2] == [{"number": number} for number in range(100)]
    assert heard[1] == []


async def test_what_the_keeper_is_told_while_it_is_away_the_next_one_hears_in_order(hub: Hub, join: Join) -> None:
    heard: list[list[Any]] = [[], [], []]
    keeper, worker = await join(0), await join(1)
    worker.when_told("news", heard[2].append)
    keeper.when_told("news", heard[0].append)
    worker.tell("news", 0, to="keeper")
    await soon(lambda: heard[0] == [0])
    worker.tell("news", 1, to="keeper")
    await keeper.leave()
    before = list(heard[0])
    worker.tell("news", 2, to="keeper")
    await keeper.close()
    await soon(lambda: not [line for line in hub._lines if line.slot == 0])
    worker.tell("news", 3, to="keeper")
    following = await join(0, ready=False)
    following.when_told("news", heard[1].append)
    worker.tell("news", 4, to="keeper")
    following.ready()
    worker.tell("news", 5, to="keeper")
    await soon(lambda: 5 in heard[1])

    assert (before, heard[0]) in (([0], [0]), ([0, 1], [0, 1])), "nothing comes after it has left"
    assert heard[0] + heard[1] == [0, 1, 2, 3, 4, 5]
    assert heard[2] == []


async def test_what_is_told_to_a_keeper_that_stays_away_is_bounded(join: Join) -> None:
    worker, heard = await join(1), list[int]()
    with capture_logs() as logs:
        for number in range(MOST_HELD + 10):
            worker.tell("news", number, to="keeper")
        keeper = await join(0, ready=False)
        keeper.when_told("news", heard.append)
        await asyncio.wait_for(worker.ask("x", None, to="others", within_s=20), 30)  # it is behind all that was told
        keeper.ready()
        await soon(lambda: len(heard) == MOST_HELD)

    assert heard == list(range(10, MOST_HELD + 10))
    assert len(logs) == 1


async def test_a_question_is_answered_by_all_others_or_by_the_keeper(join: Join) -> None:
    workers = [await join(slot) for slot in range(3)]
    for at, peers in enumerate(workers):

        async def answer(about: Any, at: int = at) -> Any:
            return [at, about]

        peers.when_asked("who", answer)
    others = await workers[1].ask("who", "x", to="others", within_s=10)
    keeper = await workers[2].ask("who", "y", to="keeper", within_s=10)

    assert sorted(others.values) == [(0, [0, "x"]), (2, [2, "x"])] and others.missing == 0
    assert keeper.values == [(0, [0, "y"])]
    assert (await workers[0].ask("who", "z", to="keeper", within_s=10)).values == []


async def test_who_says_nothing_or_dies_is_not_waited_for(join: Join) -> None:
    workers = [await join(slot) for slot in range(3)]
    dying = asyncio.Event()

    async def never(about: Any) -> Any:
        dying.set()
        await asyncio.Event().wait()

    for peers in workers[1:]:
        peers.when_asked("who", never)
    late = await workers[0].ask("who", None, to="others", within_s=0.05)
    dying.clear()
    asking = asyncio.create_task(workers[0].ask("who", None, to="others", within_s=60))
    await dying.wait()
    await workers[1].close()
    await workers[2].close()

    assert (late.values, late.missing) == ([], 2)
    assert (await asking).values == []


async def test_what_a_dead_one_had_counted_stays_and_is_counted_once(hub: Hub, join: Join) -> None:
    one, two = await join(0), await join(1)
    two.counted(families(5))
    two.counted(families(7))
    await soon(lambda: any(line.counted == families(7) for line in hub._lines))
    alive = await one.ask("metrics", None, to="others", within_s=0.1, counted=families(1))
    await two.close()
    await soon(lambda: bool(hub.dead))
    dead = await one.ask("metrics", None, to="others", within_s=0.1, counted=families(1))

    assert [slot for slot, _ in alive.counted] == [1] and not alive.dead
    assert not dead.counted and dead.dead == families(7)


# -- metrics


def families(count: float, **more: float) -> Families:
    given = {"type": "counter", "help": "h", "samples": [["n_total", [["a", "b"]], count]]}
    return {"n": given} | {
        name: {"type": "gauge", "help": "h", "samples": [[name, [], value]]} for name, value in more.items()
    }


def test_counters_are_added_and_gauges_as_they_mean() -> None:
    def gauges(flight: float, healthy: float, entries: float, bound: float) -> dict[str, float]:
        return {
            "farthing_in_flight_requests": flight,
            "farthing_ledger_healthy": healthy,
            "farthing_store_entries": entries,
            "farthing_semantic_bound_ratio": bound,
        }

    own = families(1, **gauges(2, 1, 10, 0.5))
    keeper = families(10, **gauges(3, 0, 7, 0.25))
    found = merged(own, [(True, keeper)], [families(100)], keeper=False)
    values = {name: family["samples"][0][2] for name, family in found.items()}

    assert values["n"] == 111
    assert values["farthing_in_flight_requests"] == 5
    assert values["farthing_ledger_healthy"] == 0
    assert values["farthing_store_entries"] == 10
    assert values["farthing_semantic_bound_ratio"] == 0.25, "what only the keeper knows is its own"
    assert set(added([own], counters=True)) == {"n"}


def test_metrics_of_two_are_those_of_one_that_counted_all() -> None:
    one, two, both = Metrics(), Metrics(), Metrics()
    rows = [
        row(id=f"{at}", latency_ms=float(at) * 125, overhead_ms=125.0, model_requested=f"m{at % 3}", cost_usd=10**12)
        for at in range(60)
    ]
    one.observe(rows[:20])
    two.observe(rows[20:])
    both.observe(rows)

    found = rendered(added([one.families(), two.families()])).decode().splitlines()
    assert sorted(found) == sorted(both.render().decode().splitlines())


# -- evidence


async def test_the_keeper_learns_from_all_and_the_others_decide_as_it_would(join: Join, tmp_path: Path) -> None:
    tasks, board = TaskGroup(), Board.make(2)
    keeper, worker = await join(0), await join(1)
    settings = Semantic(mode="observe")
    kept = Kept(tmp_path, tasks.spawn, REUSE, Crew(0, 0, keeper, board))
    copied = Copied(tmp_path, tasks, REUSE, Crew(1, 2, worker, board))
    own, copy = await kept.use(settings), await copied.use(settings)
    alone = REUSE.new(settings)
    assert isinstance(copy, Copy)

    route = RouteKey("tenant", "route")
    for number in range(60):
        candidate = Candidate(f"{number}", 0.9 + number / 1000, 0.95)
        verdicts = [one.decide(route, candidate, 0.5) for one in (own if number % 2 else copy, alone)]
        for policy, verdict in zip((own if number % 2 else copy, alone), verdicts, strict=True):
            policy.learn(route, candidate, verdict, Label(0.0))
        # Each decision and each label counts once, whoever made it.
        await soon(lambda: own.dump() == alone.dump())

    assert copy.dump() != alone.dump(), "nothing is learnt into a copy"
    await kept.close()
    await soon(lambda: copy.dump() == alone.dump())
    await copied.close()


async def test_no_label_is_lost_while_one_keeper_follows_another(join: Join, tmp_path: Path) -> None:
    tasks, board = TaskGroup(), Board.make(2)
    keeper, worker = await join(0), await join(1)
    settings = Semantic(mode="observe")
    kept = Kept(tmp_path, tasks.spawn, REUSE, Crew(0, 0, keeper, board))
    copied = Copied(tmp_path, tasks, REUSE, Crew(1, 2, worker, board))
    copy, alone = await copied.use(settings), REUSE.new(settings)
    await kept.use(settings)
    route = RouteKey("tenant", "route")

    def learn(first: int) -> None:
        for number in range(first, first + 10):
            candidate = Candidate(f"{number}", 0.9 + number / 1000, 0.95)
            for policy in (copy, alone):
                policy.learn(route, candidate, policy.decide(route, candidate, 0.5), Label(0.0))

    learn(0)
    await keeper.leave()
    learn(10)
    await kept.close()
    await keeper.close()
    learn(20)
    following = await join(0, ready=False)
    after = Kept(tmp_path, tasks.spawn, REUSE, Crew(0, 1, following, board))
    own = await after.use(settings)
    following.ready()
    await soon(lambda: own.dump() == alone.dump())
    learn(30)
    await soon(lambda: own.dump() == alone.dump())
    await after.close()
    await copied.close()


async def test_a_file_of_another_making_is_left_to_whoever_wrote_it(join: Join, tmp_path: Path) -> None:
    path = tmp_path / "reuse-verified.json"
    path.write_text('{"made_with": "something else"}\n')
    copied = Copied(tmp_path, TaskGroup(), REUSE, Crew(1, 2, await join(1), Board.make(2)))
    policy = await copied.use(Semantic(mode="observe"))
    await copied.close()

    assert policy.count == 0 and path.exists()


async def test_a_route_goes_back_to_observe_in_all_workers_by_what_any_of_them_compared(
    join: Join, tmp_path: Path
) -> None:
    tasks = TaskGroup()
    noted: list[Any] = []
    route = Route("r", Conditions(), "fixed", (), serves=True, signature="s", max_worse=0.2)
    crews = [Crew(slot, 2 * slot, await join(slot), Board.make(2)) for slot in (0, 1)]
    keeper, worker = (
        RouteStandings(tmp_path / FILE, tasks.spawn, lambda *said: noted.append(said), crew) for crew in crews
    )
    turns: list[str] = []
    keeper.on_turn, worker.on_turn = (lambda: turns.append("keeper")), (lambda: turns.append("worker"))
    for number in range(40):
        (worker if number % 2 else keeper).learned(route, worse=True)
        await asyncio.sleep(0.01)
        if worker.observes(route):
            break
    assert keeper.observes(route) and worker.observes(route)
    assert turns == ["keeper", "worker"]  # the short way of hits is forgotten in both
    assert len(noted) == 1
    await keeper.close()
    await worker.close()
    while len(tasks):
        await asyncio.sleep(0.01)
    again = RouteStandings(tmp_path / FILE, tasks.spawn, lambda *said: None)
    assert again.observes(route) and not again.observes(replace(route, signature="changed"))


def test_a_verdict_survives_being_sent() -> None:
    bound = Bound(0.01, "hit", 0.95)
    policy = Verified(Settings(bound, "serve"))
    verdict = policy.decide(RouteKey("t", "r"), Candidate("k", 0.5, 0.9), 0.3)
    assert Verdict(Action.OBSERVE, verdict.reason, epoch=verdict.epoch) == verdict
    assert Source("comparison") is Source.COMPARISON


async def test_what_another_one_puts_the_keepers_listeners_hear_once(join: Join, tmp_path: Path) -> None:
    crews = [Crew(slot, 2 * slot, await join(slot), Board.make(2)) for slot in (0, 1)]
    kept, other = Outcomes(tmp_path / "outcomes.db"), Outcomes(tmp_path / "outcomes.db")
    heard: list[Change] = []
    kept.listeners.append(heard.extend)
    for outcomes, crew in zip((kept, other), crews, strict=True):
        share_outcomes(outcomes, crew)
    nearest, told = nearest_of(crews[0]), nearest_of(crews[1])
    said = Outcome("r1", "rating", 0.0, 5.0, 5.0)
    await asyncio.to_thread(other.put, [said])
    await asyncio.to_thread(kept.put, [said])
    told.note("r1", "key")
    await soon(lambda: "r1" in nearest.keys)
    kept.close(), other.close()

    assert heard == [Change("r1", "rating", (), (0.0,))]
    assert nearest.keys == {"r1": "key"}


# -- rows


def test_rows_of_all_writers_are_seen_once_each_and_after_a_death_from_there_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledgers = [Ledger(path, flush_ms=1, lock_wait_s=5.0, upkeep=at == 0) for at in range(3)]
    ledgers[0].append(row(id="before"))
    ledgers[0].flush()
    seen: list[str] = []
    follower = LedgerFollower(path, lambda rows: seen.extend(one.id for one in rows))
    for number in range(300):
        ledgers[number % 3].append(row(id=f"{number}"))
    for one in ledgers:
        one.flush()
    follower.close()
    ledgers[1].append(row(id="while it was dead"))
    ledgers[1].flush()
    again = LedgerFollower(path, lambda rows: seen.extend(one.id for one in rows))
    again.close()
    for one in ledgers:
        one.close()

    assert sorted(seen[:-1], key=int) == [f"{number}" for number in range(300)]
    assert seen[-1] == "while it was dead"


# -- the supervisor


def test_the_pause_before_another_start_doubles_up_to_half_a_minute() -> None:
    assert [pause_s(short) for short in (0, 1, 2, 3)] == [0.0, 0.2, 0.4, 0.8]
    assert pause_s(9) == 30.0 == pause_s(10**6)


def test_sockets_listen_on_one_port_of_every_address() -> None:
    sockets = bound("localhost", 0)
    try:
        assert len({one.getsockname()[1] for one in sockets}) == 1
        with pytest.raises(OSError):
            bound("localhost", sockets[0].getsockname()[1])
    finally:
        for one in sockets:
            one.close()
