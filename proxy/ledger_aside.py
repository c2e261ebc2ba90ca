"""Damaged ledgers that were moved aside, and whether what they hold has been saved since.

A file counts until it has been salvaged, or somebody takes it away: figures and budgets lack its rows.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["aside", "mark_of", "mark_salvaged"]


def aside(ledger: Path) -> tuple[str, ...]:
    """Names of the damaged files beside `ledger` that nobody has salvaged, the oldest first. Raises nothing."""
    try:
        found = sorted(ledger.parent.glob(f"{ledger.stem}.corrupt-*{ledger.suffix}"))
        return tuple(each.name for each in found if not mark_of(each).exists())
    except OSError:
        return ()


def mark_salvaged(damaged: Path) -> None:
    """Remember that all that can be read of it was. Effects: an empty file beside it. Raises OSError."""
    mark_of(damaged).touch()


def mark_of(damaged: Path) -> Path:
    """The file that says so."""
    return damaged.with_name(f"{damaged.name}.salvaged")
