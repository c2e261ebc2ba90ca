"""A report for programs: plain values, JSON, CSV. Pure.

Rules of this file: names of fields are a contract and stay; amounts are decimal texts of dollars, so that no digit is
lost on the way; an unknown amount is None or empty, never zero.
"""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson

from farthing.proxy.figures_routes import Declared, Routed, RouteFigures, VariantFigures
from farthing.proxy.figures_values import CAUSES, STATUSES, Figures, Percentiles, Sums
from farthing.proxy.forecast import CONFIDENCE, Forecast
from farthing.proxy.report_compare import Change, changes
from farthing.proxy.report_sentence import headline, notes, report_notes
from farthing.proxy.report_text import dollars, iso, unformulated
from farthing.proxy.report_values import Peak, Report
from farthing.proxy.report_worth_plain import plain_worth
from farthing.proxy.tradeoff import plain_tradeoff

__all__ = ["csv", "json", "plain", "plain_report", "plain_routes", "plain_sums"]

PLAIN_COUNTS = (
    "errors", "abandoned", "unproven", "modelled", "unpriced", "overhead_unknown",
    "tokens_in_original", "tokens_in_sent", "tokens_in_cached", "tokens_out",
    "tokens_saved_tidy", "tokens_saved_recode", "tokens_saved_squeeze",
)  # fmt: skip
_BEFORE = ("requests", "spent_usd", "baseline_usd", "net_saving_usd")


def plain_sums(sums: Sums, times: Mapping[str, Percentiles]) -> dict[str, Any]:
    """Sums and times as plain values; amounts are decimal texts of dollars, rates are shares of 1.

    Where every request is of unknown price the amounts are None.
    """
    amounts = {
        **{name: getattr(sums, name) for name in ("baseline", "cost", "overhead", "spent")},
        **{f"saved_{cause}": sums.saved[cause] for cause in CAUSES},
        "saved": sums.saved_total,
        "net_saving": sums.net_saving,
    }
    return {
        "requests": sums.requests,
        "cache": dict(sums.cache),
        "hit_rate_eligible": sums.hit_rate_eligible,
        "hit_rate_all": sums.hit_rate_all,
        **{name: getattr(sums, name) for name in PLAIN_COUNTS},
        **{f"{name}_usd": dollars(pico) if sums.has_prices else None for name, pico in amounts.items()},
        "cost_unpriced_usd": dollars(sums.cost_unpriced),
        **{f"{name}_ms": asdict(each) for name, each in times.items() if each.count},
    }


def plain(figures: Figures) -> dict[str, Any]:
    """The figures as plain values, ready for JSON."""
    return {
        "since": iso(figures.since_s),
        "until": iso(figures.until_s),
        "headline": headline(figures),
        "notes": notes(figures),
        "total": plain_sums(figures.total, figures.times),
        "by": list(figures.by),
        "groups": [
            {"key": dict(zip(figures.by, group.key, strict=True)), **plain_sums(group.sums, group.times)}
            for group in figures.groups
        ],
        "groups_left_out": figures.left_out,
    }


def plain_routes(routed: Routed, declared: Declared) -> dict[str, Any]:
    """What routes did, and those in force that did nothing; amounts are decimal texts of dollars, None where no price
    is known of any request. `mode`: serve or observe, as the rows have it; `off` only where there are none. `bound`: of
    a route with `max_worse`, what its shadows say, else None."""
    strategies = {name: strategy for name, _, strategy in declared.routes}
    told = [
        {
            "route": each.route,
            "mode": "serve" if each.serves else "observe",
            "strategy": strategies.get(each.route, ""),
            "bound": declared.bounds.get(each.route),
            "requests": each.requests,
            "variants": [
                _plain_variant(one, each) for one in sorted(each.variants.values(), key=lambda v: -v.requests)
            ],
        }
        for each in routed.routes
    ]
    seen = {each.route for each in routed.routes}
    told += [
        {
            "route": name,
            "mode": mode,
            "strategy": strategy,
            "bound": declared.bounds.get(name),
            "requests": 0,
            "variants": [],
        }
        for name, mode, strategy in declared.routes
        if name not in seen
    ]
    return {"routes": told, "rows": routed.rows, "since_s": routed.since_s}


def by_requests(route: RouteFigures) -> list[VariantFigures]:
    """The route's variants, those with most requests first."""
    return sorted(route.variants.values(), key=lambda one: (-one.requests, one.variant))


def _plain_variant(one: VariantFigures, route: RouteFigures) -> dict[str, Any]:
    would = dollars(one.would) if one.would_priced else None
    return {
        **{
            name: getattr(one, name)
            for name in ("variant", "requests", "asked", "errors", "escalated", "failed", "hedged", "priced")
        },
        "share": one.requests / route.requests if route.requests else None,
        "cost_usd": dollars(one.cost) if one.priced else None,
        "cost_per_request_usd": dollars(one.cost // one.priced) if one.priced else None,
        "saved_usd": dollars(one.saved) if one.priced else None,
        "would_usd": None if route.serves else would,
        "would_save_usd": None if route.serves or would is None else dollars(one.would_save),
        "latency_p50_ms": one.latency_ms(50),
        "latency_p99_ms": one.latency_ms(99),
    }


def plain_report(report: Report) -> dict[str, Any]:
    """The whole report as plain values: those of its figures, and what stands around them.

    `before`: the span before, with `changes` (`change` is now less before, `change_share` a share of before) and
    `groups`; None where there is none. `forecast`: of the calendar month. `over_time`: the span by `unit`.
    `worth`, `tradeoff`: None where only the ledger was at hand.
    """
    figures, before = report.figures, report.before
    return {
        **plain(figures),
        "notes": report_notes(report),
        "before": None
        if before is None
        else {
            "since": iso(before.since_s),
            "until": iso(before.until_s),
            "total": plain_sums(before.total, before.times),
            "changes": {change.key: _change(change) for change in changes(figures, before)},
            "groups": [
                {"key": dict(zip(before.by, group.key, strict=True)), **plain_sums(group.sums, {})}
                for group in before.groups
            ],
        },
        "forecast": None if report.forecast is None else _forecast(report.forecast),
        "peak_hour": {name: _peak(name, each) for name, each in (report.peaks or {}).items()},
        "unit": report.unit,
        "over_time": [
            {"start": iso(each.start_s), "length_s": each.end_s - each.start_s, **plain_sums(each.sums, {})}
            for each in report.stretches
        ],
        "unpriced_models": [
            {"model": each.model, "requests": each.rows, "cost_known_usd": dollars(each.known)}
            for each in report.lacking
        ],
        "unpriced_models_left_out": report.lacking_left_out,
        "top_repeated": [
            {"key_hash": each.key_hash, "model": each.model, "requests": each.requests, "hits": each.hits,
             "saved_usd": dollars(each.saved), "at_least": each.at_least}
            for each in report.repeated
        ],
        "worth": None if report.worth is None else plain_worth(report.worth),
        "tradeoff": None if report.tradeoff is None else plain_tradeoff(report.tradeoff),
    }  # fmt: skip


def _change(change: Change) -> dict[str, Any]:
    def value(of: float | int | None) -> Any:
        return dollars(int(of)) if change.kind == "money" and of is not None else of

    unit = {"money": "usd", "ms": "ms", "share": "share", "count": "count"}[change.kind]
    return {
        "unit": unit,
        "now": value(change.now),
        "before": value(change.before),
        "change": value(change.delta),
        "change_share": change.share,
        "worse": change.worse,
    }


def _forecast(made: Forecast) -> dict[str, Any]:
    amounts = {"expected": made.expected, "low": made.low, "high": made.high}
    return {
        "month": made.month,
        "so_far_usd": dollars(made.so_far),
        **{f"{name}_usd": None if pico is None else dollars(pico) for name, pico in amounts.items()},
        "confidence": CONFIDENCE,
        "from_days": made.days,
        "days_left": made.days_left,
        "weekdays": made.weekdays,
    }


def _peak(name: str, each: Peak) -> dict[str, Any]:
    money = name == "spent"
    return {
        "start": iso(each.start_s),
        "peak": dollars(each.value) if money else each.value,
        "mean": dollars(round(each.mean)) if money else each.mean,
        "times": each.times,
    }


def json(report: Report) -> str:
    """The report as JSON."""
    return orjson.dumps(plain_report(report), option=orjson.OPT_INDENT_2).decode() + "\n"


def csv(report: Report) -> str:
    """A line for each group, or one for all (RFC 4180); amounts in dollars with every digit.

    The last columns are the span before, empty where there is none.
    """
    figures = report.figures
    if figures.by:
        groups = [(group.key, group.sums, group.times) for group in figures.groups]
        before = report.sums_before
    else:
        groups = [((), figures.total, figures.times)]
        before = {} if report.before is None else {(): report.before.total}
    numbers = [name for name in plain_sums(figures.total, {}) if name != "cache"]
    times = ("latency_ms", "overhead_ms")
    out = io.StringIO()
    writer = csv_format.writer(out)
    writer.writerow(
        ["since", "until", *figures.by, *numbers, *(status.replace("-", "_") for status in STATUSES),
         *(f"{name.removesuffix('_ms')}_{p}_ms" for name in times for p in ("p50", "p95", "p99")),
         *(f"before_{name}" for name in _BEFORE)]
    )  # fmt: skip
    for key, sums, percentiles in groups:
        values = plain_sums(sums, percentiles)
        old = plain_sums(before[key], {}) if key in before else {}
        writer.writerow(
            [iso(figures.since_s), iso(figures.until_s), *(unformulated(part) for part in key),
             *(_cell(values[name]) for name in numbers),
             *(values["cache"].get(status, 0) for status in STATUSES),
             *(values.get(name, {}).get(p, "") for name in times for p in ("p50", "p95", "p99")),
             *(_cell(old.get(name)) for name in _BEFORE)]
        )  # fmt: skip
    return out.getvalue()


def _cell(value: Any) -> Any:
    return "" if value is None else value
