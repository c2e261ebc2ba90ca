"""Where marks go: by chance and price, within what is allowed, never over the client's own."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.keep_warm import gain_of_keeping
from farthing.policies.prefix_returns import FIRST_GUESS, Returns
from farthing.policies.prompt_marks import Life, Marking, Place, Terms, as_left, mark

HOUR, SHORT = Life("1h", 1, 2.0), Life("", 0, 1.25)
TERMS = Terms(1024, 4, 20, 0.1, (HOUR, SHORT))


def place(tokens: int, short: float, hour: float | None = None, **more: object) -> Place:
    return Place(tokens, tokens // 100, (short, short if hour is None else hour), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("places", "marks"),
    [
        pytest.param([], (), id="nothing to mark"),
        pytest.param([place(2000, 0.21)], (), id="just too seldom for five minutes"),
        pytest.param([place(2000, 0.23)], ((0, 1),), id="just often enough"),
        pytest.param([place(1000, 0.9)], (), id="too short to be cached"),
        pytest.param([place(2000, 0.1, 0.9)], ((0, 0),), id="within the hour"),
        pytest.param([place(2000, 0.1, 0.5)], (), id="too seldom for an hour"),
        pytest.param([place(2000, 0.9, 0.92)], ((0, 1),), id="five minutes are cheaper where they do"),
        pytest.param([place(2000, 0.9), place(9000, 0.1)], ((0, 1),), id="the head alone"),
        pytest.param([place(2000, 0.9), place(9000, 0.9)], ((1, 1),), id="one mark does for both"),
        pytest.param([place(2000, 0.9), place(9000, 0.5)], ((0, 1), (1, 1)), id="both, since some come back to one"),
        pytest.param([place(2000, 0.1, warm=True)], ((0, 1),), id="what is there is read"),
        pytest.param([place(2000, 0.9, own=1)], (), id="the client has marked it"),
        pytest.param(
            [place(2000, 0.9, own=1), place(9000, 0.2, 0.9)], (), id="no hour behind the client's five minutes"
        ),
        pytest.param([place(2000, 0.9), place(9000, 0.5, own=0)], ((0, 0),), id="an hour before the client's hour"),
    ],
)
def test_marks_stand_where_they_pay(places: list[Place], marks: tuple[tuple[int, int], ...]) -> None:
    found = mark(places, TERMS)
    if marks == ((1, 1),):  # the one in front may stand as well: it costs nothing
        assert found.marks[-1] == (1, 1)
    else:
        assert found.marks == marks
    assert (found.gain_tokens > 0) == bool(marks)


def test_the_gain_is_what_the_formula_says() -> None:
    assert mark([place(2000, 0.5)], TERMS).gain_tokens == pytest.approx(2000 * (0.5 * 0.9 - 0.5 * 0.25))


def test_where_the_provider_writes_by_itself_one_off_tails_are_left_out() -> None:
    terms = Terms(1024, 4, 1, 0.1, (SHORT,))
    places = [place(2000, 0.9), place(9000, 0.0)]
    marking = mark(places, terms, as_left(places, terms))
    assert marking.marks == ((0, 0),)
    assert marking.gain_tokens == pytest.approx(7000 * 0.25)
    assert mark([place(9000, 0.0)], terms, as_left([place(9000, 0.0)], terms)) == Marking((), 9000 * 0.25)
    always = [place(2000, 0.9), place(9000, 0.9)]
    assert mark(always, terms, as_left(always, terms)) == Marking()


def test_what_cannot_be_marked_counts_for_what_the_provider_does_by_itself_alone() -> None:
    terms = Terms(1024, 4, 1, 0.1, (SHORT,))
    head, tail = place(2000, 0.9, markable=False), place(2600, 0.0)
    assert as_left([head, tail], terms) == pytest.approx(2000 * (0.9 * 0.9 - 0.1 * 0.25) - 600 * 0.25)
    assert mark([head, tail], terms, as_left([head, tail], terms)) == Marking()  # else the head's reads were lost
    vain = [head, place(12_000, 0.0)]
    assert mark(vain, terms, as_left(vain, terms)).marks == ()
    assert mark(vain, terms, as_left(vain, terms)).gain_tokens == pytest.approx(-as_left(vain, terms))


CHANCE = st.floats(0, 1)


@st.composite
def places_in_order(draw: st.DrawFn) -> list[Place]:
    sizes = sorted(draw(st.lists(st.integers(1, 20_000), max_size=6)))
    found, least = [], (1.0, 1.0)
    lives = iter(sorted(draw(st.lists(st.sampled_from([0, 1]), max_size=4))))
    for size in sizes:
        short = draw(st.floats(0, least[0]))
        least = (short, max(short, draw(st.floats(0, least[1]))))
        own = next(lives, None) if draw(st.booleans()) else None
        found.append(Place(size, draw(st.integers(0, 60)) + len(found), least, draw(st.booleans()), own))
    return sorted(found, key=lambda one: (one.tokens,))


@given(places_in_order(), st.integers(0, 4))
def test_never_too_many_never_on_the_clients_and_in_the_order_of_lives(places: list[Place], most: int) -> None:
    terms = TERMS._replace(most_marks=most)
    found = mark(places, terms)
    own = [(number, one.own) for number, one in enumerate(places) if one.own is not None]
    assert not {number for number, _ in found.marks} & {number for number, _ in own}
    if found.marks:
        assert len(found.marks) + len(own) <= most
        lives = [life for _, life in sorted([*found.marks, *own])]
        assert lives == sorted(lives)
        assert found.gain_tokens > 0
    assert all(places[number].tokens >= terms.minimum_tokens for number, _ in found.marks)


@given(places_in_order().filter(lambda places: all(one.own is None and not one.warm for one in places)))
def test_no_other_choice_saves_more(places: list[Place]) -> None:
    def saved(marks: tuple[tuple[int, int], ...]) -> float:
        total, start = 0.0, 0
        for number, life in marks:
            one, kept = places[number], TERMS.lives[life]
            chance = one.chances[kept.window]
            total += (one.tokens - start) * (chance * 0.9 - (1 - chance) * (kept.write - 1))
            start = one.tokens
        return total

    able = [number for number, one in enumerate(places) if one.tokens >= TERMS.minimum_tokens]
    every = (
        tuple(zip(chosen, lives, strict=True))
        for count in range(1, 5)
        for chosen in itertools.combinations(able, count)
        for lives in itertools.combinations_with_replacement((0, 1), count)
    )
    best = max(map(saved, every), default=0.0)
    assert mark(places, TERMS).gain_tokens == pytest.approx(best if best >= 1 else 0.0)


def test_a_prefix_that_returns_is_known_at_once_and_a_kind_when_the_time_has_passed() -> None:
    returns = Returns((300.0, 3600.0))
    assert returns.chances(1, ("head",)) == (FIRST_GUESS, FIRST_GUESS)
    for number in range(10):
        returns.arrive([1], [("head",)], number * 100.0)
    assert all(chance > 0.7 for chance in returns.chances(1, ("head",)))
    assert returns.chances(2, ("head",))[1] == FIRST_GUESS  # no hour has passed yet
    assert returns.chances(2, ("head",))[0] > FIRST_GUESS


def test_what_never_returns_teaches_its_kind_too() -> None:
    returns = Returns((300.0, 3600.0))
    for number in range(40):
        returns.arrive([number], [("turn",)], number * 100.0)
    assert returns.chances(-1, ("turn",))[0] < 0.05
    assert returns.chances(-1, ("turn",))[1] < FIRST_GUESS


def test_slow_returns_are_told_from_quick_ones() -> None:
    returns = Returns((300.0, 3600.0))
    for number in range(12):
        returns.arrive([1], [()], number * 900.0)
    short, hour = returns.chances(1, ("head",))
    assert short < 0.1 < 0.7 < hour


def test_reads_that_were_promised_and_did_not_come_lower_the_chance() -> None:
    returns = Returns((300.0,))
    for number in range(12):
        returns.arrive([1], [()], number * 10.0)
    before = returns.chances(1, ("head",))[0]
    returns.warm(1, 1e9)
    for _ in range(8):
        returns.read(1, well=False)
    seen = returns.get(1)
    assert seen is not None
    assert seen.warm_s == 0
    assert returns.chances(1, ("head",))[0] == pytest.approx(before * 0.2)


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1e4)), max_size=300))
def test_memory_is_bounded_and_chances_are_chances(arrivals: list[tuple[int, float]]) -> None:
    returns, now_s = Returns((300.0, 3600.0), most=20), 0.0
    for key, later_s in arrivals:
        now_s += later_s
        returns.arrive([key], [("kind",)], now_s)
        short, hour = returns.chances(key, ("kind",))
        assert 0 <= short <= 1
        assert 0 <= hour <= 1
    assert len(returns) <= 20


@pytest.mark.parametrize(
    ("chance", "twice", "pays"),
    [(0.0, 0.08, False), (0.0, 0.1, True), (0.9, 0.92, True), (0.9, 0.9, False), (1, 1, False)],
)
def test_keeping_warm_pays_where_the_next_comes_soon_after(chance: float, twice: float, pays: bool) -> None:
    assert (gain_of_keeping(1000, chance, twice, 0.1, 1.25) > 0) == pays
