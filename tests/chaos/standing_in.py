"""The faults of servers that stand in for each other: a primary with sentinels, a Valkey cluster.

Each fault lasts until another server has taken over, which is theirs to do and takes as long as they are configured to
wait (half a second to call a primary down, one for a node); how long it took is noted. Recovery is farthing's part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.chaos.places import Cluster
from tests.chaos.scene import Fault, On, Setting
from tests.fakes.valkey_many import ValkeyCluster, WatchedValkey

__all__ = ["STANDING_IN"]

_PLAIN = "answers come from the upstream until another takes over; none fails"


def _watched(home: Path) -> Cluster[WatchedValkey]:
    return Cluster(home, WatchedValkey())


def _cluster(home: Path, *, replicas: bool) -> Cluster[ValkeyCluster]:
    return Cluster(home, ValkeyCluster(replicas=replicas))


async def _primary_killed(scene: On[Cluster[WatchedValkey]]) -> None:
    """Its replica is made primary; then the old one comes back, empty, and is made a replica."""
    watched = scene.on.valkey
    old = watched.primary
    old.kill()
    await _taken_over(scene, partial(watched.await_other, old))
    await asyncio.to_thread(old.start)


async def _primary_stopped(scene: On[Cluster[WatchedValkey]]) -> None:
    """It is stopped for as long as another takes over; when it goes on it believes that it is primary still."""
    watched = scene.on.valkey
    old = watched.primary
    old.freeze()
    try:
        await _taken_over(scene, partial(watched.await_other, old))
    finally:
        old.thaw()


async def _node_killed(scene: On[Cluster[ValkeyCluster]]) -> None:
    cluster = scene.on.valkey
    node = cluster.nodes[0]
    node.kill()
    await _taken_over(scene, partial(cluster.await_whole, node))
    await asyncio.to_thread(node.start)


async def _lone_node_killed(scene: On[Cluster[ValkeyCluster]]) -> None:
    """Nobody takes over: without it the cluster is down, until it is back, empty."""
    node = scene.on.valkey.nodes[0]
    node.kill()
    await scene.hold()
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(scene.on.valkey.await_whole)


async def _taken_over(scene: On[Cluster[WatchedValkey]] | On[Cluster[ValkeyCluster]], wait: Callable[[], None]) -> None:
    began = time.monotonic()
    await asyncio.to_thread(wait)
    scene.notes["taken_over_after_s"] = round(time.monotonic() - began, 2)


STANDING_IN = (
    Setting(Fault("a primary behind sentinels killed: its replica takes over", _PLAIN, _primary_killed), _watched),
    Setting(Fault("a primary behind sentinels stopped: its replica takes over", _PLAIN, _primary_stopped), _watched),
    Setting(
        Fault("a node of a Valkey cluster killed: its replica takes over", _PLAIN, _node_killed),
        partial(_cluster, replicas=True),
    ),
    Setting(
        Fault(
            "a node of a Valkey cluster killed that has no replica",
            "answers come from the upstream until it is back; none fails",
            _lone_node_killed,
            hold_s=2,
        ),
        partial(_cluster, replicas=False),
    ),
)
