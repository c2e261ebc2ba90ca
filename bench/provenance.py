"""What a figure needs beside it: the command that measured it, the machine, the day, and how busy the machine was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bench.machine import processor

__all__ = ["about", "measured_by"]


def about(command: str) -> dict[str, Any]:
    """For the figures that this command has just measured."""
    return {
        "command": command,
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "load_average": round(os.getloadavg()[1], 1),
        "date": datetime.now(UTC).date().isoformat(),
    }


def measured_by(figures: Sequence[dict[str, Any]]) -> str:
    """A sentence for each command, machine and day among figures that have `about` beside them."""
    marks: dict[tuple[str, str, str], list[float]] = {}
    for one in figures:
        marks.setdefault((one["command"], one["machine"], one["date"]), []).append(one["load_average"])
    return "\n".join(
        f"Measured by `{command}`, {machine}, {date}, at load averages of {min(loads):g} to {max(loads):g}."
        for (command, machine, date), loads in marks.items()
    )
