"""Replicas that tell each other what their own files hold: each row and each word once, whatever is lost, told twice or
begun anew."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.policies.assign import Unit
from farthing.policies.outcome import Outcome
from farthing.proxy.clock import FakeClock
from farthing.proxy.experiment_agreed import AgreedSums
from farthing.proxy.experiment_data import Data
from farthing.proxy.experiment_kept import restore
from farthing.proxy.experiment_placing import Placing, before_start, past_of
from farthing.proxy.experiment_telling import Telling
from farthing.proxy.experiment_total import Sums
from farthing.proxy.outcomes import FILE, Outcomes
from farthing.proxy.row import COLUMNS, Row
from tests.fakes.agreeing import FakeLog
from tests.fakes.rows import DOLLAR, NOW_S, ledger, row
from tests.proxy.test_experiment_data import WANTED

SINCE_S = NOW_S - 3600
ARMS = ("a", "b")


def taken(number: int, **changes: Any) -> Row:
    tags = f'{{"team":"t{number % 3}"}}'
    return row(id=f"far-{number}", ts=NOW_S - 1000 + number, experiment="trial", arm="ab"[number % 2], tags=tags,
               user=f"u{number % 6}", cost_usd=number * DOLLAR // 1024, policy="p-1", **changes)  # fmt: skip


@dataclass
class Replica:
    """One with a state directory of its own. `start` again: another process over the same directory."""

    name: str
    folder: Path
    log: FakeLog
    unit: Unit
    clock: FakeClock
    days: float = 0.0
    number: int = -1
    starts: int = 0
    deaf: bool = False  # what it tells is lost
    waits: bool = False  # what it tells is not in the log yet
    outcomes: Outcomes = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        ledger(self.folder / "ledger.db").close()
        self.outcomes = Outcomes(self.folder / FILE)
        self.outcomes.keep_changes(f"mark of {self.name}")

    @property
    def path(self) -> Path:
        return self.folder / "ledger.db"

    async def start(self, at_once: int = 7) -> None:
        self.machine = AgreedSums(lambda: Sums("trial", ARMS, self.unit, SINCE_S, WANTED, 1000))
        self.number = await self.log.join(self.machine)
        number, self.starts = self.number, self.starts + 1

        def tell(event: Any) -> None:
            if not self.deaf:
                self.log.tell(number, event)

        self.telling = Telling(
            self.machine,
            lambda: Placing("trial", ARMS, self.unit, SINCE_S, self.path, ("tag:team",)),
            lambda: past_of(self.path, WANTED[0].name, self.unit, SINCE_S, self.days, 1000),
            tell, replica=self.name, tag=f"{self.name}{self.starts}", clock=self.clock, at_once=at_once,
            waits=lambda: self.waits,
        )  # fmt: skip

    def wrote(self, *rows: Row) -> None:
        marks = ", ".join("?" * len(COLUMNS))
        with closing(sqlite3.connect(self.path)) as conn, conn:
            conn.executemany(f"insert into requests values ({marks})", rows)

    def heard(self, number: int, value: float, at_s: float, metric: str = "rating", event: str = "") -> None:
        self.outcomes.put([Outcome(f"far-{number}", metric, value, at_s, at_s, event=event)])

    async def goes_on(self) -> None:
        """Everything it has is told and read."""
        while await self.telling.step():
            self.log.read(self.number)
        self.log.read(self.number)


def totals(of: AgreedSums | Data) -> dict[str, Any]:
    """All that a reading is made of, rounded."""
    sums = of.sums
    named = {**sums.trackers, "assigned": sums.assigned, **{"/".join(key): one for key, one in sums.slices.items()}}
    return {
        name: [[round(value, 6) for value in (one.units, one.a, one.b, one.aa, one.bb, one.ab)] for one in tracker.sums]
        for name, tracker in sorted(named.items())
    }  # fmt: skip


async def settled(log: FakeLog, replicas: list[Replica]) -> None:
    for _ in range(6):
        for one in replicas:
            await one.goes_on()
    assert log.all_alike([one.number for one in replicas])


def alone(folder: Path, replicas: list[Replica], unit: Unit, before: dict[str, float] | None = None) -> Data:
    """One farthing that has all rows and all words in its own files."""
    folder.mkdir()
    rows: list[Any] = []
    said = Outcomes(folder / FILE)
    with closing(said):
        for one in replicas:
            with closing(sqlite3.connect(one.path)) as conn:
                rows += conn.execute("select * from requests").fetchall()
            with closing(sqlite3.connect(one.folder / FILE)) as conn:
                held = conn.execute("select request_id, metric, value, at_s, received_s, '', event from outcomes")
                said.put([Outcome(*found) for found in held])
    ledger(folder / "ledger.db", [Row._make(found) for found in rows]).close()
    data = Data("trial", ARMS, unit, SINCE_S, WANTED, 1000, folder / "ledger.db", ("tag:team",), before or {})
    restore(folder / "none.sums", data)
    return data


async def whatever_happens(root: Path, seed: int, unit: Unit, count: int) -> None:
    """Rows, words (of others' requests too, and before their rows), processes that are killed, events that are lost,
    and a server that loses all; then that all hold the same, and what one would that saw everything."""
    dice = random.Random(seed)
    log, clock = FakeLog(), FakeClock(NOW_S)
    replicas = [Replica("xyz"[n], root / "xyz"[n], log, unit, clock) for n in range(count)]
    for one in replicas:
        await one.start(dice.choice([1, 3, 50]))
    owner: dict[int, Replica] = {}
    moments = dice.sample(range(60), 60)  # of two words that which happened later holds, whenever it comes
    waiting: list[int] = []
    for step in range(60):
        one = dice.choice(replicas)
        match dice.randrange(9):
            case 0 | 1 | 2:
                number = len(owner)
                owner[number] = one
                waiting.append(number)
                if dice.random() < 0.7:
                    one.wrote(*(taken(n) for n in waiting if owner[n] is one))
                    waiting = [n for n in waiting if owner[n] is not one]
            case 3 | 4 if owner:
                number = dice.choice(list(owner))
                metric, event = dice.choice([("rating", ""), ("click", "e1"), ("click", "e2")])
                value = float(dice.random() < 0.5)
                one.heard(dice.choice([0, number]), value, NOW_S + moments[step], metric, event)
            case 5:
                await one.telling.step()
            case 6:
                log.read(one.number, dice.randrange(1, 9))
            case 7 if dice.random() < 0.3:
                await one.start()  # killed, with whatever it had told
            case 8 if dice.random() < 0.3:
                one.deaf = True
                await one.telling.step()
                one.deaf = False
                await log.lose_all(one.number, [each.number for each in replicas])
    for one in replicas:
        one.wrote(*(taken(n) for n in waiting if owner[n] is one))
    await settled(log, replicas)
    clock.advance(3600)  # what was told and lost is told again
    await settled(log, replicas)

    assert totals(replicas[0].machine) == totals(alone(root / "alone", replicas, unit))
    assert not replicas[0].machine.pool
    for one in replicas:
        one.outcomes.close()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["user", "request"]), st.integers(2, 3))
def test_replicas_hold_the_same_and_just_what_one_would_that_saw_everything(
    tmp_path_factory: pytest.TempPathFactory, seed: int, unit: Unit, count: int
) -> None:
    asyncio.run(whatever_happens(tmp_path_factory.mktemp("r"), seed, unit, count))


@pytest.fixture
def pair(tmp_path: Path) -> list[Replica]:
    log, clock = FakeLog(), FakeClock(NOW_S)
    return [Replica(name, tmp_path / name, log, "user", clock, days=14) for name in "xy"]


async def test_a_word_about_anothers_request_counts_once_where_it_belongs(pair: list[Replica]) -> None:
    one, other = pair
    for each in pair:
        await each.start()
    other.heard(3, 1.0, NOW_S)
    await settled(one.log, pair)
    other.heard(3, 0.0, NOW_S + 1)  # replaced, at the same replica
    other.heard(99, 1.0, NOW_S)  # of nobody's request
    await settled(one.log, pair)
    assert len(one.machine.pool) == 3
    one.wrote(taken(3), taken(4), row(id="far-99", ts=NOW_S))  # the last takes no part
    await settled(one.log, pair)
    rating = other.machine.sums.trackers["rating"].sums
    assert [(sums.units, sums.a) for sums in rating] == [(0, 0.0), (1, 0.0)]
    one.clock.advance(61)  # all that wait are asked about again
    await settled(one.log, pair)
    assert not other.machine.pool


async def test_of_words_about_one_request_that_came_to_several_replicas_what_happened_last_counts(
    pair: list[Replica],
) -> None:
    one, other = pair
    for each in pair:
        await each.start()

    def rated() -> list[tuple[int, float]]:
        return [(sums.units, sums.a) for sums in other.machine.sums.trackers["rating"].sums]

    one.heard(3, 1.0, NOW_S)
    await settled(one.log, pair)
    other.heard(3, 0.0, NOW_S + 1)
    await settled(one.log, pair)
    one.wrote(taken(3))  # both have waited for it
    await settled(one.log, pair)
    assert rated() == [(0, 0.0), (1, 0.0)]
    one.heard(3, 1.0, NOW_S + 3)  # what it knows already, and from later
    await settled(one.log, pair)
    assert rated() == [(0, 0.0), (1, 1.0)]
    other.heard(3, 0.0, NOW_S + 2)  # told later, and happened before
    await settled(one.log, pair)
    assert rated() == [(0, 0.0), (1, 1.0)]
    for each in pair:
        await each.start()
    await settled(one.log, pair)
    assert rated() == [(0, 0.0), (1, 1.0)]
    said = (("a", one, 1.0), ("b", other, 2.0), ("b", one, 3.0), ("c", other, 4.0))  # events of one moment
    for event, each, value in said:
        each.heard(3, value, NOW_S, "click", event)
        await settled(one.log, pair)
    assert [(sums.units, sums.a) for sums in one.machine.sums.trackers["click"].sums] == [(0, 0.0), (1, 8.0)]


async def test_a_word_that_is_found_takes_along_those_that_waited_before_it(pair: list[Replica]) -> None:
    """Else what replaced another one would count before it."""
    one = pair[0]
    await one.start()
    whose = [1, "u", 0, []]
    first = ["k1", "far-1", "rating", [], [["", 1.0, NOW_S]]]
    second = ["k2", "far-1", "rating", [["", 1.0, NOW_S]], [["", 0.0, NOW_S + 1]]]
    one.log.tell(one.number, ["words", "z", "t1", None, ["m", 2, None], [], [first, second]])
    one.log.tell(one.number, ["found", "x", "t2", [["k2", whose]]])
    one.log.tell(one.number, ["found", "x", "t3", [["k1", whose]]])
    one.log.read(one.number)
    sums = one.machine.sums.trackers["rating"].sums
    assert [(each.units, each.a) for each in sums] == [(0, 0.0), (1, 0.0)]
    assert not one.machine.pool


async def test_of_a_request_that_is_forgotten_what_the_teller_knew_was_said_before(pair: list[Replica]) -> None:
    one, other = pair
    for each in pair:
        await each.start()
    one.wrote(taken(1), taken(3))
    one.heard(1, 1.0, NOW_S)
    await settled(one.log, pair)
    words = [[[0, f"v{n}", 0, []], f"far-x{n}", "click", [], [["", 1.0, NOW_S]]] for n in range(19_999)]
    one.log.tell(one.number, ["words", "z", "t", None, ["m", 1, None], words, []])
    one.log.read(one.number)
    assert (len(one.machine.said), one.machine.forgotten) == (20_000, 0)
    one.heard(3, 1.0, NOW_S)
    await settled(one.log, pair)
    assert (len(one.machine.said), one.machine.forgotten) == (20_000, 1)
    one.heard(1, 0.0, NOW_S + 1)  # here it is known what it was
    other.heard(3, 0.0, NOW_S + 1)
    await settled(one.log, pair)
    rating = other.machine.sums.trackers["rating"].sums
    assert [(sums.units, sums.a) for sums in rating] == [(0, 0.0), (2, 0.0)]


async def test_the_past_of_all_replicas_is_added_up_whenever_each_tells_it(pair: list[Replica], tmp_path: Path) -> None:
    one, other = pair
    for number, (each, count) in enumerate(((one, 3), (other, 5))):
        old = [row(id=f"old-{number}-{n}", ts=SINCE_S - 60 + n, user=f"u{n % 4}") for n in range(count)]
        each.wrote(*old)
        for n in range(count):
            said = Outcome(old[n].id, "rating", float(n % 2), SINCE_S - 50, SINCE_S - 50)
            each.outcomes.put([said])
        each.wrote(*(taken(n) for n in range(number, 20, 2)))
        for n in range(number, 20, 2):
            each.heard(n, float(n % 3 == 0), NOW_S)
    await one.start()
    await settled(one.log, [one])  # it has counted users of whom the other will say more
    await other.start()
    await settled(one.log, pair)
    whole = alone(tmp_path / "alone", pair, "user")
    before = before_start(tmp_path / "alone" / "ledger.db", "rating", "user", SINCE_S, 14, 1000)
    told = alone(tmp_path / "told", pair, "user", before)
    assert one.machine.sums.before == pytest.approx(before) and before
    assert totals(one.machine) == totals(told) != totals(whole)
    await one.start()
    await settled(one.log, pair)
    assert totals(one.machine) == totals(told), "the past is told once"


async def test_farthings_own_calls_are_added_to_their_request_after_a_restart_too(pair: list[Replica]) -> None:
    one = pair[0]
    one.unit = "request"
    await one.start()
    errand = row(id="e1", ts=NOW_S, endpoint="audit", cache_reason="audit of far-2", overhead_usd=DOLLAR)
    one.wrote(taken(2), errand)
    await settled(one.log, [one])
    await one.start()
    one.wrote(errand._replace(id="e2"))
    await settled(one.log, [one])
    cost = one.machine.sums.trackers["cost_usd"].sums[0]
    assert (cost.units, cost.a) == (1, pytest.approx(2 + 2 / 1024))
    assert cost.aa == pytest.approx((2 + 2 / 1024) ** 2)


async def test_a_new_ledger_or_outcomes_file_is_read_from_its_beginning(pair: list[Replica]) -> None:
    one = pair[0]
    await one.start()
    one.wrote(*(taken(n) for n in range(9)))
    one.heard(1, 1.0, NOW_S)
    await settled(one.log, [one])
    one.outcomes.close()
    for path in (one.path, one.folder / FILE):
        path.rename(path.with_suffix(".aside"))
    ledger(one.path).close()
    one.outcomes = Outcomes(one.folder / FILE)
    one.outcomes.keep_changes("another")
    one.wrote(*(taken(n) for n in range(9, 12)))
    one.heard(10, 1.0, NOW_S + 1)
    await settled(one.log, [one])
    assert [sums.units for sums in one.machine.sums.assigned.sums] == [3, 3]
    assert [sum(sums.bb for sums in one.machine.sums.assigned.sums)] == [6 * 4.0]
    assert [sums.units for sums in one.machine.sums.trackers["rating"].sums] == [1, 1]


async def test_after_an_older_copy_of_the_files_was_put_back_nothing_counts_twice(pair: list[Replica]) -> None:
    one = pair[0]
    await one.start()
    one.wrote(taken(0), taken(1))
    one.heard(0, 1.0, NOW_S)
    await settled(one.log, [one])
    one.heard(1, 1.0, NOW_S)
    one.outcomes.close()
    copies = [(path, path.with_suffix(".copy")) for path in (one.path, one.folder / FILE)]
    for path, copy in copies:
        shutil.copy(path, copy)
    one.outcomes = Outcomes(one.folder / FILE)
    one.outcomes.keep_changes("m")
    one.wrote(taken(2), taken(3))
    for n in (2, 3):
        one.heard(n, 1.0, NOW_S)
    await settled(one.log, [one])
    one.outcomes.close()
    for path, copy in copies:
        copy.replace(path)
    one.outcomes = Outcomes(one.folder / FILE)
    one.outcomes.keep_changes("m")
    await one.start()
    await settled(one.log, [one])
    one.wrote(taken(4), taken(5))
    one.heard(4, 1.0, NOW_S)
    await settled(one.log, [one])
    assert [sum(sums.bb for sums in one.machine.sums.assigned.sums)] == [6.0]
    rating = one.machine.sums.trackers["rating"].sums
    assert sum(sums.units for sums in rating) == 5


async def test_what_does_not_come_back_is_told_again_but_not_while_it_waits_for_the_server(
    pair: list[Replica],
) -> None:
    one = pair[0]
    await one.start()
    await settled(one.log, [one])
    one.wrote(taken(0))
    one.deaf, one.waits = True, True
    await one.telling.step()
    one.deaf = False
    for _ in range(5):
        one.clock.advance(100)
        await one.goes_on()
    assert not one.machine.sums.assigned.sums[0].units and not one.telling.all_told
    one.waits = False
    one.clock.advance(29)
    await one.goes_on()
    assert not one.machine.sums.assigned.sums[0].units, "it may be on its way"
    one.clock.advance(2)
    await one.goes_on()
    assert one.machine.sums.assigned.sums[0].units == 1 and one.telling.all_told


async def test_words_wait_up_to_a_bound_and_what_is_left_out_is_counted(pair: list[Replica]) -> None:
    one = pair[0]
    await one.start()
    words = [[f"k{n}", f"far-x{n}", "rating", [], [["", 1.0, NOW_S]]] for n in range(10_003)]
    one.log.tell(one.number, ["words", "z", "t", None, ["m", 1, None], [], words])
    one.log.read(one.number)
    assert (len(one.machine.pool), one.machine.lost) == (10_000, 3)
    assert one.machine.waiting_for("far-x0") == [] and one.machine.waiting_for("far-x3") == ["k3"]


async def test_what_cannot_be_understood_changes_nothing_and_no_state_is_taken_from_it(pair: list[Replica]) -> None:
    one = pair[0]
    await one.start()
    before = one.log.state(one.number)
    for event in (
        None,
        [],
        ["rows"],
        ["what", "z", "t", None, None],
        ["rows", "z", "t", None, ["i", 1.0], [["row", 7]]],
    ):
        one.machine.apply(event, own=False)
    assert one.log.state(one.number).replace('"z": ["i", 1.0]', "") == before
    for slices in (
        [],
        [["about", 99, {}, 0, 0]],
        [["about", 2, {}, 0, 0]],
        [*one.machine.slices(), ["sums", ["what"]]],
    ):
        with pytest.raises(ValueError, match="experiment's sums"):
            await one.machine.put(slices)
