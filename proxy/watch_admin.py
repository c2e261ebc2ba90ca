"""What is watched, seen from outside: states and figures, and the operator's word that what is now is normal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from farthing.policies.watch_series import SERIES
from farthing.proxy.errors import ClientFault

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["rebase", "told"]


async def told(services: Services) -> dict[str, Any]:
    """All series with their states, bins and evidence; {"enabled": false} where nothing is watched."""
    watch = services.state.watch
    return {"enabled": False, "series": []} if watch is None else await asyncio.to_thread(watch.told)


async def rebase(services: Services, asked: dict[str, Any]) -> dict[str, Any]:
    """Learn references anew. `asked`: {"series": NAME, "slice": NAME}, each of them or neither. Raises ClientFault."""
    series, where = asked.get("series", ""), asked.get("slice", "")
    if unknown := set(asked) - {"series", "slice"}:
        raise ClientFault(f"unknown: {', '.join(sorted(unknown))}", param=min(unknown))
    if not isinstance(series, str) or (series and series not in SERIES and series != "topic_distance"):
        raise ClientFault(f"series must be one of {', '.join(SERIES)}, topic_distance", param="series")
    if not isinstance(where, str):
        raise ClientFault("slice must be a name as GET /farthing/api/watch shows it", param="slice")
    watch = services.state.watch
    count = 0 if watch is None else await asyncio.to_thread(watch.rebase, series, where)
    return {"rebased": count}
