"""Our count beside the provider's: sums over an hour, an alarm told once, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.usage_drift import Counted, Drift, exact


@pytest.mark.parametrize(
    ("model", "ours"),
    [
        ("gpt-4o-mini", True),
        ("gpt-5.6-2026-08-01", True),
        ("openai/o3-mini", True),
        ("ft:gpt-4o-mini:org::id", True),
        ("text-embedding-3-small", True),
        ("gpt-oss-120b", False),
        ("claude-sonnet-5", False),
        ("llama-70b", False),
        ("o200k", False),
        ("", False),
    ],
)
def test_whose_tokenizer_we_have(model: str, ours: bool) -> None:
    assert exact(model) is ours


def test_a_lasting_difference_alarms_once_and_again_after_it_was_gone() -> None:
    drift = Drift()
    far, near = Counted(1030, 1000, 500, 500), Counted(1000, 1000, 500, 500)
    told = [drift.note("gpt-4o", far, at) for at in range(30)]
    assert [ratio is not None for ratio in told] == [False] * 19 + [True] + [False] * 10
    ratio = drift.ratios(30)["gpt-4o"]
    assert (ratio.tokens_in, ratio.tokens_out, ratio.answers, ratio.alarm) == (0.03, 0.0, 30, True)
    for at in range(30, 60):
        assert drift.note("gpt-4o", near, at) is None
    assert not drift.ratios(60)["gpt-4o"].alarm
    assert any(drift.note("gpt-4o", far, at) for at in range(60, 200))


def test_estimates_short_answers_and_few_of_them_are_no_alarm() -> None:
    drift = Drift()
    for at in range(40):
        assert drift.note("claude-sonnet-5", Counted(80, 100, 80, 100), at) is None
        assert drift.note("gpt-4o", Counted(13, 10, 1, 3), at) is None  # framing, whatever share it is
    for at in range(19):
        assert drift.note("gpt-4.1", Counted(2000, 1000), at) is None
    ratios = drift.ratios(40)
    assert not any(ratio.alarm for ratio in ratios.values())
    assert ratios["claude-sonnet-5"].tokens_out == -0.2
    assert ratios["gpt-4.1"].tokens_out is None


def test_what_is_older_than_the_window_is_forgotten_and_makes_room() -> None:
    drift = Drift()
    for n in range(60):
        drift.note(f"m{n}", Counted(1, 1), 0.0)
    assert len(drift.ratios(0.0)) == 50
    assert drift.note("x" * 101, Counted(1, 1), 0.0) is None
    assert drift.ratios(3599.0)
    assert not drift.ratios(4000.0)
    drift.note("m59", Counted(1, 1), 4000.0)
    assert set(drift.ratios(4000.0)) == {"m59"}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 10_000)), max_size=60))
def test_sums_are_of_the_window_whatever_the_clock_does(noted: list[tuple[int, int, float]]) -> None:
    drift = Drift(window_s=1e9)
    for ours, theirs, at in noted:
        drift.note("m", Counted(ours, theirs), at)
    ratios = drift.ratios(10_000)
    assert (ratios["m"].answers if noted else 0) == len(noted)
    whole = sum(theirs for _, theirs, _ in noted)
    if whole:
        assert ratios["m"].tokens_in == (sum(ours for ours, _, _ in noted) - whole) / whole
