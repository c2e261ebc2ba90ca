"""`farthing experiment list` on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from farthing.proxy.experiment_text import moment
from farthing.proxy.report_text import disarmed

__all__ = ["overview"]

_COLOURS = {"running": "yellow", "decided": "green", "guardrail": "red", "broken": "red"}


def overview(found: dict[str, Any]) -> RenderableType:
    """Everything that `GET /farthing/api/experiments` says, a line each."""
    parts: list[RenderableType] = []
    if found["experiments"]:
        table = Table(
            "experiment", "state", "since", "arms", "units", "what may be said", box=None, padding=(0, 2, 0, 0)
        )
        for one in found["experiments"]:
            units = (one["reading"] or {}).get("shares", {}).get("units", {})
            arms = "\n".join(f"{arm['name']} {arm['share']:.1%}" for arm in one["arms"])
            counts = "\n".join(f"{units.get(arm['name'], 0):,}" for arm in one["arms"])
            state = Text(one["state"], _COLOURS.get(one["state"], "dim"))
            name, said = Text(one["name"], "bold"), Text(disarmed(one["headline"]))  # its brackets are no markup
            table.add_row(name, state, moment(one["since_s"]), Text(arms), counts, said)
        table.columns[4].justify = "right"
        parts.append(table)
    else:
        parts.append(Text("no experiment was ever begun here; declare one under [[experiments]]"))
    parts += [Text(f"{name} doesn't run: {disarmed(why)}", "dim") for name, why in found["waiting"].items()]
    return Group(*parts)
