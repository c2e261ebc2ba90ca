"""What tells two texts apart, for people: nothing that lowers a score goes without a word, and texts stay whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.differences import KINDS, Difference, Part, diff, differences, without
from farthing.cache.rarity import RouteWords
from farthing.cache.signals import DIRECTIONS, FEATURES, Asked, compare
from farthing.cache.verifier import Verifier
from farthing.proxy.text import normalise
from tests.fakes.examples import examples

VERIFIER = Verifier.open()
TEXTS = st.text(st.sampled_from("ab12 \n.,'’-?!<>é中\u200b\u202e"), max_size=40)


def told(asked: str, stored: str, cosine: float = 0.97) -> list[Difference]:
    return differences(against(asked, stored, cosine), asked, stored)


def against(asked: str, stored: str, cosine: float) -> list[str]:
    return VERIFIER.against(VERIFIER.read(asked), VERIFIER.read(stored), cosine, RouteWords())


def joined(parts: list[Part]) -> str:
    return "".join(text for text, _ in parts)


def test_every_feature_that_lowers_a_score_has_a_word() -> None:
    spoken = {name for names in KINDS.values() for name in names}
    lowering = {name for name, direction in zip(FEATURES, DIRECTIONS, strict=True) if direction < 0}
    assert lowering - {"hard"} <= spoken <= set(FEATURES)


@pytest.mark.parametrize(
    ("asked", "stored", "kind", "mine", "theirs"),
    [
        ("Rice for 12 people?", "Rice for 13 people?", "numbers differ", ("12",), ("13",)),
        ("Can I return it?", "Can't I return it?", "negation on one side", (), ("can't",)),
        ("How do I buy shares?", "How do I sell shares?", "opposites", ("buy",), ("sell",)),
        ("Boil 2 kg of rice", "Boil 2 g of rice", "quantities differ", ("2 kg",), ("2 g",)),
        ("Pay Ana back", "Pay Ben back", "names differ", ("ana",), ("ben",)),
        ("Send 5 from Ana to Ben", "Send 5 from Ben to Ana", "names change places", (), ()),
        ("What does `x < 3` do?", "What does `x > 3` do?", "identifiers differ", ("x < 3",), ("x > 3",)),
        ("When is the desk open?", "Where is the desk open?", "another kind of question", ("when",), ("where",)),
    ],
)
def test_the_first_difference_is_the_one_that_decides(
    asked: str, stored: str, kind: str, mine: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    first = told(asked, stored)[0]
    assert first == Difference(kind, mine, theirs)
    assert told(stored, asked)[0] == Difference(kind, theirs, mine)


def test_a_kind_that_says_nothing_new_is_left_out() -> None:
    kinds = [one.kind for one in told("How do I buy shares?", "How do I sell shares?")]
    assert "words replaced" not in kinds and "words on one side" not in kinds
    assert told("How do I clean it?", "How do I clean it?") == []


def test_a_pair_that_can_not_be_compared_says_why() -> None:
    assert told("Где мой заказ?", "Где мой счёт?")[0].kind == "words in another script differ"


def test_taking_a_difference_away_never_lowers_the_score() -> None:
    one, other = (VERIFIER.read(text) for text in ("Send 12 kg to Ana on Monday", "Don't send 13 g to Ben on Friday"))
    row = compare(Asked(one, RouteWords()), other, 0.9)
    assert row[-1] > 3
    for names in KINDS.values():
        assert all(
            (after >= before) if direction > 0 else (after <= before)
            for before, after, direction in zip(row, without(row, names), DIRECTIONS, strict=True)
        )
    assert without(row, [name for names in KINDS.values() for name in names])[-1] == 0


def test_the_words_that_differ_are_marked_on_both_sides() -> None:
    asked, stored = diff("How do I top up by card?", "How do I top up by bank transfer?")
    assert asked == [("How do I top up by ", False), ("card", True), ("?", False)]
    assert stored == [("How do I top up by ", False), ("bank transfer", True), ("?", False)]


def test_letter_case_is_no_difference() -> None:
    assert diff("HOW DO I?", "how do I?") == ([("HOW DO I?", False)], [("how do I?", False)])


def test_a_long_common_part_is_shortened_and_the_difference_stays() -> None:
    text = "Read this passage. " + "It goes on and on. " * 100
    asked, stored = diff(text + "Who wrote it?", text + "When was it?")
    assert len(joined(asked)) < 250
    assert "…" in joined(asked) and joined(asked).endswith("Who wrote it?")
    assert joined(asked).startswith("Read this passage. It goes on and on. It goes on and on. It … ")
    assert ("Who wrote", True) in asked and ("When was", True) in stored
    whole, _ = diff(text + "Who wrote it?", text + "When was it?", whole=True)
    assert joined(whole) == text + "Who wrote it?"


def test_texts_too_long_to_be_matched_word_by_word_differ_as_a_whole() -> None:
    asked, stored = diff("same " + "a b " * 2_000, "same " + "c d " * 2_000, whole=True)
    assert [differs for _, differs in asked] == [differs for _, differs in stored]
    assert asked[0] == ("same ", False) and asked[1][1]


@given(TEXTS, TEXTS)
@settings(max_examples=examples(300), deadline=None)
def test_the_pieces_are_the_texts_and_what_is_common_is_the_same(asked: str, stored: str) -> None:
    one, other = normalise(asked), normalise(stored)
    parts = diff(one, other, whole=True)
    assert (joined(parts[0]), joined(parts[1])) == (one, other)
    common = ["".join("".join(text for text, differs in side if not differs).split()) for side in parts]
    assert common[0].casefold() == common[1].casefold()
    differences(against(asked, stored, 0.9), one, other)
