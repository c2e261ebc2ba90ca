"""Outcomes on the disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from farthing.policies.outcome import Outcome
from farthing.proxy.outcomes import FILE, Outcomes, read_only


def word(id: str = "a", value: float = 1.0, at_s: float = 10.0, **more: object) -> Outcome:
    return Outcome(id, "rating", value, at_s, at_s)._replace(**more)


@pytest.fixture
def outcomes(tmp_path: Path) -> Outcomes:
    return Outcomes(tmp_path / FILE)


def test_saying_twice_counts_once_and_the_later_word_wins(outcomes: Outcomes) -> None:
    assert outcomes.put([word()]) == 1
    assert outcomes.put([word(), word(at_s=11.0)]) == 0
    assert outcomes.put([word(value=0.0, at_s=12.0)]) == 1
    assert outcomes.put([word(value=1.0, at_s=5.0)]) == 0  # it came late, and happened before
    assert [one.value for one in outcomes.latest()] == [0.0]


def test_a_word_said_again_later_stands_against_one_from_the_time_between(outcomes: Outcomes) -> None:
    assert outcomes.put([word(), word(at_s=20.0)]) == 1
    assert outcomes.put([word(value=0.0, at_s=15.0)]) == 0
    assert [(one.value, one.at_s) for one in outcomes.latest()] == [(1.0, 20.0)]


def test_events_tell_words_apart(outcomes: Outcomes) -> None:
    assert outcomes.put([word(metric="click", event="1"), word(metric="click", event="2")]) == 2
    (found,) = outcomes.sums(0.0, 100.0)
    assert (found.metric, found.words, found.total) == ("click", 2, 2.0)


def test_the_latest_are_as_many_as_are_asked_for(outcomes: Outcomes) -> None:
    outcomes.put([word(id=str(number)) for number in range(1200)])
    assert len(outcomes.latest(2000)) == 1200
    assert len(outcomes.latest(3)) == 3


def test_they_go_with_the_rows(tmp_path: Path) -> None:
    outcomes = Outcomes(tmp_path / FILE, keep_days=1)
    outcomes.put([word("old")])
    outcomes.put([word("new", at_s=200_000.0)])
    assert [one.request_id for one in outcomes.latest()] == ["new"]


def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    outcomes = Outcomes(tmp_path / FILE)
    assert outcomes.put([word()]) == 1
    outcomes.close()
    assert len(list(tmp_path.glob("outcomes.corrupt-*"))) == 1
    assert read_only(tmp_path) == [word()]


def test_where_nothing_was_said_there_is_nothing(tmp_path: Path) -> None:
    assert read_only(tmp_path) == []
    assert not (tmp_path / FILE).exists()


def test_a_file_that_can_not_be_had_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises((sqlite3.Error, OSError)):
        Outcomes(tmp_path / FILE).put([word()])


def test_changes_are_written_down_in_the_step_that_makes_them_for_all_who_have_the_file(tmp_path: Path) -> None:
    one, other = Outcomes(tmp_path / FILE), Outcomes(tmp_path / FILE)
    with closing(one), closing(other):
        one.put([Outcome("r0", "rating", 1.0, 1.0, 1.0)])  # before anybody asked for it
        one.keep_changes("first")
        other.keep_changes("second")
        one.put([Outcome("r1", "rating", 1.0, 2.0, 2.0)])
        other.put([Outcome("r1", "rating", 0.0, 3.0, 3.0), Outcome("r2", "click", 2.0, 3.0, 3.0, event="x")])
        other.put([Outcome("r1", "rating", 0.0, 3.0, 3.0)])  # says nothing new
    with closing(sqlite3.connect(tmp_path / FILE)) as conn:
        assert conn.execute("select mark from changes_mark").fetchall() == [("first",)]
        assert conn.execute("select n, request_id, metric, before, after from changes order by n").fetchall() == [
            (1, "r1", "rating", "[]", '[["", 1.0, 2.0]]'),
            (2, "r1", "rating", '[["", 1.0, 2.0]]', '[["", 0.0, 3.0]]'),
            (3, "r2", "click", "[]", '[["x", 2.0, 3.0]]'),
        ]


def test_changes_are_kept_for_thirty_days_and_numbers_are_not_given_twice(tmp_path: Path) -> None:
    with closing(Outcomes(tmp_path / FILE)) as kept:
        kept.keep_changes("m")
        kept.put([Outcome("r1", "rating", 1.0, 1.0, 1.0)])
        kept.put([Outcome("r2", "rating", 1.0, 31 * 86_400, 31 * 86_400 + 2)])
        kept.put([Outcome("r3", "rating", 1.0, 70 * 86_400, 70 * 86_400)])
        kept.put([Outcome("r4", "rating", 1.0, 70 * 86_400, 70 * 86_400)])
    with closing(sqlite3.connect(tmp_path / FILE)) as conn:
        assert conn.execute("select n, request_id from changes").fetchall() == [(3, "r3"), (4, "r4")]
        assert conn.execute("select count(*) from outcomes").fetchone() == (4,)
