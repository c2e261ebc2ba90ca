"""Reliability bins and the expected calibration error, against worlds whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest

from farthing.policies.calibration import Calibration


def world(n: int, seed: int, off: float) -> Calibration:
    """Confidences spread evenly; a pair is right with its confidence less `off`."""
    rng, found = np.random.default_rng(seed), Calibration()
    for confidence in rng.uniform(0.5, 1.0, n):
        found.add(float(confidence), float(rng.random() > confidence - off))
    return found


def test_a_confidence_that_means_what_it_says() -> None:
    """The interval of the error holds 0, and each bin's the bin's confidence, as often as it says."""
    told = [world(500, seed, 0.0).told() for seed in range(200)]
    assert np.mean([one.ece_low == 0.0 for one in told]) >= 0.95
    inside = [b.right_low <= b.confidence <= b.right_high for one in told for b in one.bins]
    assert np.mean(inside) >= 0.95


def test_a_confidence_that_is_too_high_by_a_fifth() -> None:
    told = [world(2_000, seed, 0.2).told() for seed in range(50)]
    assert np.mean([one.ece_low <= 0.2 <= one.ece_high for one in told]) >= 0.95
    assert all(one.ece_low > 0.1 for one in told)
    assert np.mean([one.ece for one in told]) == pytest.approx(0.2, abs=0.02)


def test_who_is_surer_is_right_more_often() -> None:
    found = Calibration()
    for confidence, wrong in ((0.95, 0.0), (0.95, 0.0), (0.55, 1.0), (0.55, 0.0)):
        found.add(confidence, wrong)
    told = found.told()
    assert told.auc == pytest.approx((2 + 0.5) / 3)
    assert told.brier == pytest.approx((2 * 0.05**2 + 0.55**2 + 0.45**2) / 4)
    assert (told.n, told.wrong, told.enough) == (4, 1, False)


def test_nothing_is_said_of_nothing() -> None:
    told = Calibration().told()
    assert (told.n, told.ece_high, told.auc, told.enough, told.bins) == (0, 1.0, None, False, ())
    with pytest.raises(ValueError, match="lie in"):
        Calibration().add(1.5, 0.0)


def test_what_is_dumped_is_loaded() -> None:
    found = world(100, 1, 0.1)
    assert Calibration.load(found.dump()).told() == found.told()
    with pytest.raises(ValueError, match="other bins"):
        Calibration.load(found.dump() | {"n": [1]})
