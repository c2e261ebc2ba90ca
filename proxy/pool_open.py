"""Opens the pool of one upstream, and asks its replicas now and then whether they are well.

A probe is a GET of `health_path` on a connection of its own, so that it tells of the server and not of our queue for
it; 2xx is well. It carries no key and no Cookie, and its body is not read.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from farthing.policies.circuit import Circuit, CircuitRules
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config_upstream import Upstream
from farthing.proxy.connections import Connections, Spawn
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.header_facts import Lines
from farthing.proxy.pool import Pool, Replica
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.under_way import Counts
from farthing.proxy.wire import host_of

__all__ = ["Probes", "open_pool"]

_LEAST_TIMEOUT_S = 1.0  # a server that reads a long prompt may be slow to say that it is well


def open_pool(
    upstream: Upstream,
    *,
    spawn: Spawn,
    clock: Clock,
    randomness: Randomness,
    old: tuple[Upstream, Pool] | None = None,
    counts: Counts | None = None,
) -> Pool:
    """The pool for `upstream`. `old`: the one before and its configuration; a replica that is in both is used on, with
    its connections and what is known of it. `counts`: of what is under way; a book of its own without.

    Raises ConfigFault: more replicas than several workers can count."""
    counts = counts or Counts()
    rules = CircuitRules(upstream.failures_to_open, upstream.breaker_pause_s)
    known = {} if old is None or not _alike(old[0], upstream) else {replica.url: replica for replica in old[1].replicas}
    replicas = []
    for name, url in zip(_names(upstream.bases), upstream.bases, strict=True):
        replica = known.get(url)
        if replica is None:
            connections = Connections(
                url,
                connect_timeout_s=upstream.connect_timeout_s,
                limit=upstream.max_connections,
                spawn=spawn,
                clock=clock,
            )
            under_way = counts.at(f"{upstream.name} {url}")
            replica = Replica(name, url, urlsplit(url).path, connections, None, under_way=under_way)
        replica.name = name
        if replica.circuit is None or replica.circuit.rules != rules:
            replica.circuit = Circuit(rules) if rules.failures else None
        if not upstream.health_path:
            replica.healthy = True  # nobody would find out that it is well again
        replicas.append(replica)
    return Pool(
        upstream.name,
        replicas,
        upstream.keys,
        balance=upstream.balance,
        max_in_flight=upstream.max_in_flight,
        clock=clock,
        randomness=randomness,
    )


def _alike(one: Upstream, other: Upstream) -> bool:
    """Whether connections of one are what the other wants."""
    return (one.connect_timeout_s, one.max_connections) == (other.connect_timeout_s, other.max_connections)


def _names(urls: tuple[str, ...]) -> list[str]:
    """Host and port where that tells them apart, else with the path. Never a password."""
    hosts = [host_of(url) for url in urls]
    both = zip(hosts, urls, strict=True)
    return [host if hosts.count(host) == 1 else host + urlsplit(url).path for host, url in both]


class Probes:
    """Asks each replica of a pool every `health_every_s`, from `start` to `stop`; none without `health_path`.

    `upstream`: whose pool it is.
    """

    def __init__(self, upstream: Upstream, pool: Pool, clock: Clock) -> None:
        self.upstream, self._pool, self._clock = upstream, pool, clock
        self._tasks = TaskGroup()

    def start(self) -> None:
        """Ask from now on."""
        if self.upstream.health_path and not len(self._tasks):
            for replica in self._pool.replicas:
                self._tasks.spawn(self._watch(replica), f"probe {replica.name}")

    async def stop(self) -> None:
        """No more of them."""
        await self._tasks.drain(0)

    async def _watch(self, replica: Replica) -> None:
        upstream, clock = self.upstream, self._clock
        timeout_s = min(upstream.connect_timeout_s, max(_LEAST_TIMEOUT_S, upstream.health_every_s))
        connections = Connections(
            replica.url, connect_timeout_s=timeout_s, limit=0, spawn=self._tasks.spawn, clock=clock
        )
        while True:
            well = await _well(connections, upstream.health_path, timeout_s)
            replica.probed(well=well, tick_s=clock.tick_s())
            await asyncio.sleep(upstream.health_every_s)


async def _well(connections: Connections, path: str, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            answer = await connections.send("GET", path, Lines([("User-Agent", "farthing-probe")]), None)
    except (UpstreamFault, TimeoutError):
        return False
    answer.close()
    connections.done(answer)
    return 200 <= answer.status < 300
