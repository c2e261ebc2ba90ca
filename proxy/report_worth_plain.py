"""What it was worth, for programs: plain values and CSV. Pure. Names of fields stay; amounts are decimal texts."""

from __future__ import annotations

import csv as csv_format
import io
from typing import Any

from farthing.policies.outcome import RATING
from farthing.proxy.levels import plain_standing
from farthing.proxy.report_text import dollars, iso, unformulated
from farthing.proxy.report_values import Report
from farthing.proxy.report_worth import Worth, WorthLine

__all__ = ["monthly_csv", "plain_worth"]

_AMOUNTS = ("spent", "baseline", "net_saving")
_PLAIN = ("month", "since", "until", "whole", "requests", "spent_usd", "baseline_usd", "net_saving_usd", "rated",
          "good_share", "good_low", "good_high", "cost_per_good_usd")  # fmt: skip
_OF_METRIC = ("words", "sum", "mean", "usd_per_1")


def plain_worth(worth: Worth) -> dict[str, Any]:
    """`lines` by month and group, `levels` by month; `words_cut`: not all that was said was looked at."""
    return {
        "by": list(worth.by),
        "lines": [_line(line, worth) for line in worth.lines],
        "levels": [
            {"month": kept.month.name, "whole": kept.month.whole, "level": kept.level, **plain_standing(kept.standing)}
            for kept in worth.levels
        ],
        "words_cut": worth.cut,
    }


def monthly_csv(report: Report) -> str:
    """A line for each month and group (RFC 4180), each metric in four columns of its own."""
    worth = report.worth
    assert worth is not None
    out = io.StringIO()
    writer = csv_format.writer(out)
    others = [metric for metric in worth.metrics if metric != RATING]  # ratings have columns of their own
    named = [f"{metric}_{part}" for metric in others for part in _OF_METRIC]
    writer.writerow([*worth.by, *_PLAIN, *map(unformulated, named)])
    for line in worth.lines:
        plain = _line(line, worth)
        of_metrics = [plain["metrics"].get(metric, {}).get(part) for metric in others for part in _OF_METRIC]
        cells = [*(plain[name] for name in _PLAIN), *of_metrics]
        writer.writerow([*map(unformulated, line.key), *("" if cell is None else cell for cell in cells)])
    return out.getvalue()


def _line(line: WorthLine, worth: Worth) -> dict[str, Any]:
    good, sums = line.good, line.sums
    amounts = {f"{name}_usd": dollars(getattr(sums, name)) if sums.has_prices else None for name in _AMOUNTS}
    metrics = {}
    for name, said in sorted(line.metrics.items()):
        each = line.cost_per(name)
        metrics[name] = {
            "words": said.words,
            "sum": said.total,
            "mean": said.mean,
            "usd_per_1": None if each is None else dollars(each),
        }
    return {
        "key": dict(zip(worth.by, line.key, strict=True)),
        "month": line.month.name,
        "since": iso(line.month.since_s),
        "until": iso(line.month.until_s),
        "whole": line.month.whole,
        "requests": sums.requests,
        **amounts,
        "rated": 0 if good is None else line.metrics["rating"].words,
        "good_share": None if good is None else good.value,
        "good_low": None if good is None else good.low,
        "good_high": None if good is None else good.high,
        "cost_per_good_usd": None if line.cost_per_good is None else dollars(line.cost_per_good),
        "metrics": metrics,
    }
