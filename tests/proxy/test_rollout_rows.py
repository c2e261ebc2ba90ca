"""What a roll-out's guard is told of rows."""

from __future__ import annotations

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
