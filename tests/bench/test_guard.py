"""What CI's check of the hot path calls too much."""

from __future__ import annotations

import json

from bench.guard import MOST_MORE, PARTS, RECORDED, over, rewritten


def test_a_fifth_more_is_allowed_and_no_more() -> None:
    recorded = {"hit": 1.0, "miss": 2.0}
    assert over(recorded, {"hit": 1.2, "miss": 2.4}) == []
    assert over(recorded, {"hit": 1.21, "miss": 0.5}) == ["hit"]
    assert over(recorded, {"hit": 0.1, "import": 0.1}) == ["import"]


def test_what_fails_is_more_than_a_fifth_above_what_stands_in_the_file() -> None:
    recorded = json.loads(RECORDED.read_text())

    assert MOST_MORE == 0.20
    for name, was in recorded.items():
        assert over(recorded, {name: was * 1.2}) == []
        assert over(recorded, {name: was * 1.2001}) == [name]


def test_one_part_is_written_without_the_others() -> None:
    assert rewritten({"hit": 1.0, "miss": 2.0, "import": 3.0}, {"miss": 2.256}) == {
        "hit": 1.0,
        "miss": 2.26,
        "import": 3.0,
    }


def test_all_parts_are_recorded() -> None:
    assert json.loads(RECORDED.read_text()).keys() == PARTS.keys()
