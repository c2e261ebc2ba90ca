"""The replay bench: known hits on a toy stream, true wrong rates, walls, intervals, made traffic."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.hit_figures import area, ratio
from bench.hit_methods import METHODS, run
from bench.hit_pool import Pool, verifier
from bench.hit_replay import MISS, RIGHT, WRONG, policy_on, static_on
from bench.hit_traffic import Asked, Traffic, asked, made, orders, varied
from farthing.policies.reuse import Bound
from farthing.policies.static import Static

SCORER = verifier()


class Letters:
    """Vectors from letter counts, in the place of the embedder's."""

    def of(self, text: str) -> NDArray[np.float32] | None:
        counts = np.array([text.lower().count(letter) + 0.1 for letter in "abcdefghijklmnopqrstuvwxyz"], np.float32)
        return counts / np.linalg.norm(counts)


def line(text: str, answer: str, *, system: str = "", before: str = "", tenant: str = "one") -> Asked:
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": before}, {"role": "assistant", "content": "Yes."}] if before else []
    turns.append({"role": "user", "content": text})
    return asked({"id": text, "messages": turns, "class": answer, "slice": "toy", "tenant": tenant})


def pool_of(*rows: Asked, **more: Any) -> Pool:
    return Pool(Traffic("toy", rows, **more), Letters(), SCORER)  # type: ignore[arg-type]


TOY = (
    line("how do I close my account", "close"),
    line("how do I close my accounts", "close"),
    line("how do I open my account", "open"),
    line("zebras quickly jump over fences", "zebra"),
    line("what is the weather today", "fresh"),
    line("what is the weather like today", "fresh"),
)


def everything(pool: Pool, order: list[int]) -> NDArray[np.uint8]:
    policy = Static(0.0, on="score", bound=Bound(), mode="serve", audit_share=0.0)
    return policy_on(pool, order, policy, 1).what


def test_a_toy_stream_has_the_hits_that_one_would_count_by_hand() -> None:
    out = static_on(pool_of(*TOY), list(range(6)), 0.8)

    assert out.what.tolist() == [MISS, RIGHT, WRONG, MISS, MISS, MISS]
    assert (out.first, out.served_by) == (1, [(2, 0)])


def test_what_is_never_matched_is_neither_a_candidate_nor_an_entry() -> None:
    pool = pool_of(*TOY)

    assert [pool.where[number] is None for number in range(6)] == [False] * 4 + [True] * 2


def test_a_policy_that_serves_everything_is_wrong_as_often_as_the_classes_differ() -> None:
    chance = Random(1)
    rows = [line(f"how do I {'qwz'[n % 3] * 5} thing number {n}", f"class {chance.randrange(4)}") for n in range(200)]
    pool = pool_of(*rows)
    what = everything(pool, list(range(200)))
    hits = what != MISS
    # The first is the only entry, since everything after it is served.
    wrong = [row.answer != rows[0].answer for row in rows[1:]]

    assert hits.sum() == 199
    assert (what == WRONG).sum() == sum(wrong)


@pytest.mark.parametrize("wall", [{"tenant": "two"}, {"system": "Be brief."}, {"before": "I have a cat."}])
def test_no_wall_is_crossed_even_by_a_policy_that_serves_everything(wall: dict[str, str]) -> None:
    here, there = line("how do I close it", "a"), line("how do I close it", "b", **wall)

    assert here.walls != there.walls
    assert here.scope != there.scope
    assert everything(pool_of(here, there), [0, 1]).tolist() == [MISS, MISS]


def test_an_answer_that_has_changed_since_is_wrong() -> None:
    rows = [line(f"how do I close account {word}", "close") for word in ("aaaa", "aaab", "aaba", "abaa")]
    pool = pool_of(*rows, drifting=frozenset({"close"}))

    assert static_on(pool, [0, 1, 2, 3], 0.5).what.tolist() == [MISS, RIGHT, WRONG, WRONG]


def test_only_what_comes_after_the_calibration_is_counted() -> None:
    rows = [line(f"how do I close account {'ab'[n % 2]}{n}", "close") for n in range(20)]
    pool = pool_of(*rows, order="calibrated", first=15)
    method = next(one for one in METHODS if one.name == "cosine ≥ 0.80")
    ((_, sums),) = run(pool, 3, [method])

    assert sums.requests == [5, 5, 5]
    assert sums.hits == [5, 5, 5]
    assert all(set(order[:15]) == set(range(15)) for order in orders(pool.traffic, 3))


def test_orders_follow_from_their_number() -> None:
    traffic = Traffic("toy", tuple(line(f"text number {n} here", f"c{n % 5}") for n in range(50)), "bursts", length=40)
    first = [*orders(traffic, 4)]

    assert first == [*orders(traffic, 4)]
    assert all(len(set(order)) == 40 for order in first)
    assert first[0] != first[1]


def test_made_traffic_never_repeats_a_text_and_keeps_the_classes() -> None:
    bases = [line(f"how do I change the {word} of my account?", word) for word in ("name", "address", "limit")]
    traffic = made({"intent": bases, "qa": bases, "adv": bases}, 300, seed=1)

    assert len({(one.scope, one.text) for one in traffic}) == 300
    assert all(one.answer in one.text.lower() or "adress" in one.text or len(one.answer) > 6 for one in traffic)
    assert len({one.scope for one in traffic}) == 3


def test_a_slip_or_a_greeting_touches_no_number_and_no_name() -> None:
    chance = Random(2)

    assert all(
        "NASA 2019" in one or "nasa 2019" in one for one in (varied("Budget of NASA 2019?", chance) for _ in range(200))
    )


def test_a_rate_is_clustered_by_shuffle() -> None:
    rate, low, high = ratio([1, 3, 2, 2], [100, 100, 100, 100])

    assert rate == 0.02
    assert 0.0 < low < rate < high < 0.04
    assert ratio([2, 2], [100, 100]) == (0.02, 0.02, 0.02)
    assert ratio([0, 0], [50, 50])[2] == pytest.approx(1 - 0.025 ** (1 / 50))
    assert np.isnan(ratio([0, 0], [0, 0])[0])


def test_area_is_that_under_the_best_so_far() -> None:
    assert area([(0.0, 0.5)]) == 0.5
    assert area([(0.025, 0.4), (0.03, 0.2)]) == pytest.approx(0.2)
    assert area([(0.06, 1.0)]) == 0.0


def test_without_streams_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.hit_rate import main

    assert main(["--data", str(tmp_path), "--no-docs"]) == 2
    assert "--data" in capsys.readouterr().err


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    from bench.hit_plot import draw

    pool = pool_of(*TOY)
    found = {method.name: (method, sums) for method, sums in run(pool, 2)}
    draw({"toy": found, "again": found}, {"toy": 0.3, "again": 0.3}, tmp_path / "out.png")

    assert (tmp_path / "out.png").stat().st_size > 5_000
    assert json.dumps(found["cosine ≥ 0.80"][1].hits)
