"""`farthing prices ...`. Model names are the clients' own words: they never reach the terminal as markup or escapes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from farthing.proxy.clock import SystemClock
from farthing.proxy.config import Config
from farthing.proxy.prices import RateCard
from farthing.proxy.report import disarmed
from farthing.proxy.row import LONGEST_NAME

__all__ = ["check", "show"]


def _card(config: Config) -> RateCard:
    return RateCard(config.prices.models, config.upstream.provider, config.upstream.url)


def show(config: Config, model: str, emit: Callable[[Any], None] | None, console: Console) -> int:
    """Print a model's price; status 1 where none is known."""
    found = _card(config).describe(model, SystemClock().now_s())
    if found is None:
        console.print(
            f"no price is known for {model!r}: its rows will have empty money fields.\n"
            f'Give it one in farthing.toml:\n\n[prices.models."{model}"]\ninput_usd_per_mtok = 1.0\n'
            "output_usd_per_mtok = 4.0",
            markup=False,
        )
        return 1
    if emit is not None:
        emit(found)
        return 0
    rows = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in found.items():
        rows.add_row(Text(name.replace("_", " "), style="dim"), Text(disarmed(str(value))))
    console.print(rows)
    return 0


def check(config: Config, console: Console) -> int:
    """Print which models of the ledger have no price; status 1 where there are any, 3 without a ledger."""
    path = config.state_dir / "ledger.db"
    if not path.exists():
        console.print(f"there is no ledger at {path} yet", markup=False)
        return 3
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        models = [
            row[0]
            for row in ledger.execute(
                f"select substr(model_requested, 1, {LONGEST_NAME}) from requests where model_requested != '' "
                f"union select substr(model_served, 1, {LONGEST_NAME}) from requests where model_served != ''"
            )
        ]
    card, now_s = _card(config), SystemClock().now_s()
    rows = Table("model", "price")
    missing = 0
    for model in sorted(models):
        known = card.describe(model, now_s)
        missing += known is None
        price = Text("none", style="red") if known is None else Text(disarmed(str(known.get("source", "known"))))
        rows.add_row(Text(disarmed(model)), price)
    console.print(rows)
    return 1 if missing else 0
