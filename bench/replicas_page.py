"""What `bench.replicas` measured last (docs/replicas-start.json), as the table of docs/replicas.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.provenance import measured_by
from bench.report import replace_section, table

__all__ = ["KEPT", "PAGE", "kept", "of_sizes", "write"]

KEPT = Path(__file__).parents[1] / "docs" / "replicas-start.json"
PAGE = KEPT.with_name("replicas.md")
_COLUMNS = (
    *("entries", "scopes", "fetched, s", "taken over, s", "clock, s", "replica's memory, MB", "server's memory, MB"),
    *("a change: its writer, µs", "each follower, µs", "changes by the clock, s"),
)


def kept(found: Sequence[dict[str, Any]], path: Path = KEPT) -> list[dict[str, Any]]:
    """These in the file, by size; what it has of others stays. Gives all of them."""
    before = json.loads(path.read_text("utf-8")) if path.exists() else []
    known = {one["entries"]: one for one in (*before, *found)}
    lines = [known[entries] for entries in sorted(known)]
    path.write_text(json.dumps(lines, indent=1) + "\n", "utf-8")
    return lines


def of_sizes(figures: Sequence[dict[str, Any]]) -> str:
    """A row for each size, and how it was measured."""
    rows = [
        [
            f"{one['entries']:,}",
            f"{one['scopes']:,}",
            f"{one['fetching_cpu_s']:.2f}",
            f"{one['taking_cpu_s']:.2f}",
            f"{one['clock_s']:.1f}",
            f"{one['rss_bytes'] / 1e6:,.0f}",
            f"{one['server_bytes'] / 1e6:,.0f}",
            f"{one['write_cpu_us']:.0f}",
            f"{one['follow_cpu_us']:.0f}",
            f"{one['converged_clock_s']:.2f} for {one['changes']:,}",
        ]
        for one in figures
    ]
    return "\n".join([*table(list(_COLUMNS), rows), "", measured_by(figures)])


def write(figures: Sequence[dict[str, Any]], page: Path = PAGE) -> None:
    """The page's section anew. Raises ValueError: it has no place for it."""
    page.write_text(replace_section(page.read_text("utf-8"), "replicas", of_sizes(figures)), "utf-8")
