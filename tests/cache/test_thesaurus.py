"""The word file that ships: it loads, relates words as WordNet does, and bad files are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from farthing.cache.thesaurus import NOTHING, Thesaurus


@pytest.fixture(scope="module")
def thesaurus() -> Thesaurus:
    return Thesaurus.load()


def test_frequent_words_come_first(thesaurus: Thesaurus) -> None:
    assert len(thesaurus) == 16_000
    assert thesaurus.sense("the").rank == 0
    assert thesaurus.sense("the").rank < thesaurus.sense("card").rank < thesaurus.sense("walrus").rank
    assert next(iter(thesaurus)) == "the"


def test_opposites_kinds_and_meanings(thesaurus: Thesaurus) -> None:
    assert thesaurus.sense("buy").opposites == {"sell"}
    assert thesaurus.sense("paris").kinds & thesaurus.sense("rome").kinds
    assert not thesaurus.sense("paris").meanings & thesaurus.sense("rome").meanings
    assert thesaurus.sense("purchase").meanings & thesaurus.sense("buy").meanings


@pytest.mark.parametrize(
    ("inflected", "base"), [("increases", "increase"), ("enabled", "enable"), ("buys", "buy"), ("cancels", "cancel")]
)
def test_inflected_words_mean_what_their_base_means(thesaurus: Thesaurus, inflected: str, base: str) -> None:
    assert thesaurus.sense(inflected).meanings & thesaurus.sense(base).meanings
    assert thesaurus.sense(inflected).opposites == thesaurus.sense(base).opposites


@pytest.mark.parametrize("word", ["qqqq", "", "s", "ing", "\ud800", "Ünderstand"])
def test_what_is_unknown_is_rare_and_unrelated(thesaurus: Thesaurus, word: str) -> None:
    sense = thesaurus.sense(word)

    assert sense is NOTHING or not sense.opposites


def test_a_file_of_another_form_is_an_error(tmp_path: Path) -> None:
    bad = tmp_path / "words.tsv"
    bad.write_text("word\tnot,numbers\n", encoding="utf-8")

    with pytest.raises(ValueError, match="invalid literal"):
        Thesaurus.load(bad)
    with pytest.raises(OSError, match="none"):
        Thesaurus.load(tmp_path / "none")
