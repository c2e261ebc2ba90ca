"""That a leak which is small beside what farthing holds is seen, and the run that is on record is none."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from tests.chaos.page import SOAK
from tests.chaos.soak import FULL_AFTER, Sample, Soak, broken, growth_mib

RECORDED = [Sample(**sample) for sample in json.loads(SOAK.read_text("utf-8"))["samples"]]


def soak(samples: list[Sample]) -> list[str]:
    run = Soak(samples[-1].requests, random.Random(1), done=samples[-1].requests, samples=samples)
    return broken(run, run.done)


def leaking(mib: float, *, flat: bool) -> list[Sample]:
    """The recorded run, or one that holds the same all the time, with so much more for 500,000 of its second half."""
    half = RECORDED[len(RECORDED) // 2].requests
    return [
        replace(
            sample,
            rss_mib=(150.0 if flat else sample.rss_mib) + max(0, sample.requests - half) / 500_000 * mib,
        )
        for sample in RECORDED
    ]


def test_the_recorded_run_is_full_and_stays() -> None:
    assert soak(RECORDED) == []
    assert RECORDED[len(RECORDED) // 2].requests >= FULL_AFTER


@pytest.mark.parametrize("flat", [False, True])
def test_a_leak_of_two_and_a_half_mib_in_half_a_million_of_the_second_half_is_seen(flat: bool) -> None:
    samples = leaking(2.5, flat=flat)

    assert any("memory grows by" in claim for claim in soak(samples))
    assert soak(leaking(0.0, flat=flat)) == []


def test_a_step_once_is_no_leak() -> None:
    step = [replace(sample, rss_mib=150.0 + 6.0 * (sample.requests > 1_700_000)) for sample in RECORDED]

    assert soak(step) == []
    assert growth_mib(step) < 1.0


def test_a_run_that_ends_before_everything_is_full_shows_no_slope() -> None:
    filling = [replace(one, rss_mib=100.0 + one.requests / FULL_AFTER * 60.0) for one in RECORDED]
    short = [sample for sample in filling if sample.requests < 700_000]

    assert growth_mib(short[len(short) // 2 :]) > 3.0
    assert not any("memory grows by" in claim for claim in soak(short))
