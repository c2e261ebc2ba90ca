"""Students as plain data, and their standing on live traffic."""

from __future__ import annotations

import functools
import random
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies import student_standing
from farthing.policies.sequence import Evidence, upper
from farthing.policies.student import Student, Unfit, agreeing, dumped, loaded, sense
from farthing.policies.student_standing import Standing, Turned


def student(**more: object) -> Student:
    weights = np.array([[4.0, 0.0], [0.0, 4.0], [0.1, 0.1]], np.float32)
    given = Student(
        "s", "t" * 32, "chat", "gpt", "e", ("Yes.", "no", "per-haps"), weights, np.zeros(3, np.float32), 0.9, 0.02, 0.05
    )  # fmt: skip
    return replace(given, **more)  # type: ignore[arg-type]


def test_it_says_the_likeliest_label_in_its_teachers_words() -> None:
    said = student().say(np.array([1.0, 0.0], np.float32))
    assert said.label == "Yes." and 0.9 < said.confidence < 1
    assert student().confidences(np.eye(2, dtype=np.float32)).sum(axis=1) == pytest.approx(1)


def test_it_is_the_same_after_reading_it_again() -> None:
    one = student(about={"rows": 3})
    again = loaded(dumped(one))
    assert again.hash == one.hash and again.about == {"rows": 3} and again.labels == one.labels
    assert np.array_equal(again.weights, one.weights) and again.threshold == one.threshold


@pytest.mark.parametrize("name", ["template", "labels", "threshold", "weights", "hash", "bound", "embedder"])
def test_one_that_was_changed_by_hand_is_not_loaded(name: str) -> None:
    plain = orjson.loads(dumped(student()))
    plain[name] = {"labels": ["Yes.", "no", "x"], "threshold": 0.1, "bound": 0.9, "weights": "AAAAAA=="}.get(
        name, "other"
    )
    with pytest.raises(Unfit):
        loaded(orjson.dumps(plain))


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"form": "farthing-student-2"}', b"\x80\x04K\x01."])
def test_what_is_no_student_is_not_loaded(body: bytes) -> None:
    with pytest.raises(Unfit):
        loaded(body)


def test_numbers_that_do_not_fit_together_make_no_student() -> None:
    with pytest.raises(Unfit, match="fit together"):
        student(labels=("a", "b"))
    with pytest.raises(Unfit, match="finite"):
        student(bias=np.array([0, np.nan, 0], np.float32))


def test_spelling_counts_and_white_space_does_not() -> None:
    assert sense(" Yes.\n") == sense("Yes.") != sense("yes.")
    assert agreeing(["a", "b"], ["a ", "c"]).tolist() == [True, False]


def after(standing: Standing, outcomes: list[bool]) -> tuple[Standing, list[Turned]]:
    turns = []
    for wrong in outcomes:
        standing, turned = standing.learned(wrong)
        if turned is not None:
            turns.append(turned)
    return standing, turns


def test_it_serves_once_its_bound_is_proved_and_not_before() -> None:
    standing, turns = after(Standing(0.02), [False] * 150)
    assert not standing.serves and not turns and standing.upper > 0.02
    standing, turns = after(standing, [False] * 200)
    assert standing.serves and [one.serves for one in turns] == [True] and "at most" in turns[0].why


def test_one_that_is_at_its_bound_rarely_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    # All walk over the same few thousand counts of seen and bad, and what is proved of these is the same each time.
    monkeypatch.setattr(student_standing, "upper", functools.cache(upper))
    rng, served = random.Random(3), 0
    for _ in range(200):
        standing = Standing(0.05, level=0.1)
        for _ in range(1000):
            standing, turned = standing.learned(rng.random() < 0.05)
            if turned is not None:
                break
        served += standing.serves
    assert served / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5  # the first turn has half of the level


def test_one_that_got_worse_goes_back_to_observe_and_has_less_of_the_level_next_time() -> None:
    standing, _ = after(Standing(0.02), [False] * 2000)
    assert standing.serves
    rng = random.Random(5)
    count, turned = 0, None
    while turned is None and count < 120:  # whatever it had proved before
        count += 1
        standing, turned = standing.learned(rng.random() < 0.2)
    assert turned is not None and not turned.serves and "more often" in turned.why
    assert (standing.serves, standing.turn, standing.evidence) == (False, 1, Evidence())
    first, _ = after(Standing(0.02), [False] * 340)
    again, _ = after(replace(standing), [False] * 340)
    assert again.upper > first.upper


def test_false_alarms_are_as_rare_as_promised() -> None:
    """At its bound exactly: on average no alarm in `alarm_every` comparisons, so in a tenth of them few."""
    rng, alarms = random.Random(6), 0
    for _ in range(300):
        standing = replace(Standing(0.05, alarm_every=2000), serves=True)
        for _ in range(200):
            standing, turned = standing.learned(rng.random() < 0.05)
            if turned is not None:
                alarms += 1
                break
    assert alarms / 300 <= 0.1 + 3 * (0.1 * 0.9 / 300) ** 0.5


@given(st.lists(st.booleans(), max_size=60))
def test_what_is_known_is_the_same_after_reading_it_again(outcomes: list[bool]) -> None:
    standing, _ = after(Standing(0.3, 0.2), outcomes)
    assert Standing(0.3, 0.2).with_plain(orjson.loads(orjson.dumps(standing.plain()))) == standing
