"""Leases as rows, driven at random with a clock of their own: who may ask, and whose answer is kept."""

from __future__ import annotations

import sqlite3

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from farthing.cache import lease_rows
from farthing.cache.lease import State
from tests.fakes.examples import examples

LEASE_S = 4.0
NAME = "n"


class Rows(RuleBasedStateMachine):
    """A model of one lease: who was given which token when, and which answer stands."""

    given = Bundle("given")

    def __init__(self) -> None:
        super().__init__()
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.execute(lease_rows.SCHEMA)
        self.db.execute(lease_rows.HOLDERS)
        self.now_s = 1_800_000_000.0
        self.flights = 0
        self.tokens: list[int] = []
        self.until_s = 0.0  # of the last one, while it hasn't ended
        self.kept = 0  # the token of the answer that stands
        self.mark = ""  # of the last one's process, if it has one
        self.dead: set[str] = set()

    @rule(target=given, waited_for=st.sampled_from(["", "f1", "f2"]), marked=st.booleans())
    def take(self, waited_for: str, *, marked: bool) -> tuple[str, int]:
        self.flights += 1
        flight = f"f{self.flights}"
        mark = f"process of {flight}" if marked else ""
        is_dead = self.dead.__contains__
        found = lease_rows.take(self.db, NAME, flight, waited_for, self.now_s, LEASE_S, mark, is_dead)
        if found.state is State.TAKEN:
            assert self.now_s >= self.until_s or self.mark in self.dead, "while one asks no other may"
            assert not self.tokens or found.token > self.tokens[-1]
            self.tokens.append(found.token)
            self.until_s = self.now_s + LEASE_S
            self.mark = mark
            assert lease_rows.take(self.db, NAME, flight, "", self.now_s, LEASE_S, mark, is_dead) == found
        elif found.state is State.HELD:
            assert self.now_s < self.until_s and self.mark not in self.dead
        else:
            assert self.until_s == 0.0
        return flight, found.token

    @rule()
    def the_last_ones_process_dies(self) -> None:
        if self.mark:
            self.dead.add(self.mark)

    @rule(one=given)
    def renew(self, one: tuple[str, int]) -> None:
        _, token = one
        lease_rows.renew(self.db, NAME, token, self.now_s + LEASE_S)
        if token and token == self.tokens[-1] and self.until_s:
            self.until_s = self.now_s + LEASE_S

    @rule(one=consumes(given))
    def land(self, one: tuple[str, int]) -> None:
        _, token = one
        if not token:
            return
        landed = lease_rows.land(self.db, NAME, token, self.now_s)
        assert landed is (token == self.tokens[-1]), "the last who was given it, and no other"
        if landed:
            assert token >= self.kept
            self.kept, self.until_s = token, 0.0

    @rule(one=consumes(given))
    def free(self, one: tuple[str, int]) -> None:
        _, token = one
        if token:
            lease_rows.free(self.db, NAME, token, self.now_s)
            if token == self.tokens[-1]:
                self.until_s = 0.0

    @rule(seconds=st.sampled_from([0.5, 1.9, 2.1, 4.1, 30.0, 3000.0]), sweeps=st.booleans())
    def time_goes_by(self, seconds: float, *, sweeps: bool) -> None:
        self.now_s += seconds
        if sweeps and (not self.tokens or self.now_s * 1e6 - self.tokens[0] < lease_rows.REMEMBERED_S * 1e6):
            lease_rows.sweep(self.db, self.now_s)

    @invariant()
    def there_is_one_row_at_most(self) -> None:
        assert self.db.execute("select count(*) from leases").fetchone()[0] <= 1

    def teardown(self) -> None:
        self.db.close()


Rows.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=25, deadline=None)
TestRows = Rows.TestCase
