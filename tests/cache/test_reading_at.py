"""An entry is read at the server that is listened to, and elsewhere where that can't be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from farthing.cache.reading_at import At, Server, read, read_many
from tests.fakes.valkey import ValkeyProcess


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        server.command("SET a 1")
        server.command("SET b 2")
        server.command("RPUSH list 3")
        yield server


@pytest.fixture
async def client(valkey: ValkeyProcess) -> AsyncIterator[Any]:
    client = Redis.from_url(valkey.url)
    yield client
    await client.aclose()


class Own:
    """The store's client, which has other answers. `asked`: for what."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, name: str) -> bytes:
        [found] = await self.many([name])
        return found

    async def many(self, names: Sequence[str]) -> list[Any]:
        self.asked += names
        return [f"own {name}".encode() for name in names]


async def test_that_server_is_asked_and_no_other(client: Any) -> None:
    own, at = Own(), At(Server(client))
    assert await read(own, "a", at) == b"1" and await read(own, "none", at) is None
    ats = [At(Server(client)), At(Server(client)), at]
    assert await read_many(own.many, ["b", "none", "a"], ats) == [b"2", None, b"1"]
    assert own.asked == [] and at.heard and all(one.heard for one in ats)


async def test_where_it_refuses_the_other_is_asked_for_that_one_alone(client: Any) -> None:
    own, server = Own(), Server(client)
    ats = [At(server), At(server), At(server)]
    assert await read_many(own.many, ["a", "list", "b"], ats) == [b"1", b"own list", b"2"]
    assert [at.heard for at in ats] == [True, False, True] and own.asked == ["list"]
    assert await read(own, "list", at := At(server)) == b"own list" and not at.heard


async def test_where_it_is_gone_or_left_or_not_to_be_asked_the_other_is() -> None:
    own, gone = Own(), Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=1)
    left = Server(gone, left=True)
    for at in (At(Server(gone)), At(left), At(heard=False)):
        assert await read(own, "a", at) == b"own a" and not at.heard
        assert await read_many(own.many, ["a"], [at]) == [b"own a"]
    assert await read(own, "a", None) == b"own a" and await read_many(own.many, ["a"], None) == [b"own a"]
    assert await read(own, "a", at := At()) == b"own a" and at.heard, "any will do"
    await gone.aclose()


async def test_leaving_waits_for_who_is_still_asking(valkey: ValkeyProcess) -> None:
    server = Server(Redis.from_url(valkey.url))
    with server.asked():
        leaving = asyncio.gather(server.leave())
        await asyncio.sleep(0.05)
        assert server.left and not leaving.done()
    await asyncio.wait_for(leaving, 5)
