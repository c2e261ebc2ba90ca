"""What a worker has counted, told to the supervisor now and then, so that its death doesn't take it along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farthing.proxy.every import Every
from farthing.proxy.metrics import Metrics, rendered
from farthing.proxy.metrics_merge import merged

if TYPE_CHECKING:
    from farthing.proxy.peers import Peers
    from farthing.proxy.tasks import TaskGroup

__all__ = ["of_all", "push"]

_EVERY_S = 1.0
_WITHIN_S = 1.0


def push(metrics: Metrics, peers: Peers, tasks: TaskGroup) -> Every:
    """Tell it every second in which something was counted, and whenever another worker is asked for metrics."""
    told = -1

    async def tell(_: object) -> None:
        peers.counted(metrics.families())

    async def look() -> None:
        nonlocal told
        if metrics.rows != told:
            told = metrics.rows
            peers.counted(metrics.families())

    peers.when_asked("metrics", tell)
    return Every(_EVERY_S, tasks, look, "push metrics")


async def of_all(metrics: Metrics, peers: Peers, *, keeper: bool) -> bytes:
    """The metrics of all workers, in Prometheus' text format. One that doesn't answer within a second stands with what
    it told last."""
    own = metrics.families()
    found = await peers.ask("metrics", None, to="others", within_s=_WITHIN_S, counted=own)
    others = [(slot == 0, families) for slot, families in found.counted]
    return rendered(merged(own, others, [found.dead or {}], keeper=keeper))
