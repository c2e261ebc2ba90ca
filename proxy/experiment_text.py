"""An experiment in words: the decision record, and cells for tables. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from farthing.proxy.config_experiments import HOLDOUT
from farthing.proxy.experiment_book import Record

__all__ = ["ARM_HEAD", "SLICE_HEAD", "arm_rows", "headline", "moment", "record_text", "slice_rows"]

ARM_HEAD = ("arm", "metric", "units", "control", "arm's", "difference", "interval", "")
_COMPARED = {"shadow": "shadowed answers", "audit": "audited near-duplicates"}
SLICE_HEAD = ("arm", "slice", "units", "difference", "interval", "p", "")


def headline(record: Record) -> str:
    """What is to be known first."""
    if record.state == "broken":
        return f"the assignment is broken: {record.why}"
    if record.state != "running":
        return f"{record.state}: {record.why}"
    reading = record.reading
    if reading is None:
        return "running; nothing was read yet"
    said = []
    for name, arm in reading["candidates"].items():
        if record.name == HOLDOUT:
            value, low, high = arm["metrics"]["cost_usd"]["apart"]
            known = f"a request costs {_signed(value)} dollars ({_between(low, high)})"
            cost = "what a request costs is not known yet" if value is None else known
            said.append(f"{name}: {cost}{_fresh(arm)}")
            continue
        needed = "" if not arm["needed"] else f"; about {arm['needed']:,} more units in each arm for a verdict"
        said.append(f"{name}: {arm['word']} ({arm['why']}{needed})")
    return "; ".join([*said, *(quality_lines(record, reading["control"]) if record.name == HOLDOUT else ())])


def _fresh(arm: Mapping[str, Any]) -> str:
    """What is known of an arm's answers that were compared with fresh ones."""
    value, low, high = arm.get("does", {}).get("loses", (None, None, None))
    if value is None:
        return ""
    between = f"{_points(-1.0 if low is None else low)} to {_points(1.0 if high is None else high)}"
    return f", and {_points(value)} points of its answers say what a fresh one says ({between})"


def quality_lines(record: Record, only: str = "") -> list[str]:
    """How good each arm's answers were, in farthing's own word; nothing where none was compared. `only`: that arm's."""
    return [
        f"{one['arm']}: {one['share']:.1%} of {one['units']:,} {_COMPARED[one['metric']]} say the same as the model "
        f"that was asked for ({one['low']:.1%} to {one['high']:.1%})"
        for one in (record.reading or {}).get("quality", ())
        if only in ("", one["arm"])
    ]


def arm_rows(record: Record) -> list[Sequence[str]]:
    """One row for each arm and metric."""
    reading = record.reading
    if reading is None or "candidates" not in reading:
        return []
    found: list[Sequence[str]] = []
    for name, arm in reading["candidates"].items():
        for number, (metric, one) in enumerate(arm["metrics"].items()):
            note = "decides" if number == 0 and record.name != HOLDOUT else ""
            if one["guardrail"] is not None:
                note = f"guardrail: at most {one['guardrail']['at_most']:.4g} worse"
            if number == 0 and one["noise_taken_out"]:
                note += f", {one['noise_taken_out']:.0%} of noise taken out"
            control, units = one["units"]
            value, low, high = one["apart"]
            found.append((name, metric, f"{control:,} / {units:,}", _number(one["control"]), _number(one["candidate"]),
                          _signed(value), _between(low, high), note))  # fmt: skip
    return found


def slice_rows(record: Record) -> list[Sequence[str]]:
    """One row for each arm and slice."""
    reading = record.reading or {}
    return [
        (name, f"{one['name']} = {one['value']}", f"{one['units'][0]:,} / {one['units'][1]:,}",
         _signed(one["apart"][0]), _between(*one["apart"][1:]), f"{one['p']:.3g}", one["word"])
        for name, arm in reading.get("candidates", {}).items()
        for one in arm["slices"]
    ]  # fmt: skip


def record_text(record: Record) -> str:
    """The decision record, for people to read and keep."""
    lines = [f"Experiment {record.name} ({record.id})", "", f"{headline(record)}", ""]
    lines.append(f"From {moment(record.since_s)} to {moment(record.ended_s)}; declaration {record.declared}.")
    lines += [f"  {arm.name:<16} {arm.version}  {arm.share:.1%}" for arm in record.arms]
    said = record.declaration
    if "metric" in said:
        how = f"{said['metric']} decides, at level {said['level']}, by {said['unit']}"
        least, most = said["minimum_days"], said["maximum_days"]
        lines.append(f"Declared before the start: {how}; {least:g} days at least, {most:g} at most.")
    reading = record.reading
    if reading is not None:
        shares = reading["shares"]
        counts = ", ".join(f"{name} {count:,}" for name, count in shares["units"].items())
        lines += ["", f"Units in each arm: {counts} (that the shares are right: p = {shares['p']:.3g})"]
        for head, rows in ((ARM_HEAD, arm_rows(record)), (SLICE_HEAD, slice_rows(record))):
            if rows:
                lines += ["", *_columns(head, rows)]
        lines += quality_lines(record)
        for name, arm in reading.get("candidates", {}).items():
            if arm["lasts"]:
                lines.append(f"{name}, effect over time: {arm['lasts']}")
            if why := arm.get("slices_why"):  # records of earlier versions have none
                lines.append(f"{name}, slices: {why}")
        if reading["left_out"]:
            lines.append(f"{reading['left_out']:,} requests of units beyond the cap were left out.")
    return "\n".join(lines) + "\n"


def moment(at_s: float | None) -> str:
    """A moment, UTC."""
    return "now" if at_s is None else datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.5g}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _signed(value: Any) -> str:
    return "-" if value is None else f"{value:+.4g}"


def _between(low: Any, high: Any) -> str:
    return f"{'-inf' if low is None else f'{low:+.4g}'} to {'inf' if high is None else f'{high:+.4g}'}"
