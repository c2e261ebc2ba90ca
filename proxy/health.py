"""How farthing is, for a person who looks at the dashboard: store, ledger, budget, stages that failed. No secrets."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from farthing.proxy.account import dollars
from farthing.proxy.errors import FarthingError

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["health"]


async def health(services: Services) -> dict[str, Any]:
    """As plain values; amounts are decimal texts of dollars, `limit_usd` None where nothing limits the day's spending.

    `stage_errors`: since farthing started. A store that can't be asked has `healthy` false and an `error`.
    """
    held, config, ledger = services.state, services.config, services.state.ledger
    try:
        stats = await held.store.stats()
        store: dict[str, Any] = asdict(stats)
    except FarthingError as error:
        store = {"healthy": False, "error": str(error)}
    limit = config.spend.daily_usd
    return {
        "store": store,
        "ledger": None
        if ledger is None
        else {"healthy": ledger.healthy, "pending_rows": ledger.pending, "dropped_rows": ledger.dropped},
        "budget": {
            "limit_usd": None if limit is None else str(limit),
            "spent_usd": dollars(held.total.read(held.clock.now_s())),
        },
        "stage_errors": dict(services.pipeline.stage_errors),
        "in_flight": services.admit.in_flight,
        "semantic_entries": services.thread.entries if services.thread else 0,
    }
