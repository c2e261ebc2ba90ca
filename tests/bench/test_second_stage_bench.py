"""The second stage's bench: areas and rates that one can count by hand, scripted judges that err as they are told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.hit_pool import Pool
from bench.hit_replay import RIGHT as RIGHT_HIT
from bench.hit_replay import WRONG, policy_on
from bench.second_stage import BAND, Candidates, JudgedPool, auc, scripted, simulated, within
from farthing.policies.reuse import Bound
from farthing.policies.static import Static
from tests.bench.test_hit_rate import line, pool_of

RIGHT = np.array([1, 0, 1, 0, 1], np.int8)
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.2])


@pytest.mark.parametrize(
    ("score", "right", "expected"),
    [
        ([3, 2, 1], [1, 1, 0], 1.0),
        ([1, 2, 3], [1, 1, 0], 0.0),
        ([1, 1, 1], [1, 0, 0], 0.5),
        ([2, 3, 1], [1, 0, 0], 0.5),
    ],
)
def test_an_area_is_the_chance_that_a_right_one_lies_above(
    score: list[float], right: list[int], expected: float
) -> None:
    assert auc(score, right) == expected


def test_without_one_of_both_kinds_there_is_no_area() -> None:
    assert math.isnan(auc([1.0, 2.0], [1, 1]))


def test_the_hit_rate_is_the_largest_within_the_bound() -> None:
    assert within(SCORES, RIGHT, 10, 0.0) == 0.1
    assert within(SCORES, RIGHT, 10, 0.34) == 0.3
    assert within(SCORES, RIGHT, 10, 0.5) == 0.5
    assert within(SCORES, 1 - RIGHT, 10, 0.0) == 0.0


def test_equal_scores_are_served_together_or_not_at_all() -> None:
    assert within(np.array([0.9, 0.9]), np.array([1, 0], np.int8), 2, 0.0) == 0.0


def test_a_scripted_judge_is_right_as_often_as_it_is_told() -> None:
    right = np.array([n % 2 for n in range(4_000)], np.int8)
    assert (scripted(right, 1.0, 1) == right).all()
    assert (scripted(right, 0.0, 1) == 1 - right).all()
    assert (scripted(right, 0.8, 1) == right).mean() == pytest.approx(0.8, abs=0.03)


def test_only_doubtful_scores_are_judged_and_a_perfect_judge_parts_them() -> None:
    found = Candidates("toy", 10, SCORES, RIGHT, [("a", "b")] * 5)
    assert found.doubtful.tolist() == [1, 2, 3]
    both = found.judged(RIGHT[found.doubtful].astype(np.float64))
    assert (both[0], both[4]) == (0.9, 0.2)
    assert both[2] > max(both[1], both[3])
    report = simulated([found])
    assert report.rows[0][:4] == ["toy", "none", "0", "0.100"]
    assert report.rows[-1][1:4] == ["1.00", "0.30", "0.200"]


def test_in_a_replay_a_pair_has_one_verdict_and_is_judged_where_its_score_is_doubtful() -> None:
    asks = ("how do I", "how can I", "how could I", "what must I do to", "tell me how to")
    wants = [f"{verb} my {thing}" for verb in ("close", "open", "move") for thing in ("account", "card", "shop")]
    plain = pool_of(*(line(f"{ask} {want}", want) for ask in asks for want in wants))
    order = list(range(len(plain.asked)))
    perfect, again, liar = (JudgedPool.over(plain, accuracy, 1) for accuracy in (1.0, 1.0, 0.0))

    def served(pool: Pool) -> NDArray[np.uint8]:
        policy = Static((BAND.low + BAND.high) / 2, on="score", bound=Bound(), mode="serve", audit_share=0.0)
        return policy_on(pool, order, policy, 1).what

    whats = [served(pool) for pool in (perfect, again, liar)]
    right, wrong = ([int((what == kind).sum()) for what in whats] for kind in (RIGHT_HIT, WRONG))
    assert perfect.asked_about
    assert (whats[0] == whats[1]).all() and perfect.asked_about == again.asked_about
    assert right[0] > right[2] and wrong[0] < wrong[2]
