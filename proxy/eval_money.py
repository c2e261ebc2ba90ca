"""What an arm's own ledger says that its cases cost."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

__all__ = ["costs_of"]


def costs_of(path: Path, errands: Collection[str]) -> tuple[dict[str, int | None], int]:
    """Each row's cost in pico-dollars (None: unknown price) by its id, and what all of `errands` cost together."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as conn:
        rows = conn.execute("select id, endpoint, cost_usd, overhead_usd from requests").fetchall()
    costs = {id: None if cost is None else cost + (own or 0) for id, name, cost, own in rows if name not in errands}
    return costs, sum((cost or 0) + (own or 0) for _, name, cost, own in rows if name in errands)
