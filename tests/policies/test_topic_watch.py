"""Topics and mean embeddings on real questions, embedded by the proxy's own model: quiet, and caught when changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from farthing.cache.embedder import open_embedder
from farthing.policies.mmd import Distance, Mean, distance, slack
from farthing.policies.shares import Reference
from farthing.policies.topics import Topics, group
from farthing.policies.watch import Board, Rules
from farthing.proxy.traffic import load_questions

Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def halves() -> tuple[Vectors, Vectors]:
    """The packaged questions of fifteen intents, and of the ten others (BANKING77, CC BY 4.0)."""
    questions = load_questions()
    vectors = np.asarray(open_embedder("minilm-int8").embed([one.text for one in questions]))
    names = sorted({one.intent for one in questions})
    first = np.array([one.intent in names[:15] for one in questions])
    return vectors[first], vectors[~first]


def drawn(vectors: Vectors, n: int, rng: np.random.Generator) -> Iterator[Vectors]:
    return iter(vectors[rng.integers(0, len(vectors), n)])


def board() -> Board:
    return Board(Rules(reference=Reference(1_000, 0.0)))


def test_the_same_topics_are_silent_and_others_are_caught(halves: tuple[Vectors, Vectors]) -> None:
    rng, now, one = np.random.default_rng(1), 0.0, board()
    for vector in drawn(halves[0], 6_000, rng):
        now += 1.0
        assert one.topic(vector, now) == []
    found: dict[str, int] = {}
    for at, vector in enumerate(drawn(halves[1], 1_000, rng), 1):
        for alarm in one.topic(vector, now + at):
            found[alarm.series] = at
    assert found["topic"] <= 200
    assert found["topic_distance"] <= 800


def test_half_of_the_questions_from_elsewhere_are_caught(halves: tuple[Vectors, Vectors]) -> None:
    rng, now, one = np.random.default_rng(2), 0.0, Board(Rules(reference=Reference(2_000, 0.0)))
    for vector in drawn(halves[0], 5_000, rng):
        now += 1.0
        assert one.topic(vector, now) == []
    mixed = np.concatenate([halves[0], halves[1], halves[1][:40]])
    told = [alarm for at, vector in enumerate(drawn(mixed, 1_000, rng)) for alarm in one.topic(vector, now + at)]
    assert {alarm.series for alarm in told} >= {"topic"}
    assert "semantic" in told[0].warns


def test_a_board_of_topics_goes_on_after_a_restart_with_nothing_but_means(halves: tuple[Vectors, Vectors]) -> None:
    rng, one = np.random.default_rng(3), board()
    for vector in drawn(halves[0], 2_000, rng):
        one.topic(vector, 0.0)
    dumped = one.dump()
    other = board()
    other.load(dumped)
    assert other.dump() == dumped
    centres = np.array(dumped["topics"]["centres"])
    assert (centres @ halves[0].T).max() < 0.999  # no centre is a single text's vector
    foreign = Board(Rules(reference=Reference(1_000, 0.0)), "another embedder")
    foreign.load(dumped)
    assert foreign.dump()["topics"] is None


def test_false_alarms_of_the_distance_are_no_more_than_stated() -> None:
    """At the edge of what is borne: the present's mean is just within the limit of the reference's."""
    rng, dim = np.random.default_rng(4), 8
    one = Distance(Reference(2_000, 0.0), 0.02)

    def around(centre: float, n: int) -> NDArray[np.float64]:
        found = rng.normal(0.0, 0.35, (n, dim))
        found[:, 0] += centre
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    for vector in around(0.3, 2_000):
        one.add(vector, 0.0, 0.0, 500.0)
    base, shift = one.reference, 0.3
    assert base is not None
    while np.linalg.norm(around(shift, 20_000).mean(axis=0) - base.value) < one.limit * 0.98:
        shift += 0.005
    count = 0
    for at, vector in enumerate(around(shift - 0.005, 20_000), 1):
        count += one.add(vector, 0.0, float(at), 500.0)
        one.since_s = None
    assert count <= 20_000 / 500


def test_the_slack_covers_the_true_mean() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(400, 100, 16)) + 0.5
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    truth = vectors.reshape(-1, 16).mean(axis=0)
    off = np.linalg.norm(vectors.mean(axis=1) - truth, axis=1)
    assert (off > slack(100, 0.05)).mean() <= 0.05


def test_the_distance_is_unbiased_where_nothing_changed(halves: tuple[Vectors, Vectors]) -> None:
    rng = np.random.default_rng(6)

    def mean(vectors: Vectors) -> Mean:
        return Mean(vectors.astype(np.float64).sum(axis=0), float(len(vectors)))

    first, second = halves
    same = [distance(mean(first[rng.integers(0, 120, 300)]), mean(first[rng.integers(0, 120, 300)])) for _ in range(50)]
    assert np.mean(np.square(same)) < 0.001
    assert distance(mean(first), mean(second)) == pytest.approx(0.27, abs=0.03)
    with pytest.raises(ValueError, match="two"):
        distance(mean(first[:1]), mean(second))


def test_groups_are_found_and_small_ones_are_none() -> None:
    rng = np.random.default_rng(7)
    centres = np.eye(6)[:3]
    vectors = np.concatenate([rng.normal(centres[at], 0.05, (count, 6)) for at, count in enumerate((50, 30, 20))])
    vectors = np.concatenate([vectors, np.eye(6)[5:]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = group(vectors, 5)
    assert np.allclose(found[:3].round(1) @ centres.T, np.eye(3), atol=0.15)
    assert not (found @ vectors[-1] > 0.99).any()
    with pytest.raises(ValueError, match="too few"):
        group(vectors[:3], 5)
    topics = Topics(5, 100)
    assert [topics.place(vector.astype(np.float32)) for vector in vectors][-1] is not None
    assert topics.place(np.eye(6)[4].astype(np.float32)) == 5
