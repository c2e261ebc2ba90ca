"""What is suggested for a word that nobody knows."""

from __future__ import annotations

import pytest

from farthing.policies.nearest import did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("modle", ["mode", "model", "modes"], "model"),
        ("mdoe", ["model", "mode"], "mode"),
        ("mod", ["model", "mode"], "mode"),
        ("prot", ["port", "proto"], "port"),
        ("tl_s", ["ttl_s", "max_entries"], "ttl_s"),
        ("xyz", ["mode", "model"], ""),
        ("mode", [], ""),
    ],
)
def test_letters_that_changed_places_come_before_a_lost_one(word: str, known: list[str], meant: str) -> None:
    assert nearest(word, known) == nearest(word, reversed(known)) == meant
    assert did_you_mean(word, known) == (f"; did you mean {meant!r}?" if meant else "")


def test_what_is_less_like_than_asked_is_not_suggested() -> None:
    assert nearest("xttl", ["ttl_s"], cutoff=0.5) == "ttl_s"
    assert nearest("xttl", ["ttl_s"], cutoff=0.75) == ""
