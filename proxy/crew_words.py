"""What workers that aren't the keeper see, and the keeper must know of: told to it as it happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from farthing.proxy.implicit_rows import Nearest
from farthing.proxy.outcomes import Change, Outcomes

if TYPE_CHECKING:
    from farthing.proxy.crew import Crew
    from farthing.proxy.peers import Peers

__all__ = ["nearest_of", "share_outcomes"]


class _Told(Nearest):
    """Nothing is remembered here: the row is the keeper's to look at."""

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self._peers = peers

    def note(self, exchange_id: str, entry_key: str) -> None:
        """Nearest.note."""
        self._peers.tell("nearest", [exchange_id, entry_key], to="keeper")


def nearest_of(crew: Crew | None) -> Nearest:
    """Which stored answers requests were nearest to: of all workers, where this is the keeper."""
    if crew is not None and not crew.keeper:
        return _Told(crew.peers)
    found = Nearest()
    if crew is not None:
        crew.peers.when_told("nearest", lambda said: found.note(*said))
    return found


def share_outcomes(outcomes: Outcomes, crew: Crew) -> None:
    """Let the keeper's listeners hear what others put into the file that all of them have."""
    if crew.keeper:

        def hear(said: list[tuple[str, str, list[float], list[float]]]) -> None:
            changes = [Change(id, metric, tuple(before), tuple(after)) for id, metric, before, after in said]
            for listener in tuple(outcomes.listeners):
                listener(changes)

        crew.peers.when_told("outcomes", hear)
        return
    loop = asyncio.get_running_loop()

    def tell(changes: list[Change]) -> None:
        loop.call_soon_threadsafe(crew.peers.tell, "outcomes", [list(one) for one in changes])

    outcomes.listeners.append(tell)
