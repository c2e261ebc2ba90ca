"""What a reading says of how good answers were: no more than was seen, whatever the unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farthing.policies.assign import Unit
from farthing.proxy.config_experiments import HOLDOUT, MetricSection, bounds_of, kind_of, up_of
from farthing.proxy.experiment_book import Record, RecordArm
from farthing.proxy.experiment_data import Data, Wanted
from farthing.proxy.experiment_page import page
from farthing.proxy.experiment_reading import Plan, reading
from farthing.proxy.experiment_text import headline
from farthing.proxy.holdout import holdout_plan
from farthing.proxy.outcomes import Change
from tests.fakes.rows import NOW_S, row

ARMS = ("on", "no-route")


def read(folder: Path, unit: Unit, words: list[float], plan: Plan | None = None) -> dict[str, Any]:
    """Of requests by as many users, of which each tenth is in the arm without routes, and the others have a shadow."""
    plan = plan or holdout_plan((0.9, 0.1))
    wanted = tuple(Wanted(one.metric, kind_of(one), bounds_of(one)) for one in plan.metrics)
    data = Data(HOLDOUT, ARMS, unit, NOW_S - 3600, wanted, 1000, folder / "ledger.db")
    for number, word in enumerate(words):
        arm = ARMS[number % 10 == 9]
        name = f"far-{number}"
        data.on_rows([row(id=name, ts=NOW_S - 100, experiment=HOLDOUT, arm=arm, user=f"u{number}", policy="p-1")])
        if arm == "on":
            data.on_changes([Change(name, "shadow", (), (word,))])
    return reading(plan, data, NOW_S, 1.0)


@pytest.mark.parametrize(
    ("unit", "said"),
    [("request", "100.0% of 36 shadowed answers"), ("user", "shadowed answers (36 users, each as one)")],
)
def test_answers_that_all_agreed_may_have_agreed_by_chance(tmp_path: Path, unit: Unit, said: str) -> None:
    found = read(tmp_path, unit, [1.0] * 40)
    (quality,) = found["quality"]
    assert (quality["arm"], quality["unit"], quality["units"], quality["share"]) == ("on", unit, 36, 1.0)
    assert 0.6 < quality["low"] < 0.95 and quality["high"] == 1.0
    record = Record.begin(HOLDOUT, "d", {}, [RecordArm(name, "p", 0.5) for name in ARMS], NOW_S)
    record.reading = found
    assert said in headline(record) and f"({quality['low']:.1%} to 100.0%)" in headline(record)
    assert page(record).decode().count("shadowed answers") == 2  # the headline, and with what each arm did


def test_what_differs_is_in_the_share_and_its_interval(tmp_path: Path) -> None:
    (quality,) = read(tmp_path, "user", [float(number % 4 > 0) for number in range(400)])["quality"]
    assert quality["share"] == pytest.approx(260 / 360)
    assert 0.6 < quality["low"] < quality["share"] < quality["high"] < 0.9


def test_a_sum_for_each_request_is_no_share(tmp_path: Path) -> None:
    plan = Plan((MetricSection(metric="shadow", kind="ratio"),), {}, (0.9, 0.1), 0.05, 0.0, (7.0, 28.0))
    assert read(tmp_path, "user", [1.0] * 40, plan)["quality"] == []


@pytest.mark.parametrize("metric", ["reask", "regenerate", "abandoned"])
def test_what_users_do_when_answers_are_bad_counts_by_the_request_and_less_is_better(metric: str) -> None:
    one = MetricSection(metric=metric)
    assert (kind_of(one), up_of(one)) == ("ratio", False)
    declared = MetricSection(metric=metric, kind="mean", direction="up")
    assert (kind_of(declared), up_of(declared)) == ("mean", True)
