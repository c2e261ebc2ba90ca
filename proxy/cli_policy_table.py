"""`farthing policy` on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from farthing.policies.version import Change
from farthing.proxy.report_text import disarmed

if TYPE_CHECKING:
    from farthing.proxy.versions import Stored

__all__ = ["changes", "settings", "status"]

_METRICS = {"errors": "errors", "latency": "latency p99", "cost": "cost per request", "ratings": "bad ratings"}
_BAR = 20
_SHOWN_VERSIONS, _SHOWN_CHANGES = 12, 8


def status(found: dict[str, Any], now_s: float) -> RenderableType:
    """Everything that `GET /farthing/api/policy` says."""
    parts: list[RenderableType] = []
    if found.get("switched_off"):
        parts.append(Text("all optimisation is switched off: farthing policy on", "bold red"))
    if found.get("running") is False:
        parts.append(Text("no farthing runs here; this is what is on disk", "dim"))
    active = found["active"]
    if active is None:
        return Group(*parts, Text("no policy has ever been in force here"))
    head = Text.assemble("active     ", (active["version"], "bold green"), f"  since {_moment(active['since'])}")
    parts.append(_noted(head, active["note"]))
    if found["candidate"] is not None:
        parts += _candidate(found["candidate"], now_s)
    parts += [_bounded(name, one) for name, one in found.get("routes", {}).items()]
    parts += [Text(), _versions(found)]
    if found["changes"]:
        parts += [Text(), _log(found["changes"][:_SHOWN_CHANGES])]
    return Group(*parts)


def _bounded(name: str, bound: dict[str, Any]) -> Text:
    """A route with max_worse: whether it may serve, and by what evidence."""
    state, colour = {
        "serves": ("serves", "green"),
        "proved": ('proved: with mode = "prove" or "serve" it would serve', "bold green"),
    }.get(bound["state"], ("held back", "red") if bound["fell_back"] else ("not proved yet", "yellow"))
    seen = f"{bound['worse']:,.0f} of {bound['compared']:,.0f} compared were worse, so at most {bound['at_most']:.2%}"
    return Text.assemble(
        f"route      {disarmed(name)}  ", (state, colour), f"  {seen}; {bound['max_worse']:.2%} may be"
    )


def settings(stored: Stored) -> RenderableType:
    """A version's values by path; what differs from a value left out stands out."""
    from farthing.policies.version import differences

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    given = {one.path for one in differences({}, stored.given)}
    for one in differences({}, stored.sections):
        own = one.path in given
        table.add_row(Text(disarmed(one.path), "" if own else "dim"), Text(_value(one.after), "bold" if own else "dim"))
    head = Text.assemble((stored.version, "bold"), f"  made {_moment(stored.made_at)}")
    return Group(_noted(head, stored.note), Text(), table)


def changes(before: str, after: str, found: Sequence[Change]) -> RenderableType:
    """What differs, one line each."""
    if not found:
        return Text(f"{disarmed(before)} and {disarmed(after)} are the same policy")
    table = Table("setting", escape(disarmed(before)), escape(disarmed(after)), box=None, padding=(0, 2, 0, 0))
    for one in found:
        table.add_row(Text(disarmed(one.path)), Text(_value(one.before), "red"), Text(_value(one.after), "green"))
    return table


def _candidate(going: dict[str, Any], now_s: float) -> list[RenderableType]:
    share, steps = going["share"], going["steps"]
    bar = round(share * _BAR) or 1
    head = Text.assemble(
        "candidate  ", (going["version"], "bold yellow"), "  ", ("█" * bar, "yellow"), ("░" * (_BAR - bar), "dim"),
        f" {share:.0%} of {going['unit']}s",
    )  # fmt: skip
    begun = _span(now_s - going["step_since"])
    way = f"step {going['step']} of {len(steps)} ({', '.join(f'{one:.0%}' for one in steps)}), begun {begun} ago"
    parts: list[RenderableType] = [_noted(head, going["note"]), Text(f"           {way}", "dim")]
    guard = going["guard"]
    if guard is None:
        return parts
    if going["waits_for"]:
        parts.append(Text(f"           {disarmed(going['waits_for'])}", "dim"))
    colour = {"go on": "green", "hold": "yellow", "roll back": "red"}[guard["says"]]
    table = Table("", "active", "candidate", "evidence against it", box=None, padding=(0, 2, 0, 0))
    counts = guard["requests"]
    table.add_row("requests", f"{counts['active']:,}", f"{counts['candidate']:,}", Text(guard["says"], colour))
    for name, seen in guard["metrics"].items():
        cells = (_figure(name, seen["active"]), _figure(name, seen["candidate"]), _evidence(seen["evidence"]))
        table.add_row(_METRICS.get(name, name), *cells)
    for column in table.columns[1:3]:
        column.justify = "right"
    return [*parts, Text(), table]


def _evidence(share: float) -> Text:
    """How far it has come towards a rollback."""
    if share <= 0:
        return Text("none", "dim")
    return Text(f"{min(share, 1.0):.0%} of what rolls it back", "red" if share >= 0.5 else "")


def _figure(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return {"latency": f"{value:,.0f} ms", "cost": f"${value:.6f}"}.get(metric, f"{value:.2%}")


def _versions(found: dict[str, Any]) -> Table:
    table = Table("version", "made", "", "note", box=None, padding=(0, 2, 0, 0))
    candidate = (found["candidate"] or {}).get("version")
    for one in found["versions"][:_SHOWN_VERSIONS]:
        words = [
            word
            for word, holds in (
                ("active", one["active"]),
                ("candidate", one["version"] == candidate),
                ("before", one["version"] == found["before"]),
                ("file", one["file"]),
            )
            if holds
        ]
        style = "bold green" if one["active"] else "bold yellow" if one["version"] == candidate else ""
        table.add_row(
            Text(one["version"], style), _moment(one["made_at"]), ", ".join(words), Text(disarmed(one["note"]))
        )
    if len(found["versions"]) > _SHOWN_VERSIONS:
        table.add_row(Text(f"and {len(found['versions']) - _SHOWN_VERSIONS} older", "dim"))
    return table


def _log(entries: Sequence[dict[str, Any]]) -> Table:
    table = Table("when", "what", "version", "why", box=None, padding=(0, 2, 0, 0))
    for one in entries:
        table.add_row(_moment(one["at"]), Text(disarmed(one["what"])), one["version"], Text(disarmed(one["why"])))
    return table


def _noted(head: Text, note: str) -> Text:
    return head.append(f"  {disarmed(note)}", "dim") if note else head


def _value(value: Any) -> str:
    return "-" if value is None else disarmed(value if isinstance(value, str) else orjson.dumps(value).decode())


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _span(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
