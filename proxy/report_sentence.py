"""The report in words: the sentence that a manager wants, and what must be known before it is believed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from farthing.proxy.figures_values import Figures, Sums
from farthing.proxy.forecast import CONFIDENCE, LEAST_DAYS, Forecast
from farthing.proxy.report_text import CAUSE_NAMES, counted, disarmed, iso, money, span
from farthing.proxy.report_values import Lacking, Report

__all__ = ["forecast_text", "headline", "lacking_rows", "mending", "notes", "peak_lines", "report_notes"]

EMPTY = (
    "No requests in {span}. Point an app's base_url at farthing (http://127.0.0.1:8080/v1 unless configured "
    "otherwise), send one, and ask again; or ask for a longer time with --since."
)


def headline(figures: Figures) -> str:
    """The whole report in a few sentences."""
    total = figures.total
    if not total.requests:
        return EMPTY.format(span=span(figures)) + _own_calls(total)
    if not total.has_prices:
        of = "the only request" if total.requests == 1 else f"any of the {total.requests:,} requests"
        return f"No price is known for {of} in {span(figures)}."
    text = f"You spent {money(total.spent)} in {span(figures)}; "
    if total.baseline == total.spent:
        text += "without farthing it would have been the same. " + _even(total)
    else:
        text += f"without farthing it would have been {money(total.baseline)}. "
        text += _gain(total) if total.baseline > total.spent else _loss(total)
    if total.unpriced:
        text += f" That leaves out {counted(total.unpriced, 'request')} of unknown price"
        text += f" ({_share(total.unpriced, total.rows)})." if total.rows > 1 else "."
    if total.modelled:
        text += f" The baseline is an estimate for {_share(total.modelled, total.rows)} of the requests."
    return text


def _own_calls(total: Sums) -> str:
    return f" farthing's own calls cost {money(total.overhead)}." if total.overhead else ""


def _gain(total: Sums) -> str:
    """What was saved, and by what most."""
    gross = {cause: pico for cause, pico in total.saved.items() if pico > 0}
    net = total.baseline - total.spent
    share = f" ({_share(net, total.baseline)})" if total.baseline > 0 else ""
    text = f"You saved {money(net)}{share}"
    if not gross:
        return f"{text}."
    cause = max(gross, key=lambda name: gross[name])
    part = "all" if len(gross) == 1 else _share(gross[cause], sum(gross.values()))
    return f"{text}; {part} of the saving came from {_named(cause)}."


def _loss(total: Sums) -> str:
    """That it cost more than it saved, and what cost most."""
    text = f"farthing cost {money(total.spent - total.baseline)} more than it saved"
    costs = {_named(cause): -pico for cause, pico in total.saved.items() if pico < 0}
    if total.overhead > 0:
        costs["its own calls"] = total.overhead
    if not costs:
        return f"{text}."
    dearest = max(costs, key=lambda name: costs[name])
    return f"{text}; {dearest} cost most ({money(costs[dearest])})."


def _even(total: Sums) -> str:
    gross = sum(pico for pico in total.saved.values() if pico > 0)
    if gross:
        return f"What was saved ({money(gross)}) was spent again."
    return "Nothing was saved."


def _named(cause: str) -> str:
    name = CAUSE_NAMES[cause]
    return name if cause in ("compress", "route") else f"the {name}"


def _share(part: int, whole: int) -> str:
    """A share in per cent, which is 0 or 100 only where it really is."""
    if not 0 < part < whole:
        return f"{part / whole:.0%}"
    return (
        "less than 1%" if part * 100 < whole else "more than 99%" if part * 100 > 99 * whole else f"{part / whole:.0%}"
    )


def notes(figures: Figures) -> list[str]:
    """What a reader must know before believing the figures."""
    total, said = figures.total, []
    if total.unpriced:
        known = f" ({money(total.cost_unpriced)} of cost is known among them)" if total.cost_unpriced else ""
        said.append(
            f"{counted(total.unpriced, 'request')} of unknown price: in no amount above{known}. "
            "Prices of own models go under prices.models in the configuration."
        )
    if total.unproven:
        said.append(f"{counted(total.unproven, 'semantic hit')} served unproven: nothing bounds how many were wrong.")
    if total.modelled:
        said.append(f"{counted(total.modelled, 'request')} with a modelled baseline: estimated, not billed.")
    if total.overhead_unknown:
        said.append(f"{counted(total.overhead_unknown, 'request')} whose overhead cost is unknown: in no amount above.")
    if total.unattributed:
        said.append(f"{money(total.unattributed)} of saving without a cause: some rows of the ledger are inconsistent.")
    if any(times.approximate for times in figures.times.values()):
        said.append("Percentiles are within 2 %: they come from roll-ups.")
    if figures.left_out:
        said.append(f"{counted(figures.left_out, 'smaller group')} not shown.")
    return said


def report_notes(report: Report) -> list[str]:
    """The same for the whole report."""
    later = counted(report.later, "request")
    ahead = f"{later} dated after the end of this report, since a clock was ahead: in no figure above."
    return [
        *notes(report.figures),
        *([report.before_missing] if report.before_missing else []),
        *([ahead] if report.later else []),
        *(
            f"{name} is a damaged ledger that was moved aside: what it holds is in no figure above. "
            f"farthing ledger salvage saves what can be read."
            for name in report.aside
        ),
    ]


def forecast_text(made: Forecast) -> str:
    """What the month will cost, or why nobody can tell."""
    text = f"Spent in {made.month} so far: {money(made.so_far)}."
    if made.expected is None or made.low is None or made.high is None:
        return (
            f"{text} Too little data for a forecast: {counted(made.days, 'whole day')}, "
            f"and it takes {LEAST_DAYS} at least."
        )
    by = ", each weekday by itself" if made.weekdays else ""
    basis = f"from {counted(made.days, 'day')}{by}; {made.days_left:.1f} days left"
    return (
        f"{text} By the end of the month: {money(made.expected)}, and with {CONFIDENCE:.0%} confidence between "
        f"{money(made.low)} and {money(made.high)} ({basis})."
    )


def peak_lines(report: Report) -> list[tuple[str, str, str, str, str]]:
    """The peak hour against the average one: of what, the peak, when, the average, how many times."""
    lines = []
    for name, each in (report.peaks or {}).items():
        if name == "spent":
            top, mean = money(each.value), money(round(each.mean))
        else:
            top, mean = f"{each.value:,}", f"{each.mean:,.1f}"
        lines.append((name, top, f"{iso(each.start_s)[:13].replace('T', ' ')}h", mean, f"{each.times:,.1f} x"))
    return lines


def lacking_rows(report: Report) -> list[tuple[str, str]]:
    """The models without a price, each with its requests."""
    rows = [(disarmed(each.model) or "(none)", f"{each.rows:,}") for each in report.lacking]
    return [*rows, (f"and {report.lacking_left_out:,} more", "")] if report.lacking_left_out else rows


def mending(lacking: Sequence[Lacking]) -> list[str]:
    """How to give the first of the models a price: lines of text, the last ones TOML."""
    if not lacking:
        return []
    name = disarmed(lacking[0].model)
    return [
        "`farthing prices check` says what each one lacks. A price goes into farthing.toml, and holds from then on:",
        f"[prices.models.{orjson.dumps(name).decode()}]",
        "input_usd_per_mtok = 1.0   # yours",
        "output_usd_per_mtok = 4.0",
    ]
