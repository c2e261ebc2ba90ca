"""What routes did, from the ledger's rows: who answered, at what price, how fast, and where another had to be asked."""

from __future__ import annotations

from typing import Any

import pytest

from farthing.proxy import figures_routes
from farthing.proxy.figures_routes import Declared, Routed, VariantFigures, by_route
from farthing.proxy.report_plain import plain_routes
from farthing.proxy.row import Row
from tests.browser.panels import DECLARED, FAQ, ROUTED, routed
from tests.fakes.rows import NOW_S, ledger, plausible, row

SPAN = (NOW_S - 8 * 86_400, NOW_S + 1)


def read(rows: list[Row], declared: Declared = DECLARED) -> Routed:
    return by_route(ledger(":memory:", rows), *SPAN, declared)


def only(rows: list[Row], declared: Declared = DECLARED) -> tuple[str, VariantFigures]:
    found = read(rows, declared)
    assert len(found.routes) == 1
    [variant] = found.routes[0].variants.values()
    return found.routes[0].route, variant


def test_each_request_is_counted_where_it_was_answered() -> None:
    found = read([*plausible(200), *ROUTED])
    told = {(each.route, each.serves, one.variant): one for each in found.routes for one in each.variants.values()}

    assert [each.route for each in found.routes] == [FAQ, "rest", ""]
    assert {place: (one.requests, one.asked) for place, one in told.items()} == {
        (FAQ, True, "mini"): (61, 81),
        (FAQ, True, "large"): (18, 20),
        (FAQ, True, ""): (2, 2),
        ("rest", False, "mini"): (30, 0),
        ("", True, "large"): (3, 3),
    }
    mini, large = told[FAQ, True, "mini"], told[FAQ, True, "large"]
    assert (mini.escalated, mini.failed, mini.hedged, mini.errors) == (20, 0, 1, 1)
    assert (large.escalated, large.failed, large.hedged, large.errors) == (0, 2, 0, 0)


def test_money_is_the_ledgers() -> None:
    found = read(ROUTED)
    everything = [one for each in found.routes for one in each.variants.values()]

    assert sum(one.cost for one in everything) == sum(each.cost_usd or 0 for each in ROUTED)
    assert sum(one.saved for one in everything) == sum(each.saved_route_usd or 0 for each in ROUTED)
    assert sum(one.requests for one in everything) == len(ROUTED)


def test_what_an_observing_route_would_have_cost_is_added_up() -> None:
    asked = ("would route", "rest: mini, cheapest, for $0.000000000017")
    unknown = ("would route", "rest: mini, cheapest, at a price that isn't known")
    _, one = only([routed(asked, id="a", cost_usd=20), routed(asked, id="b", cost_usd=10), routed(unknown, id="c")])

    assert (one.requests, one.would_priced, one.would, one.would_save) == (3, 2, 34, -4)


@pytest.mark.parametrize(
    ("decision", "by", "route", "variant"),
    [
        (("routed", "faq: mini, cheapest; large: no tools"), ("mini",), "faq", "mini"),
        (("routed", f"{FAQ}: mini, first of a cascade"), ("mini",), FAQ, "mini"),
        (("routed", "mini, named by the request"), ("mini",), "", "mini"),
        (("routed", "gpt-4o"), (), "", "gpt-4o"),
        (("routed", "gpt-4o"), ("", ""), "", "gpt-4o"),
        (("routed", f"{FAQ}: mini, first of a cascade"), (), FAQ, "mini"),
        (("not routed", "faq: none fits; mini: too long"), ("",), "faq", ""),
        (("would route", "rest: mini, cheapest, for $0.1"), ("",), "rest", "mini"),
        (("would not route", "rest: none fits"), ("",), "rest", ""),
    ],
)
def test_names_are_found_before_what_else_is_said(
    decision: tuple[str, str], by: tuple[str, ...], route: str, variant: str
) -> None:
    found, one = only([routed(decision, by=by)])
    assert (found, one.variant) == (route, variant)


PLAIN = DECLARED._replace(plain={"faq": {"gpt-4o": "large"}, FAQ: {"gpt-4o": "large"}})


@pytest.mark.parametrize(
    ("decisions", "by", "expected"),
    [
        # requests, asked, failed and hedged of each
        ((("routed", "faq: large, weighted"),), ("",), {"large": (1, 1, 0, 0)}),
        ((("routed", "faq: large, weighted"), ("failed", "the asked-for model: 5xx")), ("", "mini"),
         {"large": (0, 1, 1, 0), "mini": (1, 1, 0, 0)}),
        ((("routed", "faq: large, fixed"), ("hedged", "the asked-for model said nothing in 9 ms")), ("mini", ""),
         {"large": (1, 1, 0, 1), "mini": (0, 1, 0, 0)}),
        # not the chosen one: that has a name, in attempts or failures
        ((("routed", "faq: mini, fixed"), ("failed", "mini: 5xx")), ("mini", ""),
         {"mini": (0, 1, 1, 0), "large": (1, 1, 0, 0)}),
        ((("routed", "faq: mini, fixed"), ("failed", "mini: budget_exceeded")), ("",),
         {"mini": (0, 0, 1, 0), "large": (1, 1, 0, 0)}),
        ((("routed", f"{FAQ}: mini, cascade"), ("escalated", "mini: refusal")), ("mini", ""),
         {"mini": (0, 1, 0, 0), "large": (1, 1, 0, 0)}),
        ((("routed", f"{FAQ}: pupil, cascade"),), ("",), {"large": (1, 1, 0, 0)}),
        # it was left out: then the model that was asked for ends the route, and is no variant of it
        ((("routed", "faq: mini, fixed; large no tools"), ("failed", "mini: 5xx")), ("mini", ""),
         {"mini": (0, 1, 1, 0), "": (1, 1, 0, 0)}),
        ((("not routed", "faq: mini no tools; large no tools"),), ("",), {"": (1, 1, 0, 0)}),
        ((("routed", "rest: mini, fixed"), ("failed", "mini: 5xx")), ("mini", ""),
         {"mini": (0, 1, 1, 0), "": (1, 1, 0, 0)}),
    ],
)  # fmt: skip
def test_a_variant_that_is_just_the_model_asked_for_is_counted_by_its_name(
    decisions: tuple[tuple[str, str], ...], by: tuple[str, ...], expected: dict[str, tuple[int, ...]]
) -> None:
    [route] = read([routed(*decisions, by=by, model_requested="gpt-4o")], PLAIN).routes
    told = {name: (one.requests, one.asked, one.failed, one.hedged) for name, one in route.variants.items()}
    assert told == expected


def test_the_chosen_variant_is_known_where_the_configuration_is_another_by_now() -> None:
    assert only([routed(("routed", "gone: large, weighted"), by=("",))], Declared())[1].variant == "large"


def test_where_a_named_variant_failed_the_model_asked_for_answered() -> None:
    told = (("routed", "mini, named by the request"), ("failed", "mini: 5xx"))
    [route] = read([routed(*told, by=("mini", ""))]).routes
    assert {name: (one.requests, one.asked, one.failed) for name, one in route.variants.items()} == {
        "": (1, 1, 0), "mini": (0, 1, 1),
    }  # fmt: skip


def test_names_that_look_like_what_follows_them_are_found_whole() -> None:
    declared = Declared((("a", "serve", "fixed"), ("a: b", "serve", "fixed")), ("m", "m, n"))
    assert only([routed(("routed", "a: b: m, n, fixed"))], declared)[0] == "a: b"
    assert only([routed(("routed", "a: b: m, n, fixed"))], declared)[1].variant == "m, n"


def test_without_a_price_there_is_no_amount() -> None:
    found = read([routed(("routed", "faq: mini, fixed"), by=("mini",), cost_usd=None, baseline_usd=None)])
    [one] = plain_routes(found, DECLARED)["routes"][0]["variants"]
    assert (one["requests"], one["priced"]) == (1, 0)
    assert (one["cost_usd"], one["cost_per_request_usd"], one["saved_usd"]) == (None, None, None)


def test_latencies_are_nearest_ranks_of_those_who_waited() -> None:
    rows = [routed(("routed", "faq: mini, fixed"), by=("mini",), id=str(i), latency_ms=float(i)) for i in range(1, 201)]
    left = routed(("routed", "faq: mini, fixed"), by=("mini",), id="left", latency_ms=9e9, outcome="abandoned")
    _, one = only([*rows, left])
    assert (one.latency_ms(50), one.latency_ms(99)) == (100.0, 198.0)
    assert VariantFigures("nobody").latency_ms(50) is None


@pytest.mark.parametrize(
    "broken", ["", "null", "{}", '[["route",', '["route",1]', '[["route","routed"]]', '[["route",1,2]]']
)
def test_a_broken_column_takes_nothing_else_with_it(broken: str) -> None:
    whole = routed(("routed", "faq: mini, fixed"), by=("mini",), id="whole", attempts_detail=broken)
    assert only([row(id="broken", decisions=broken), whole])[1].requests == 1


def test_own_calls_and_other_times_are_left_out() -> None:
    decision = ("routed", "faq: mini, fixed")
    found = read([routed(decision, id="own", endpoint="audit"), routed(decision, id="old", ts=NOW_S - 10**7)])
    assert found == Routed((), 0, None)


def test_no_more_than_the_latest_rows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_routes, "MOST_ROWS", 10)
    rows = [routed(("routed", "faq: mini, fixed"), by=("mini",), id=str(i), ts=NOW_S - i) for i in range(40)]
    found = read(rows)
    assert (found.routes[0].requests, found.rows, found.since_s) == (10, 10, NOW_S - 9)


def test_a_question_costs_no_more_rows_than_its_bound() -> None:
    """By SQLite's own plan: the rows are walked from the newest on, by the index on time."""
    conn = ledger(":memory:", ROUTED)
    seen: list[str] = []
    conn.set_trace_callback(seen.append)
    by_route(conn, *SPAN, DECLARED)
    conn.set_trace_callback(None)
    for query in (each for each in seen if "select" in each):
        told = " ".join(str(step[3]) for step in conn.execute(f"explain query plan {query}"))
        assert "USING INDEX requests_ts" in told
        assert "TEMP B-TREE" not in told


def test_plain_values_name_routes_that_did_nothing() -> None:
    told = plain_routes(read(ROUTED), DECLARED)
    shown: list[dict[str, Any]] = told["routes"]
    assert [(each["route"], each["mode"], each["strategy"], each["requests"]) for each in shown] == [
        (FAQ, "serve", "cascade", 81), ("rest", "observe", "cheapest", 30), ("", "serve", "", 3),
        ("idle", "serve", "fixed", 0),
    ]  # fmt: skip
    mini = shown[0]["variants"][0]
    assert mini["share"] == pytest.approx(61 / 81)
    assert mini["cost_usd"] == "0.061"
    assert mini["cost_per_request_usd"] == "0.001"
    assert shown[1]["variants"][0]["would_save_usd"] == "0.087"
    assert shown[1]["variants"][0]["would_usd"] == "0.033"


def test_an_empty_ledger_has_no_routes() -> None:
    assert read([], Declared()) == Routed((), 0, None)
