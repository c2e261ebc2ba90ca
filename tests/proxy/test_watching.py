"""The watch's queues: bounded, paid for, and never taken for good by what doesn't come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farthing.proxy.clock import FakeClock
from farthing.proxy.config_watch import Watch
from farthing.proxy.exchange import Exchange
from farthing.proxy.watching import Watching, length_class
from tests.fakes.rows import row
from tests.proxy.test_account import exchange

CLOCK = FakeClock()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watching]:
    made = Watching(tmp_path / "watch.json", Watch(per_s=1000, reference_requests=50, reference_days=0), CLOCK, "m")
    yield made
    made.close()


def asked(number: int) -> Exchange:
    ex = exchange()
    ex.id, ex.payload = f"far-{number}", {"messages": [{"role": "user", "content": "How are you?"}]}
    return ex


def shown(watch: Watching) -> dict[str, dict[str, Any]]:
    assert watch.flush()
    return {one["series"]: one for one in watch.told()["series"] if one["slice"] == "all"}


def test_requests_whose_rows_never_come_are_let_go(watch: Watching) -> None:
    taken = 0
    while watch.wants(asked(taken)):
        watch.take(asked(taken))
        taken += 1
    assert taken == 64
    CLOCK.advance(11)
    assert watch.flush() and watch.wants(asked(0))


def test_rows_beyond_what_is_paid_for_are_left_out_evenly(watch: Watching) -> None:
    watch.on_rows([row(id=str(n), cache="hit-exact" if n % 2 else "miss") for n in range(4_000)])
    assert shown(watch)["hit"]["reference"] + shown(watch)["hit"]["seen"] == 1_000


def test_whatever_a_row_holds_the_thread_lives(watch: Watching) -> None:
    watch.on_rows([row(tags="no json"), row(endpoint="audit"), row(endpoint="other")])
    watch.judged(0.7)
    watch.topic(np.ones(3, dtype=np.float32))
    watch.rated("far-unknown", wrong=True)
    watch.compared(1.7, wrong=True)
    found = shown(watch)
    assert found["judged"]["reference"] == found["wrong"]["reference"] == found["topic_distance"]["reference"] == 1
    assert watch.told()["calibration"][0]["bins"][0]["confidence"] == 1.0


def test_other_rules_go_on_with_what_was_learnt(watch: Watching) -> None:
    watch.on_rows([row(id=str(n)) for n in range(100)])
    before = shown(watch)["hit"]
    watch.use(Watch(tolerance=2.0, reference_requests=50, reference_days=0), "m")
    assert shown(watch)["hit"] == before
    assert watch.told()["tolerance"] == 2.0


def test_how_features_hang_together_is_watched(watch: Watching) -> None:
    for number in range(40):
        ex = asked(number)
        if number % 2:
            ex.payload = {**(ex.payload or {}), "tools": [{"type": "function", "function": {"name": "f"}}]}
        watch.take(ex)
        cache = "miss" if number % 2 else "hit-semantic"
        watch.on_rows([row(id=ex.id, cache=cache, tokens_in_original=100 + 50 * (number % 2))])
    found = shown(watch)
    assert (found["length_with_tools"]["reference"], found["length_with_tools"]["gamma"]["was"]) == (20, 1.0)
    assert found["tools_with_hit"]["gamma"]["was"] == -1.0
    assert "tools_with_language" not in found  # they all speak one language


@pytest.mark.parametrize(("tokens", "name"), [(0, "short"), (250, "medium"), (15_999, "long"), (16_000, "huge")])
def test_length_classes(tokens: int, name: str) -> None:
    assert length_class(tokens) == name
