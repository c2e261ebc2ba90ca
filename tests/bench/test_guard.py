"""What CI's check of the hot path calls too much."""

from __future__ import annotations

import json

from bench.guard import PARTS, RECORDED, over


def test_a_fifth_more_is_allowed_and_no_more() -> None:
    recorded = {"hit": 1.0, "miss": 2.0}
    assert over(recorded, {"hit": 1.2, "miss": 2.4}) == []
    assert over(recorded, {"hit": 1.21, "miss": 0.5}) == ["hit"]
    assert over(recorded, {"hit": 0.1, "import": 0.1}) == ["import"]


def test_all_parts_are_recorded() -> None:
    assert json.loads(RECORDED.read_text()).keys() == PARTS.keys()
