"""Budgets: never over, always released, settled once; windows; refusals that say what to do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.budget import (
    KEPT_S,
    Books,
    Budget,
    Moved,
    Subject,
    Want,
    Who,
    crossed,
    refusal,
    wanted,
    window,
)

NOW_S = datetime(2026, 11, 26, 13, 0, tzinfo=UTC).timestamp()  # a Thursday
ALL = Subject("all")


def want(limit: int, account: str = "a", *, hard: bool = True) -> Want:
    return Want(account, "", int(NOW_S) + 3600, Budget(account, limit, "day", ALL, hard))


@pytest.mark.parametrize(
    ("per", "at", "start", "end"),
    [
        ("day", "2026-11-26T13:00:00", "2026-11-26", "2026-11-27"),
        ("day", "2026-11-26T00:00:00", "2026-11-26", "2026-11-27"),
        ("week", "2026-11-26T13:00:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-29T23:59:59", "2026-11-23", "2026-11-30"),
        ("month", "2026-11-30T23:59:59", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-01T00:00:00", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_windows_are_utc(per: str, at: str, start: str, end: str) -> None:
    def second(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())

    assert window(per, second(at)) == (second(start), second(end))  # type: ignore[arg-type]


@given(st.integers(0, 4_102_444_800), st.sampled_from(["day", "week", "month"]))
def test_windows_join_and_hold_their_moment(now_s: int, per: str) -> None:
    start, end = window(per, now_s)  # type: ignore[arg-type]

    assert start <= now_s < end
    assert window(per, end)[0] == end  # type: ignore[arg-type]
    assert window(per, start) == (start, end)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("of", "only", "subjects"),
    [
        ("all", (), ("",)),
        ("key", (), ("ann",)),
        ("tenant", (), ("acme",)),
        ("tenant", ("other*",), ()),
        ("model", ("gpt-*",), ("gpt-4o",)),
        ("model", ("claude*",), ()),
        ("tag:team", (), ("search", "ads")),
        ("tag:team", ("ads",), ("ads",)),
        ("tag:none", (), ()),
    ],
)
def test_whom_a_budget_means(of: str, only: tuple[str, ...], subjects: tuple[str, ...]) -> None:
    who = Who("ann", "acme", "gpt-4o", (("team", "search"), ("team", "ads"), ("team", "search"), ("x", "y")))

    assert Subject(of, only).named(who) == subjects
    accounts = wanted([Budget("b", 1, "day", Subject(of, only))], who, NOW_S)
    assert tuple(one.subject for one in accounts) == subjects


def test_a_long_subject_cannot_make_a_long_name_nor_be_another_ones() -> None:
    budget = Budget("b", 1, "day", Subject("tag:t"))
    one, two = (wanted([budget], Who("", "", "", (("t", "x" * 500 + end),)), NOW_S)[0].account for end in "ab")

    assert one != two
    assert len(one) < 80


@given(
    limits=st.lists(st.integers(0, 1000), min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 400), st.floats(0, 1), st.booleans()), max_size=80),
)
def test_never_over_always_released_settled_once(limits: list[int], steps: list[tuple[int, int, float, bool]]) -> None:
    """Reservations begin and end in any order, some of them ended twice, none for more than was reserved."""
    books = Books()
    wants = [want(limit, f"a{place}") for place, limit in enumerate(limits)]
    open_holds: dict[str, int] = {}
    spent = 0
    for number, (which, pico, share, twice) in enumerate(steps):
        if open_holds and which % 3 == 0:
            hold, held = list(open_holds.items())[which % len(open_holds)]
            del open_holds[hold]
            cost = int(held * share)
            spent += cost
            assert all(moved.after - moved.before == cost for moved in books.settle(hold, cost))
            if twice:
                assert books.settle(hold, cost) == []
        else:
            refused = books.reserve(f"h{number}", wants, pico)
            if refused < 0:
                open_holds[f"h{number}"] = pico
                if twice:
                    assert books.reserve(f"h{number}", wants, pico) == -1
        for one in wants:
            tally = books.tally(one.account, one.ends_s)
            assert tally.spent == spent
            assert tally.held == sum(open_holds.values())
            assert tally.spent + tally.held <= one.budget.limit
    for hold in open_holds:
        books.settle(hold, 0)
    assert all(books.tally(one.account, one.ends_s).held == 0 for one in wants)


def test_all_accounts_or_none() -> None:
    books = Books()

    assert books.reserve("h", [want(10, "wide"), want(3, "narrow")], 5) == 1
    assert books.tally("wide", 0).held == 0
    assert books.reserve("h", [want(10, "wide"), want(3, "narrow", hard=False)], 5) == -1
    assert books.settle("h", 4) == [Moved("wide", 0, 4), Moved("narrow", 0, 4)]


def test_what_is_free_passes_until_the_limit_is_reached() -> None:
    books = Books()

    assert books.reserve("a", [want(10)], 0) == -1
    books.settle("a", 12)
    assert books.reserve("b", [want(10)], 0) == 0


def test_accounts_that_are_over_or_empty_go_but_not_under_a_reservation() -> None:
    books = Books()
    books.reserve("h", [want(10)], 5)
    books.reserve("free", [want(10, "empty")], 0)
    books.settle("free", 0)
    late_s = NOW_S + 7200

    books.close_idle(late_s, 7200)
    assert list(books.tallies) == ["a"]
    books.close_idle(late_s + KEPT_S, 7200 + KEPT_S)
    assert list(books.tallies) == ["a"]
    books.settle("h", 5)
    books.close_idle(NOW_S, 9000 + KEPT_S)
    assert books.tallies["a"].spent == 5
    books.close_idle(late_s, 10_000 + KEPT_S)
    books.close_idle(late_s + KEPT_S, 9999 + 2 * KEPT_S)
    assert books.tallies["a"].spent == 5
    books.close_idle(late_s + KEPT_S, 10_000 + 2 * KEPT_S)
    assert books.tallies == {}


def test_what_was_spent_is_not_forgotten_while_the_clock_is_years_ahead() -> None:
    """As often as it is looked at meanwhile: no two days have passed."""
    books, ahead_s = Books(), datetime(2038, 1, 19, tzinfo=UTC).timestamp() - NOW_S
    books.reserve("h", [want(10)], 5)
    books.settle("h", 5)

    for tick in range(0, 3 * KEPT_S, 3600):
        books.close_idle(NOW_S + (ahead_s if tick % (KEPT_S // 2) else 0), tick)
    assert books.tallies["a"].spent == 5
    for tick in range(3 * KEPT_S, 4 * KEPT_S + 3601, 3600):
        books.close_idle(NOW_S + ahead_s, tick)
    assert books.tallies == {}
    assert len(books.over.since) <= 1


def test_thresholds_are_told_once_each() -> None:
    assert crossed((0.9, 0.5), 100, 0, 95) == [0.5, 0.9]
    assert crossed((0.5, 0.9), 100, 50, 89) == []
    assert crossed((1.0,), 100, 99, 100) == [1.0]


@pytest.mark.parametrize(
    ("spent", "held", "pico", "says", "retry_s"),
    [
        (9 * 10**12, 0, 2 * 10**12, "$9.00 is spent and this request may cost $2.00", 3600),
        (3 * 10**12, 7 * 10**12, 2 * 10**12, "requests under way may use up what is left ($7.00)", 1),
        (0, 0, 11 * 10**12, "this request alone may cost $11.00, and waiting doesn't help; ask for fewer", None),
    ],
)
def test_a_refusal_says_which_budget_how_much_and_when(
    spent: int, held: int, pico: int, says: str, retry_s: float | None
) -> None:
    budget = Budget("team", 10 * 10**12, "day", Subject("tag:team"))
    fault = refusal(Want("x", "search", int(NOW_S) + 3600, budget), spent, held, pico, NOW_S)

    assert fault.status == 402
    assert fault.retry_after_s == retry_s
    assert fault.param == "budgets.team"
    assert "'team' for team 'search' ($10.00 a day)" in fault.message
    assert says in fault.message
