"""`farthing prices ...`. Model names are the clients' own words: they never reach the terminal as markup or escapes."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from farthing.proxy.clock import SystemClock
from farthing.proxy.config import Config
from farthing.proxy.config_prices import Hosted
from farthing.proxy.errors import ConfigFault
from farthing.proxy.figures import farthing_since, open_ledger
from farthing.proxy.price_check import Lacks, LedgerPrice, lacking, measured, priced_rows
from farthing.proxy.price_rows import PriceRow
from farthing.proxy.rate_cards import card_of
from farthing.proxy.recompute import Again, Verdict, recompute
from farthing.proxy.report import disarmed
from farthing.proxy.report_text import counted

__all__ = ["check", "recomputed", "show"]

Emit = Callable[[Any], None] | None

_SHOWN = 20
_MEASURED_OVER_S = 7 * 86_400


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(open_ledger(path)) as ledger:
            yield ledger
    except sqlite3.Error as error:
        raise ConfigFault(f"can't read the ledger {path}: {error}") from None


def show(config: Config, model: str, emit: Emit, console: Console) -> int:
    """Print a model's price rows; status 1 where no price is known today."""
    now_s, card = SystemClock().now_s(), card_of(config)
    found, rows = card.describe(model, now_s), card.rows(model)
    hosted = _hosted(config, model, now_s)
    if emit is not None and found is not None:
        emit(found | {"rows": [row.to_json() for row in rows]} | ({"hosted": hosted} if hosted else {}))
        return 0
    if found is None:
        console.print(
            f"no price is known for {model!r}: its rows will have empty money fields.\n"
            f'Give it one in farthing.toml:\n\n[prices.models."{model}"]\ninput_usd_per_mtok = 1.0\n'
            "output_usd_per_mtok = 4.0",
            markup=False,
        )
        return 1
    console.print(_facts(found))
    console.print(_rows(rows, now_s))
    if hosted:
        console.print(_facts(hosted))
    return 0


def _facts(values: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in values.items():
        table.add_row(Text(name.replace("_", " "), style="dim"), Text(disarmed(str(value))))
    return table


def _rows(rows: Iterable[PriceRow], now_s: float) -> Table:
    """Every row; those that aren't in force today are dim."""
    from datetime import UTC, datetime

    now = datetime.fromtimestamp(now_s, UTC)
    table = Table(
        "unit", "in/out", "of", "cache", "past tokens", "tier", "valid", title="all rows", title_justify="left"
    )
    table.add_column("$ per million", justify="right")
    table.add_column("source")
    for row in rows:
        kind = row.kind
        valid = str(row.valid_from) if row.valid_from else ""
        valid += f" to {row.valid_until}" if row.valid_until else ""
        valid += f" {row.hours[0]:%H:%M}-{row.hours[1]:%H:%M} UTC" if row.hours else ""
        cells = [kind.unit, kind.direction, kind.modality, f"{kind.cache} {kind.ttl}".strip()]
        cells += [f"{row.past:,}" if row.past else "", row.tier or "standard", valid.strip() or "always"]
        cells += [f"{row.usd:f}", row.source]
        table.add_row(*(Text(disarmed(cell)) for cell in cells), style=None if row.holds(now) else "dim")
    return table


def _hosted(config: Config, model: str, now_s: float) -> dict[str, Any] | None:
    """What a model on own machines costs at full load, on the average, and as the ledger of seven days saw it."""
    price = config.prices.models.get(model)
    hosted = None if price is None else price.hosted
    if hosted is None:
        return None
    peak, average = hosted.costs(peak=True), hosted.costs()
    found = {
        "at_full_load": f"${peak['fresh']:f} per million tokens read, ${peak['output']:f} made",
        "on_the_average": f"${average['fresh']:f} and ${average['output']:f}, busy {hosted.busy:f} of the paid time",
        "charged": "the average",
    }
    return found | _seen(config, model, hosted, now_s)


def _seen(config: Config, model: str, hosted: Hosted, now_s: float) -> dict[str, Any]:
    path = config.state_dir / "ledger.db"
    if not path.exists():
        return {}
    with closing(open_ledger(path)) as ledger:
        seen = measured(ledger, model, hosted, now_s - _MEASURED_OVER_S, now_s)
    if seen is None:
        return {"in_the_ledger": "not used in seven days"}
    busy = seen.busy.quantize(Decimal("0.0001"))
    return {
        "in_the_ledger": f"busy {busy:f} of the paid time since its first request in seven days; the machines cost "
        f"${seen.usd_per_mtok.quantize(Decimal('0.0001')):f} for each million tokens read and made",
        "measured_busy": f"{busy:f}",
    }


def check(config: Config, console: Console, emit: Emit = None, model: str | None = None) -> int:
    """Print what the ledger's models lack; status 1 where anything is without a price, 3 without a ledger."""
    path = config.state_dir / "ledger.db"
    if not path.exists():
        console.print(f"there is no ledger at {path} yet", markup=False)
        return 3
    with _reading(path) as ledger:
        found = lacking(ledger, card_of(config), SystemClock().now_s(), model)
    if emit is not None:
        emit([lacks.to_json() for lacks in found])
    else:
        table = Table("model", "requests", "price", "lacks")
        for lacks in found:
            price = Text("none", style="red") if lacks.source is None else Text(disarmed(lacks.source))
            table.add_row(Text(disarmed(lacks.model)), f"{lacks.requests:,}", price, Text(disarmed(_said(lacks))))
        console.print(table)
    return 0 if all(lacks.complete for lacks in found) else 1


def _said(lacks: Lacks) -> str:
    said = [f"tier {tier!r} ({counted(count, 'request')})" for tier, count in lacks.tiers.items()]
    said += [f"{part} ({count:,})" for part, count in lacks.parts.items()]
    said += [f"{counted(lacks.unpriced, 'request')} without a price in the ledger"] if lacks.unpriced else []
    said += [f"{part} has no rate of its own: priced as fresh input" for part in lacks.as_fresh]
    return "; ".join(said)


def recomputed(config: Config, since: str, emit: Emit, console: Console) -> int:
    """Price the ledger's rows again. Status 1 where a row that nothing was estimated in comes to another amount by the
    same source, or can't be read; 3 without a ledger."""
    path, now_s, card = config.state_dir / "ledger.db", SystemClock().now_s(), card_of(config)
    try:
        since_s = farthing_since(since, now_s)
    except ValueError as error:
        raise ConfigFault(f"--since: {error}") from None
    if not path.exists():
        console.print(f"there is no ledger at {path} yet", markup=False)
        return 3
    counts: Counter[Verdict] = Counter()
    then: Counter[Verdict] = Counter()
    now: Counter[Verdict] = Counter()
    examples: list[tuple[LedgerPrice, Again]] = []
    with _reading(path) as ledger:
        for row in _told(ledger, since_s, console, quiet=emit is not None):
            again = recompute(row, card)
            counts[again.verdict] += 1
            then[again.verdict] += again.then or 0
            now[again.verdict] += again.now or 0
            if again.verdict not in (Verdict.SAME, Verdict.UNPRICED) and len(examples) < _SHOWN:
                examples.append((row, again))
    failed = bool(counts[Verdict.DIFFERS] or counts[Verdict.UNREADABLE])
    if emit is not None:
        emit(
            {
                "since": since,
                "same": not failed,
                "rows": {
                    verdict.value: {"rows": count, "then_usd": _usd(then[verdict]), "now_usd": _usd(now[verdict])}
                    for verdict, count in counts.items()
                },
                "examples": [_example(row, again) for row, again in examples],
            }
        )
        return int(failed)
    table = Table("", "rows", "then, $", "now, $")
    for verdict in Verdict:
        if counts[verdict]:
            table.add_row(verdict.value, f"{counts[verdict]:,}", _usd(then[verdict]), _usd(now[verdict]))
    console.print(table)
    if examples:
        shown = Table("row", "model", "then, $", "now, $", "", title=f"the first {len(examples)}", title_justify="left")
        for row, again in examples:
            cells = _example(row, again)
            shown.add_row(*(Text(disarmed(str(cells[name]))) for name in ("id", "model", "then_usd", "now_usd", "why")))
        console.print(shown)
    console.print("the ledger does not come to the same amounts" if failed else "the ledger comes to the same amounts")
    return int(failed)


def _told(ledger: sqlite3.Connection, since_s: float, console: Console, *, quiet: bool) -> Iterable[LedgerPrice]:
    """The rows, with progress on a terminal."""
    rows = priced_rows(ledger, since_s)
    if quiet or not console.is_terminal:
        return rows
    (count,) = ledger.execute("select count(*) from requests where ts >= ?", (since_s,)).fetchone()
    return track(rows, "pricing", total=count, console=console, transient=True)


def _example(row: LedgerPrice, again: Again) -> dict[str, Any]:
    why = again.verdict.value
    return {
        "id": row.id,
        "ts": row.ts,
        "model": row.model_served or row.model_requested,
        "then_usd": None if again.then is None else _usd(again.then),
        "now_usd": None if again.now is None else _usd(again.now),
        "source_then": row.price_source,
        "source_now": again.source,
        "why": f"{why}: {row.price_source} -> {again.source}" if again.verdict is Verdict.OTHER_SOURCE else why,
    }


def _usd(pico: int) -> str:
    return f"{Decimal(pico).scaleb(-12):f}"
