"""Loading the ranks by which tokens are counted before the first answer needs them.

Whose upstream leaves usage out, or whose prompts are made shorter, needs them with the first such answer after each
start, and the answer's row waits for them, half a second in which a killed process loses it; for a part of it Python's
lock is held, so that no request goes on. The ledger's last rows say whose that is: others don't pay for it, in memory
or processor time.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import UsageSource

__all__ = ["warm"]

_LAST_ROWS = 1_000


def warm(tokenizer: Tokenizer, ledger: Path) -> None:
    """Load the ranks of models whose answers or prompts were counted lately; none without a ledger that can be read.

    Blocks.
    """
    for model in _counted(ledger):
        if not tokenizer.ready(model):
            tokenizer.count("farthing", model)


def _counted(ledger: Path) -> list[str]:
    if not ledger.is_file():
        return []
    query = (
        "select distinct model_requested from "
        "(select model_requested, usage_source, compress from requests order by rowid desc limit ?) "
        "where usage_source = ? or compress <> ''"
    )
    try:
        with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as conn:
            return [model for (model,) in conn.execute(query, (_LAST_ROWS, UsageSource.COUNTED._value_))]
    except sqlite3.Error:
        return []
