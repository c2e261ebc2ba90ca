"""A row gives back what was billed, to the token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.usage import Usage, UsageSource
from farthing.proxy.usage_row import billed_by
from tests.fakes.rows import row
from tests.proxy.test_attribute import USAGES
from tests.proxy.test_recompute import booked


@given(st.none() | USAGES, st.lists(USAGES, max_size=3))
def test_what_was_used_can_be_read_from_the_row(usage: Usage | None, earlier: list[Usage]) -> None:
    billed = billed_by(booked(usage, earlier))
    counted = [*earlier, *([usage] if usage is not None else [])]
    if usage is not None:
        # Whether a total contradicted its parts stands among the row's decisions, not in its columns.
        told = any(one.source is UsageSource.COUNTED for one in counted)
        usage = usage._replace(source=UsageSource.COUNTED if told else UsageSource.UPSTREAM)
    assert billed.answer == usage
    assert billed.earlier == tuple(earlier)
    assert billed.status == 200


def test_an_ordinary_row_says_nothing_more() -> None:
    assert "usage" not in booked(Usage(1, 2, 3, 4, 5), []).attempts_detail
    flex = booked(Usage(1, cache_write_1h=7, tier="flex"), []).attempts_detail
    assert flex.endswith('"backoff_ms":0.500,"usage":{"cache_write_1h":7,"tier":"flex"}}]')


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens_in_cached": 5},
        {"tokens_out": 1, "tokens_reasoning": 2},
        {"attempts_detail": "?"},
        {"attempts_detail": '[{"status":200,"usage":{"audio_in":9}}]'},
        {"attempts_detail": '[{"status":200,"usage":7}]'},
        {"attempts_detail": '[{"status":200,"usage":{"audio_in":"x"}}]'},
        {"attempts_detail": '[{"status":200,"earlier":[{"source":"?"}]}]'},
    ],
)
def test_a_row_that_contradicts_itself_is_a_fault(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="row's"):
        billed_by(row(**changes))
