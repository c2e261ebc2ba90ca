"""What it was worth: money, ratings, business metrics and service levels by month, in every form of the report."""

from __future__ import annotations

import csv
import io
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from farthing.policies.levels import Target
from farthing.policies.outcome import Outcome
from farthing.proxy import report_worth
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import ConfigFault
from farthing.proxy.levels_tally import Promise, Tallies
from farthing.proxy.outcomes import Outcomes
from farthing.proxy.report import render, report_on
from farthing.proxy.report_values import Report
from farthing.proxy.report_worth import months_in
from tests.fakes.rows import DOLLAR, ledger, row

OCTOBER_S = datetime(2026, 10, 20, 12, tzinfo=UTC).timestamp()
NOVEMBER_S = datetime(2026, 11, 10, 12, tzinfo=UTC).timestamp()
NOW_S = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()


def filled(state_dir: Path) -> None:
    """Each month 40 requests at 10 cents under one policy, 40 at 5 under another; the second answers worse."""
    rows, words = [], []
    for month, at_s in (("oct", OCTOBER_S), ("nov", NOVEMBER_S)):
        for policy, cents, good_of_10 in (("p-one", 10, 9), ("p-two", 5, 6)):
            for i in range(40):
                id = f"{month}-{policy}-{i}"
                cost = cents * DOLLAR // 100
                rows.append(
                    row(id=id, ts=at_s + i, policy=policy, cost_usd=cost, baseline_usd=2 * cost,
                        saved_route_usd=cost, tags='{"team":"search"}', latency_ms=100.0 if i else 900.0,
                        model_served="big" if cents == 10 else "small")
                )  # fmt: skip
                words.append(Outcome(id, "rating", float(i % 10 < good_of_10), at_s + 60, at_s + 60))
                if i % 4 == 0:
                    words.append(Outcome(id, "conversion", float(i % 8 == 0), at_s + 90, at_s + 90))
                if i == 0:
                    words.append(Outcome(id, "revenue_usd", 12.5, NOW_S, NOW_S))
    words.append(Outcome("nobody", "rating", 0.0, NOW_S, NOW_S))
    ledger(state_dir / "ledger.db", rows).close()
    outcomes = Outcomes(state_dir / "outcomes.db")
    outcomes.put(words)
    outcomes.close()


def promised(state_dir: Path) -> None:
    tallies = Tallies(state_dir)
    promises = [
        Promise("answers", {}, 90, Target("latency", 0.9, 500.0)),
        Promise("answers", {}, 90, Target("cost", 0.0, 0.08)),
        Promise("answers", {}, 90, Target("wrong", 0.7)),
    ]
    while tallies.count(promises, NOW_S):
        pass
    tallies.close()


def report(state_dir: Path, *by: str, since: str = "2026-10-01") -> Report:
    return report_on(state_dir / "ledger.db", since, by, FakeClock(NOW_S))


def test_money_ratings_and_business_metrics_stand_side_by_side(tmp_path: Path) -> None:
    filled(tmp_path)
    worth = report(tmp_path, "policy").worth
    assert worth is not None and not worth.cut
    lines = {(line.month.name, *line.key): line for line in worth.lines}
    assert set(lines) == {(month, policy) for month in ("2026-10", "2026-11") for policy in ("p-one", "p-two")}
    one, two = lines["2026-11", "p-one"], lines["2026-11", "p-two"]
    assert one.good is not None and (one.good.value, one.metrics["rating"].words) == (0.9, 40)
    assert one.cost_per_good == round(DOLLAR / 10 / 0.9)
    assert two.cost_per_good == round(DOLLAR / 20 / 0.6)
    assert (one.metrics["conversion"].words, one.metrics["conversion"].total) == (10, 5)
    assert one.cost_per("conversion") == 4 * DOLLAR // 5
    assert one.metrics["revenue_usd"].total == 12.5  # it came this month, and belongs to its request's
    assert lines["2026-10", "p-one"].metrics["revenue_usd"].total == 12.5
    assert worth.metrics == ("rating", "conversion", "revenue_usd")


def test_few_ratings_make_no_cost_of_a_good_answer(tmp_path: Path) -> None:
    ledger(tmp_path / "ledger.db", [row(id="a", ts=NOVEMBER_S, cost_usd=1, baseline_usd=1)]).close()
    outcomes = Outcomes(tmp_path / "outcomes.db")
    outcomes.put([Outcome("a", "rating", 1.0, NOW_S, NOW_S)])
    outcomes.close()
    worth = report(tmp_path).worth
    assert worth is not None and worth.lines[0].good is not None and worth.lines[0].cost_per_good is None


def test_json_csv_table_and_page_tell_the_same(tmp_path: Path) -> None:
    filled(tmp_path)
    promised(tmp_path)
    found = report(tmp_path, "policy")
    told = orjson.loads(render(found, "json"))["worth"]
    lines = list(csv.DictReader(io.StringIO(render(found, "csv", monthly=True))))
    assert [(line["month"], line["policy"]) for line in lines] == [
        (line["month"], line["key"]["policy"]) for line in told["lines"]
    ]
    for of_csv, of_json in zip(lines, told["lines"], strict=True):
        assert of_csv["spent_usd"] == of_json["spent_usd"] == {"p-one": "4", "p-two": "2"}[of_csv["policy"]]
        assert of_csv["cost_per_good_usd"] == of_json["cost_per_good_usd"]
        assert float(of_csv["good_share"]) == of_json["good_share"]
        assert float(of_csv["conversion_mean"]) == of_json["metrics"]["conversion"]["mean"] == 0.5
        assert of_csv["conversion_usd_per_1"] == of_json["metrics"]["conversion"]["usd_per_1"]
    levels = {(level["month"], level["kind"]): level for level in told["levels"]}
    assert levels["2026-11", "latency"]["bad"] == 2 and levels["2026-11", "latency"]["verdict"] == "kept"
    assert levels["2026-10", "cost"]["mean_usd"] == 0.075 and levels["2026-10", "cost"]["verdict"] == "kept"
    assert levels["2026-10", "wrong"]["attained"] == 0.75
    table, page = render(found, "table", width=140), render(found, "html")
    for words in ("What it was worth, by month", "2026-10 · p-one", "90.0%", "$0.1111", "conversion", "Service levels",
                  "2026-11 (part) · answers", "$0.0800 a request", "latency: 90% in 500 ms", "97.5%"):  # fmt: skip
        assert words in table, words
        assert words in page, words
    narrow = render(found, "table", width=80)
    for words in ("90.0%", "$0.1111", "$0.8000", "97.5%", "$0.0500", "on the front", "60.0%", "$0.0800 a request"):
        assert words in narrow, words
    assert "…" not in narrow and "0.7" not in narrow.partition("What it was")[2].partition("Service")[0]
    assert "<script" not in page


def test_the_trade_off_is_drawn_and_told(tmp_path: Path) -> None:
    filled(tmp_path)
    found = report(tmp_path)
    page = render(found, "html")
    assert page.count('<div class="chart trade">') == 1 and page.count('<polyline class="edge"') == 2
    assert "$0.1000 a request, 100 ms, 90.0% good; on the front" in page
    # Below it the same ways by their latency, for wide screens and narrow ones.
    assert page.count('aria-label="Cost against quality') == page.count('aria-label="Cost against latency') == 2
    assert "Cost, latency and quality of each way" in render(found, "table", width=160)
    points = {point["name"]: point for point in orjson.loads(render(found, "json"))["tradeoff"]["points"]}
    assert points["small"]["quality"]["value"] == 0.6 and points["big"]["verdict"] == "front"
    with pytest.raises(ConfigFault, match="known: variant"):
        report_on(tmp_path / "ledger.db", "30d", (), FakeClock(NOW_S), "nothing")


def test_hostile_names_are_disarmed_on_the_page_and_in_csv(tmp_path: Path) -> None:
    evil = "<img src=x>\x1b[31m"
    rows = [
        row(id=str(i), ts=NOVEMBER_S, model_served=evil if i % 2 else "=cmd", cost_usd=i, baseline_usd=i)
        for i in range(9)
    ]
    ledger(tmp_path / "ledger.db", rows).close()
    outcomes = Outcomes(tmp_path / "outcomes.db")
    outcomes.put([Outcome("1", "rating", 1.0, NOW_S, NOW_S), Outcome("2", "rating", 1.0, NOW_S, NOW_S)])
    outcomes.close()
    found = report(tmp_path, "model_served")
    assert "<img" not in render(found, "html") and "\x1b" not in render(found, "table", width=200)
    assert "'=cmd" in render(found, "csv", monthly=True)


def test_nobody_said_anything(tmp_path: Path) -> None:
    ledger(tmp_path / "ledger.db", [row(id="a", ts=NOVEMBER_S)]).close()
    found = report(tmp_path)
    assert found.worth is not None and found.worth.metrics == () and found.worth.levels == ()
    assert "worth" not in render(found, "table", width=120)
    assert render(found, "csv", monthly=True).count("\n") == 2


def test_many_words_are_cut_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_worth, "MOST_WORDS", 5)
    filled(tmp_path)
    worth = report(tmp_path).worth
    assert worth is not None and worth.cut
    assert sum(said.words for line in worth.lines for said in line.metrics.values()) <= 5


def test_months_are_cut_at_the_ends_of_the_span() -> None:
    found = months_in(OCTOBER_S, NOW_S)
    assert [(month.name, month.whole) for month in found] == [("2026-10", False), ("2026-11", False)]
    assert found[0].since_s == OCTOBER_S and found[-1].until_s == NOW_S
    assert found[0].until_s == found[1].since_s
    year = months_in(datetime(2025, 12, 1, tzinfo=UTC).timestamp(), datetime(2026, 2, 1, tzinfo=UTC).timestamp())
    assert [(month.name, month.whole) for month in year] == [("2025-12", True), ("2026-01", True)]
    assert len(months_in(0, NOW_S)) == 24


def test_a_policy_is_a_group_of_the_report(tmp_path: Path) -> None:
    filled(tmp_path)
    figures = report(tmp_path, "policy").figures
    assert {group.key: group.sums.requests for group in figures.groups} == {("p-one",): 80, ("p-two",): 80}
    with closing(ledger(tmp_path / "ledger.db")), pytest.raises(ConfigFault, match="policy, experiment, arm"):
        report(tmp_path, "polcy")
