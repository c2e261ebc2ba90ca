"""Points of the trade-off view: means, medians and shares with their intervals, from rows, outcomes and eval runs."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from farthing.policies.compare import ArmResult, CaseResult
from farthing.policies.outcome import Outcome
from farthing.policies.pareto import Measure
from farthing.proxy import tradeoff
from farthing.proxy.clock import FakeClock
from farthing.proxy.dashboard import Dashboard
from farthing.proxy.errors import ConfigFault
from farthing.proxy.eval_run import RunFile, save_run
from farthing.proxy.outcomes import Outcomes
from farthing.proxy.row import Row
from farthing.proxy.tradeoff import RUNS, Tradeoff, TradePoint, plain_tradeoff, read_runs, read_tradeoff
from tests.fakes.rows import DOLLAR, NOW_S, ledger, row


def told(state_dir: Path, rows: list[Row], by: str = "model_served") -> Tradeoff:
    with closing(ledger(state_dir / "ledger.db", rows)) as conn:
        return read_tradeoff(conn, state_dir, NOW_S - 3600, NOW_S, by)


def by_name(found: Tradeoff) -> dict[str, TradePoint]:
    return {point.name: point for point in found.points}


def some(model: str, count: int, cents: float, latency_ms: float, **more: object) -> list[Row]:
    """Costs and latencies that go up and down by a tenth."""
    return [
        row(id=f"{model}{i}", model_served=model, cost_usd=int(cents * (0.9 + 0.2 * (i % 2)) * DOLLAR / 100),
            latency_ms=latency_ms * (0.9 + 0.2 * (i % 2)), **more)
        for i in range(count)
    ]  # fmt: skip


def rated(state_dir: Path, good: dict[str, bool], metric: str = "rating", source: str = "client") -> None:
    outcomes = Outcomes(state_dir / "outcomes.db")
    outcomes.put([Outcome(id, metric, float(ok), NOW_S, NOW_S, source=source) for id, ok in good.items()])
    outcomes.close()


def test_a_cheap_fast_good_model_dominates_and_is_dominated_by_nobody(tmp_path: Path) -> None:
    rated(tmp_path, {f"big{i}": i % 10 > 0 for i in range(100)} | {f"old{i}": i % 2 > 0 for i in range(100)})
    rated(tmp_path, {f"small{i}": i % 5 > 0 for i in range(100)}, "audit", "audit")
    rows = [*some("big", 100, 5, 900), *some("old", 100, 6, 2_000), *some("small", 100, 1, 300), *some("new", 9, 1, 1)]

    found = by_name(told(tmp_path, rows))

    assert {name: (one.verdict, one.beaten_by) for name, one in found.items()} == {
        "big": ("front", ""),
        "small": ("front", ""),
        "old": ("surely dominated", "big"),
        "new": ("unknown", ""),
    }
    big = found["big"]
    assert (big.requests, big.judged) == (100, 100)
    assert big.cost_usd is not None and big.cost_usd.value == pytest.approx(0.05)
    # A standard deviation of a tenth, over a hundred: 1.96 of 0.0005 (and n - 1 in it).
    assert big.cost_usd.high - big.cost_usd.value == pytest.approx(1.96 * 0.005 / 99**0.5, rel=1e-6)
    assert big.quality is not None and big.quality.value == 0.9 and 0.82 < big.quality.low < 0.9 < big.quality.high
    assert found["new"].quality is None and found["new"].cost_usd is not None
    assert found["new"].cost_usd.low == float("-inf")


def test_unpriced_failed_and_own_calls_are_left_out(tmp_path: Path) -> None:
    rows = [
        row(id="a", cost_usd=None, latency_ms=5.0),
        row(id="b", outcome="failed", status=502, latency_ms=9.0),
        row(id="c", outcome="abandoned", latency_ms=9.0),
        row(id="d", endpoint="audit", latency_ms=9.0),
        row(id="e", ts=NOW_S - 7200),
    ]
    (point,) = told(tmp_path, rows).points
    assert (point.requests, point.cost_usd, point.verdict) == (1, None, "front")
    assert point.latency_ms == Measure(5.0) and point.latency_p95_ms == 5.0


def test_a_median_has_the_interval_of_its_order_statistics(tmp_path: Path) -> None:
    rng = random.Random(5)
    held = 0
    for _ in range(400):
        found = tradeoff._median([rng.lognormvariate(0, 1) for _ in range(40)])
        assert found is not None
        held += found.low <= 1.0 <= found.high
    assert held / 400 >= 0.93


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("cache", {"hit-exact", "miss"}),
        ("policy", {"p-1", "(none)"}),
        ("variant", {"cheap", "(not routed)"}),
        ("model_served", {"gpt-4o-mini"}),
    ],
)
def test_ways_may_be_told_apart_by_several_things(tmp_path: Path, by: str, names: set[str]) -> None:
    routed = orjson.dumps([["exact", "miss", ""], ["route", "routed", "help: cheap, the cheapest"]]).decode()
    rows = [row(id="a", cache="hit-exact", policy="p-1"), row(id="b", decisions=routed), row(id="c", decisions="x")]

    assert {point.name for point in told(tmp_path, rows, by).points} == names


def test_only_the_latest_rows_are_looked_at_and_that_is_said(tmp_path: Path) -> None:
    with closing(ledger(tmp_path / "ledger.db", [row(id=str(i), ts=NOW_S - 10 - i) for i in range(5)])) as conn:
        found = read_tradeoff(conn, tmp_path, NOW_S - 3600, NOW_S, "cache", 3)

    assert (found.rows, found.reaches_s) == (3, NOW_S - 12)


def test_nothing_is_told_of_nothing(tmp_path: Path) -> None:
    assert plain_tradeoff(told(tmp_path, [])) == {"by": "model_served", "rows": 0, "reaches_s": None, "points": []}
    with pytest.raises(ValueError, match="known: variant, model_served, policy, cache"):
        told(tmp_path, [], "nonsense")


def run_file(path: Path, scores: tuple[float, float], cents: tuple[float, float]) -> None:
    def arm(score: float, cost: float, latency_ms: float) -> ArmResult:
        return ArmResult(200, score, int(cost * DOLLAR / 100), latency_ms)

    results = tuple(
        CaseResult(str(i), {}, 1.0, arm(scores[0], cents[0], 400 + i), arm(scores[1], cents[1], 40 + i))
        for i in range(40)
    )
    trap = results[0]._replace(id="trap", source="generated:number", candidate=arm(0.0, 9_000.0, 40))  # is no traffic
    save_run(path, RunFile(NOW_S, "d", "exact", "now", "small", 0, (*results, trap)))


async def test_eval_runs_are_points_of_their_own(tmp_path: Path) -> None:
    (tmp_path / RUNS).mkdir()
    run_file(tmp_path / RUNS / "one.json", (1.0, 0.5), (2.0, 0.2))
    (tmp_path / RUNS / "other.json").write_text("{}")
    ledger(tmp_path / "ledger.db", [row(id="a")]).close()
    dashboard = Dashboard(tmp_path / "ledger.db", FakeClock(NOW_S), dict)

    reply = await dashboard.handle("GET", "/farthing/api/tradeoff", {"since": "1h"})

    assert reply is not None and reply[0] == 200
    points = {point["name"]: point for point in orjson.loads(reply[2])["points"]}
    assert set(points) == {"gpt-4o-mini", "baseline: now", "candidate: small"}
    small = points["candidate: small"]
    assert (small["source"], small["verdict"], small["requests"]) == ("one.json", "front", 40)
    assert small["quality"]["value"] == 0.5 and small["cost_usd"]["value"] == pytest.approx(0.002)
    assert points["gpt-4o-mini"]["cost_usd"]["low"] is None
    with pytest.raises(ConfigFault, match=r"other\.json is no file"):
        read_runs([tmp_path / RUNS / "other.json"])
    bad = await dashboard.handle("GET", "/farthing/api/tradeoff", {"by": "x"})
    assert bad is not None and bad[0] == 400
