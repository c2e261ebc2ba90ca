"""The pair features: each mismatch is seen, the same said otherwise isn't, and bad input is only text."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.rarity import RouteWords
from farthing.cache.reading import read
from farthing.cache.signals import DIRECTIONS, FEATURES, Asked, comparable, compare
from farthing.cache.thesaurus import Thesaurus
from farthing.proxy.text import READ_CHARS
from tests.fakes.examples import examples

THESAURUS = Thesaurus.load()
WORDS = RouteWords()


def features(one: str, other: str, cosine: float = 0.9) -> dict[str, float]:
    a, b = read(one, THESAURUS), read(other, THESAURUS)
    there, back = compare(Asked(a, WORDS), b, cosine), compare(Asked(b, WORDS), a, cosine)
    assert there == back
    return dict(zip(FEATURES, there, strict=True))


@pytest.mark.parametrize(
    ("one", "other", "signal"),
    [
        ("What is 15% of 80?", "What is 15% of 90?", "numbers_replaced"),
        ("Subtract 5 from 3", "Subtract 3 from 5", "numbers_moved"),
        ("How far is 5 km?", "How far is 5 miles?", "quantities_replaced"),
        ("Are you open on 3 May?", "Are you open on 4 May?", "dates_replaced"),
        ("the price next week", "the price last week", "dates_replaced"),
        ("Call me at 3 pm", "Call me at 3 am", "dates_replaced"),
        ("a table for four in Rome", "a table in Rome", "figures_one_sided"),
        ("Who founded IBM?", "Who founded SAP?", "names_replaced"),
        ("Opening hours in Rome", "Opening hours", "names_one_sided"),
        ("Did Alice pay Bob?", "Did Bob pay Alice?", "names_moved"),
        ("food with nuts", "food without nuts", "negation"),
        ("Can I cancel it?", "Can't I cancel it?", "negation"),
        ("rooms for at least 4", "rooms for at most 4", "bounds"),
        ("Explain `my_var`", "Explain `my_val`", "code_replaced"),
        ("Explain the error in `parse`", "Explain the error", "code_one_sided"),
        ("rows where a > b", "rows where a < b", "operators"),
        ('Say "yes please"', 'Say "no thanks"', "quotes_replaced"),
        ("Say hello to them", 'Say hello "my dear" to them', "quotes_one_sided"),
        ("How do I do it with a card?", "Comment je le fais avec une carte dans une banque?", "language"),
        ("Who painted it?", "When did they paint it?", "question"),
        ("flights from rome", "flights to rome", "roles"),
        ("does the dog bite the man", "does the man bite the dog", "moved"),
        ("how do I buy shares", "how do I sell shares", "opposites"),
        ("How do I increase my limit?", "How do I decrease my limit?", "opposites"),
        ("a recipe with apples", "a recipe with carrots", "rarest_replaced"),
        ("is it in the box", "is it under the box", "direction_words"),
        ("close my account", "close her account", "third_persons"),
        ("is the shop open", "was the shop open", "tense"),
        ("a recipe for apple pie", "a recipe for carrot pie", "one_place"),
    ],
)
def test_each_mismatch_is_seen(one: str, other: str, signal: str) -> None:
    found = features(one, other)

    assert FEATURES[signal] == -1
    assert found[signal] > 0
    assert features(one, one)[signal] == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "how do i reset my password"),
        ("Twenty-five euros to dollars", "25 euros to dollars"),
        ("Open on 3 May 2024?", "open on 2024-05-03"),
        ("In Java how do I sort lists", "how do I sort lists in Java?"),
        ("Explain:\n```python\nx = y < 3\n```", "Explain `x = y < 3`"),
        ('Translate "Good day"', "Translate: Good day"),
    ],
)
def test_the_same_said_otherwise_is_no_hard_mismatch(one: str, other: str) -> None:
    found = features(one, other)

    assert found["hard"] == 0
    assert found["rarest_replaced"] == 0


def test_synonyms_and_spellings_are_explained() -> None:
    found = features("how do I purchase a ticket", "how do I buy a ticket")

    assert found["terms_replaced"] == 0
    assert found["explained"] == 1


def test_a_question_about_a_passage_is_seen_beside_it() -> None:
    passage = "The river rises in the hills and the town on the river has a bridge."

    assert features(f"{passage} Where is the bridge?", f"{passage} Where is the town?")["terms_unmatched"] > 0


def test_what_cannot_be_compared() -> None:
    def reason(one: str, other: str) -> str:
        a, b = read(one, THESAURUS), read(other, THESAURUS)
        assert comparable(a, b) == comparable(b, a)
        return comparable(a, b)

    assert reason("word " * READ_CHARS, "word") == "too long to compare"
    assert reason("log in to paypal", "log in to p\u0430ypal") == "words of mixed scripts differ"
    assert reason("你好吗 朋友", "你好吗 敌人") == "words in another script differ"
    assert reason("Wie kann ich die Karte sperren?", "Wie kann ich meine Karte sperren?") == "language not covered"
    assert reason("How do I pay?", "How can I pay?") == ""


# Words that the signals look at; random characters seldom reach them.
PIECES = 'paris Rome to from not no 5 five kg 3pm May "a b" `x` a_b < > buy sell Ana Ben my her who when . ?'
LOADED = st.lists(st.sampled_from(PIECES.split()), max_size=10).map(" ".join)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.one_of(LOADED, st.text(st.characters(), max_size=60)), st.one_of(LOADED, st.text(st.characters(), max_size=60))
)
def test_features_are_finite_symmetric_and_best_for_the_text_itself(one: str, other: str) -> None:
    found = features(one, other)
    itself = features(one, one)

    assert all(math.isfinite(value) for value in found.values())
    for name, direction in FEATURES.items():
        if direction < 0:
            assert found[name] >= itself[name] == 0
        elif name != "explained":
            assert found[name] <= itself[name]
    assert len(DIRECTIONS) == len(found)


@pytest.mark.parametrize("unit", ["word ", "5 ", "a_b ", '"q" ', "Ab. ", "\u0430", "x<y ", "[" * 7, "in to "])
def test_time_is_bounded(unit: str) -> None:
    text, other = (unit * READ_CHARS)[:READ_CHARS], ("z " + unit * READ_CHARS)[:READ_CHARS]
    began = time.process_time()

    a, b = read(text, THESAURUS), read(other, THESAURUS)
    compare(Asked(a, WORDS), b, 0.9)

    assert time.process_time() - began < 2.0
    assert len(a.terms) <= 512
