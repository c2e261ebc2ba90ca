"""Which servers tell of the shared store's changes, and whether they are still those that have the keys.

One server, or the primary that sentinels name, is asked for itself. Of a cluster every primary is listened to, and at
each sign of life every one of them must say the same of who has which keys, and that none of those is down. So the
rest can't have put a replica in the place of one that is cut off from them: a primary votes for that only while it
holds the old one to be down (Valkey, "Cluster specification", replica election). One who can't be asked, or says
something else, makes memory useless until all agree.

Rules of this file: the answer of `still` counts from the moment it was asked; a reading is told where to go by what
all agreed on last, and goes nowhere while they don't.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from farthing.cache.cluster_nodes import SLOTS, View, endpoints, view_of
from farthing.cache.reading_at import At, Server
from farthing.cache.redis_client import is_cluster, nodes_of, open_way, still_primary

__all__ = ["Listened", "listened", "together"]

T = TypeVar("T")

_ANSWER_S = 2.0


class Listened(Protocol):
    """The servers behind a URL."""

    def found(self) -> AbstractAsyncContextManager[Sequence[Server]]:
        """Those to listen to now, for as long as they are. Raises what redis-py raises, or OSError."""
        ...

    async def still(self, links: Sequence[Any]) -> bool:
        """Whether they are, as the last time, those that have the keys. False: all may have changed, or they don't
        agree; it may be true the next time. `links`: connections to them. Raises as `found`: look for them anew."""
        ...

    def at(self, name: str) -> At:
        """Where the entry of that name is to be read now."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


def listened(url: str) -> Listened:
    """Those behind this URL. Raises ConfigFault: it can't be read."""
    return _Cluster(url) if is_cluster(url) else _One(url)


async def together(*ways: Coroutine[Any, Any, T]) -> list[T]:
    """All at once; where one fails the others are ended, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(way) for way in ways]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


class _One:
    """One server, or the primary that sentinels name."""

    def __init__(self, url: str) -> None:
        self._client, self._hang_up = open_way(url, 1, answer_s=_ANSWER_S, protocol=2)

    @asynccontextmanager
    async def found(self) -> AsyncIterator[Sequence[Server]]:
        """Listened.found."""
        yield [Server(self._client)]

    async def still(self, links: Sequence[Any]) -> bool:
        """Listened.still: whether the sentinels, where there are some, still name it."""
        for link in links:
            if not await still_primary(self._client, link):
                raise OSError("another server is primary now")
        return True

    def at(self, name: str) -> At:
        """Listened.at: the store's connections go to the same server (`moved` in tracking.py)."""
        return At()

    async def close(self) -> None:
        """Listened.close."""
        await self._hang_up()


class _Cluster:
    """Every primary of a cluster."""

    def __init__(self, url: str) -> None:
        self._nodes = nodes_of(url, answer_s=_ANSWER_S, protocol=2)
        self._known = list(self._nodes.places)
        self._servers: dict[str, Server] = {}
        self._view: View | None = None
        self._by_slot: list[Server | None] = []  # empty: they don't agree

    @asynccontextmanager
    async def found(self) -> AsyncIterator[Sequence[Server]]:
        """Listened.found: the primaries that most of those who answer name."""
        said = [view for view in await self._asked() if any(slots for _, slots in view.dealt)]  # not one by itself
        if not said:
            raise OSError("the cluster has no primary")
        counts = Counter((view.dealt, view.sound) for view in said)
        most = counts.most_common(1)[0][0]
        view = next(view for view in said if (view.dealt, view.sound) == most)
        self._known = [*dict.fromkeys([*self._nodes.places, *view.places.values()])]
        self._view, self._by_slot = view, []
        self._servers = {id: Server(self._nodes.open(*view.places[id])) for id in sorted(view.primaries)}
        try:
            yield list(self._servers.values())
        finally:
            servers, self._servers, self._by_slot = self._servers, {}, []
            for server in servers.values():
                server.left = True
            await asyncio.gather(*(server.leave() for server in servers.values()), return_exceptions=True)

    async def still(self, links: Sequence[Any]) -> bool:
        """Listened.still: whether every primary says what all said the last time."""
        said = await together(*(self._seen(server) for server in self._servers.values()))
        for id, view in zip(self._servers, said, strict=True):
            if view.me != id:
                raise OSError("another node is at a node's address")
        first = said[0]
        if not all(view.sound and view.dealt == first.dealt for view in said):
            self._by_slot = []
            return False
        if first.primaries != self._servers.keys():
            raise OSError("the cluster has other primaries now")
        same = self._view is not None and first.dealt == self._view.dealt
        if not (same and self._by_slot):
            self._view, self._by_slot = first, self._table(first)
        return same

    def at(self, name: str) -> At:
        """Listened.at."""
        from redis.crc import key_slot

        server = self._by_slot[key_slot(name.encode())] if self._by_slot else None
        return At(server, heard=server is not None)

    async def close(self) -> None:
        """Listened.close: nothing is open beyond `found`."""

    def _table(self, view: View) -> list[Server | None]:
        table: list[Server | None] = [None] * SLOTS
        for id, ranges in view.dealt:
            for first, last in ranges:
                table[first : last + 1] = [self._servers[id]] * (last + 1 - first)
        return table

    async def _asked(self) -> list[View]:
        """What the nodes that are known say, as far as they answer. Raises what one of them raises if none does."""
        said = await asyncio.gather(*(self._placed(*place) for place in self._known), return_exceptions=True)
        found = [one for one in said if isinstance(one, View)]
        if not found:
            raise next(one for one in said if isinstance(one, BaseException))
        return found

    async def _placed(self, host: str, port: int) -> View:
        """What the node at this address says, with everyone's address as clients have it."""
        server = Server(self._nodes.open(host, port))
        try:
            view = await self._seen(server)
            said = await server.client.execute_command("CLUSTER", "SLOTS")
        finally:
            await server.client.aclose()
        try:
            places = {**view.places, **endpoints(said)}
        except ValueError as error:
            raise OSError(f"CLUSTER SLOTS: {error}") from None
        return replace(view, places={id: (places[id][0] or host, places[id][1]) for id in view.primaries})

    async def _seen(self, server: Server) -> View:
        with server.asked() as client:
            said = await client.execute_command("CLUSTER", "NODES")  # two words: redis-py leaves the answer as it is
        try:
            return view_of(said.decode())
        except ValueError as error:
            raise OSError(f"CLUSTER NODES: {error}") from None
