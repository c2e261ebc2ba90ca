"""What a roll-out's guard is told of rows."""

from __future__ import annotations

import json

import pytest

from farthing.proxy.lanes import CANDIDATE, EXPERIMENT
from farthing.proxy.rollout_rows import outcomes_of
from tests.fakes.rows import row


def test_what_farthing_refuses_says_nothing_of_a_policy_and_what_an_upstream_refuses_does() -> None:
    of = {"experiment": EXPERIMENT, "arm": CANDIDATE, "outcome": "completed"}
    own = row(id="own", status=402, attempts=0, **of)
    theirs = row(id="theirs", status=429, attempts=1, **of)
    away = row(id="away", status=503, attempts=0, **of)
    assert [(id, told.failed) for id, told in outcomes_of([own, theirs, away], "request")] == [
        ("theirs", True),
        ("away", True),
    ]


@pytest.mark.parametrize(
    ("status", "code", "counts"),
    [
        (504, "not_cached", False),
        (503, "budget_unavailable", False),
        (400, "invalid_request", False),
        (400, "unsupported_parameter", True),
        (400, "unsupported_body", True),
        (503, "", True),  # no replica is up
        (500, "", True),
    ],
)
def test_the_code_says_whose_a_refusal_is(status: int, code: str, counts: bool) -> None:
    told = json.dumps([["route", "refused", "x"], *([["server", "refused", code]] if code else [])])
    refused = row(status=status, attempts=0, experiment=EXPERIMENT, arm=CANDIDATE, outcome="failed", decisions=told)
    assert [told.failed for _, told in outcomes_of([refused], "request")] == ([True] if counts else [])
