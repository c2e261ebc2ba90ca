"""The similarity judge: facts first, then meaning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.embedder import open_embedder
from farthing.policies.answer import Answer
from farthing.policies.judge_similar import Similar
from farthing.policies.judges import JudgeCase, Score
from farthing.proxy.errors import ConfigFault


@cache
def _embedder() -> object:
    return open_embedder("minilm-int8")


def embed(texts: Sequence[str]) -> np.ndarray:
    return _embedder().embed(texts)  # type: ignore[attr-defined]


def score(answer: str, reference: str | None, **settings: object) -> Score:
    judge = Similar(embed=embed, **settings)  # type: ignore[arg-type]
    return judge.judge(JudgeCase({}, Answer(answer), None if reference is None else Answer(reference)))


@pytest.mark.parametrize(
    ("answer", "reference", "value", "reason"),
    [
        ("The meeting was moved to Monday.", "The meeting was moved to Monday.", 1.0, "similarity 1.00"),
        ("Returns take 14 days.", "Returns take 30 days.", 0.0, "differ"),
        ("Returns take 14 days.", "Returns take a while.", 0.0, "differ"),  # one fact less is another answer
        ("You can cancel the order online.", "You can't cancel the order online.", 0.0, "negation differs"),
        ("Write to Anna Weber about the refund.", "Write to Peter Schmidt about the refund.", 0.0, "names differ"),
        ("The cat sleeps on the warm mat.", "Interest rates are set by the central bank.", 0.0, "similarity 0."),
        ("", "Some words here.", 0.0, "no words"),
        ("Some words here.", "", None, "the reference has no words"),
        ("Some words here.", None, None, "no reference"),
        ("One more line.\n" * 200, "Some words here.", None, "too long to compare"),
    ],
)
def test_scores(answer: str, reference: str | None, value: float | None, reason: str) -> None:
    found = score(answer, reference)

    assert found.value == value
    assert reason in found.reason


def test_order_of_sentences_doesnt_count_and_a_missing_one_does() -> None:
    whole = "The museum opens late on Fridays. Children don't pay at all."
    turned = "Children don't pay at all. The museum opens late on Fridays."

    assert score(turned, whole, at_least=0.0).value == pytest.approx(1.0, abs=0.01)
    assert score("The museum opens late on Fridays.", whole, at_least=0.0, facts=False).value < 0.8  # type: ignore[operator]


def test_without_facts_a_changed_number_is_hardly_seen() -> None:
    value = score("Returns take 14 days.", "Returns take 30 days.", at_least=0.0, facts=False).value

    assert value is not None and value > 0.8


def test_without_an_embedder_it_cant_say() -> None:
    assert Similar().judge(JudgeCase({}, Answer("a word"), Answer("a word"))) == Score(None, "no embedder")


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_gets_a_score_and_the_same_one_turned_about(a: str, b: str) -> None:
    def constant(texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 1), np.float32)

    one, other = (Similar(embed=constant).judge(JudgeCase({}, Answer(x), Answer(y))) for x, y in ((a, b), (b, a)))
    assert one.value in (None, 0.0, 1.0)
    assert one.value == other.value or None in (one.value, other.value)  # no words: bad, or nothing to measure by


def test_a_threshold_beyond_all_cosines() -> None:
    with pytest.raises(ConfigFault, match="at_least"):
        Similar(at_least=1.1)
