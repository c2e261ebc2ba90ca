"""When a gate has to run by itself."""

from __future__ import annotations

import pytest

from farthing.policies.gating import Standing, due

SEEN = {"policy": "p-1", "prices": "x"}
LAST = Standing(1000.0, SEEN)


@pytest.mark.parametrize(
    ("last", "now_s", "seen", "every_s", "why"),
    [
        (None, 0.0, SEEN, 0.0, "it never ran"),
        (LAST, 2000.0, SEEN, 0.0, ""),
        (LAST, 2000.0, SEEN, 1000.0, "its time has come"),
        (LAST, 1999.0, SEEN, 1000.0, ""),
        (LAST, 1500.0, {"policy": "p-2", "prices": "y"}, 0.0, "changed: policy, prices"),
        (LAST, 1410.0, {"policy": "p-2", "prices": "x"}, 0.0, ""),  # just now: more may come
        (LAST, 1500.0, SEEN | {"models": "m"}, 0.0, ""),  # what wasn't known before hasn't changed
        (LAST, 1500.0, {}, 0.0, ""),  # nobody asked for changes
    ],
)
def test_why_it_is_due(last: Standing | None, now_s: float, seen: dict[str, str], every_s: float, why: str) -> None:
    assert due(last, now_s, seen, every_s, 1400.0) == why
