"""The replay of template-aware matching: a figure is worth what the ruler is worth."""

from __future__ import annotations

from random import Random

import pytest

from bench.hit_traffic import Asked
from bench.templates import RULES, Outcome, about, apps, passages, replay
from farthing.cache.template import Templates
from farthing.policies.reuse import RouteKey
from tests.cache.test_semantic import Letters

HEAD = "Read the passage and answer the question.\n\n"
PAPERS = [f"{place} lies on the river. It has {count} mills, a market and an old bridge." for count, place in
          enumerate(("Arle", "Brill", "Crane", "Dray"), 3)]  # fmt: skip


def asked(text: str, answer: str) -> Asked:
    return Asked(text, answer, "s", "scope", RouteKey("one", "m"), ("one", "", ""))


LONG = [asked(f"{HEAD}{paper}\n\nQuestion: {q}", q) for paper in PAPERS for q in ("How many mills?", "Which river?")]
QA = [asked("How many mills are there in the town?", "mills"), asked("Who built the bridge over the river?", "bridge")]


@pytest.mark.parametrize(
    ("judged", "wrong", "hits"),
    [
        ([], 0.5, 0),
        ([(0.9, True), (0.8, True), (0.7, False)], 0.0, 2),
        ([(0.9, True), (0.8, False), (0.7, True), (0.6, True)], 0.25, 4),
        ([(0.9, False), (0.8, True), (0.7, True)], 0.1, 0),
        ([(0.9, True), (0.9, False), (0.5, True)], 0.1, 0),  # no threshold parts equal scores
    ],
)
def test_most_hits_within_a_share_of_wrong_ones(judged: list[tuple[float, bool]], wrong: float, hits: int) -> None:
    assert Outcome(judged=judged).hits(wrong) == hits


def test_passages_and_their_questions() -> None:
    noise = [asked("What is it?\n\nAnswer from this text:\nArle.", "x"), asked("Hello", "y")]
    assert list(passages([*noise, *LONG])) == [(paper, ["How many mills?", "Which river?"]) for paper in PAPERS]


def test_a_passage_with_another_number_is_another_class() -> None:
    papers = [(PAPERS[0], ["How many mills?"]), (PAPERS[0].replace("3", "5"), ["How many mills?"])]
    made = list(about(papers, "{rules}{paper}\n\n{asked}", Random(1)))
    assert len({one.answer for one in made}) == 2
    assert all(one.text.startswith(RULES) for one in made)


def test_traffic_follows_from_its_seed() -> None:
    one, again, other = (apps({"qa": QA, "long": LONG}, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert set(one) == {"app", "rag", "rag-long", "rag-after"} and all(one.values())


def test_replaying_divides_and_counts() -> None:
    prompts = apps({"qa": QA, "long": LONG})["app"]
    whole, parts = (replay(prompts, Letters(), templates) for templates in (None, Templates()))
    assert whole.requests == parts.requests == len(prompts)
    assert whole.possible == parts.possible == len(prompts) - 2
    assert whole.divided == 0 and parts.divided == len(prompts) - 3
