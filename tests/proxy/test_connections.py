"""The pool: connections are used again, bounded, opened in time, and never shared by two exchanges."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.clock import FakeClock
from farthing.proxy.connections import Connections
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.header_facts import Lines
from farthing.proxy.http1 import Connection
from farthing.proxy.tasks import TaskGroup

CERTIFICATE = Path(__file__).parent.parent / "fakes" / "localhost.pem"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next of `answers`, the last one again and again."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.connections = 0
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                if b"chunked" in head.lower():
                    while not body.endswith(b"0\r\n\r\n"):
                        body += (await reader.read(1000)) or b"it broke off: 0\r\n\r\n"
                elif b"content-length: " in head.lower():
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    body = await reader.readexactly(length)
                self.requests.append(head + body)
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def serving(*answers: bytes, tls: bool = False) -> AsyncIterator[Server]:
    made = Server(list(answers) or [OK])
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
        for writer in made.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def pool(clock: FakeClock) -> AsyncIterator[Callable[..., Connections]]:
    made: list[Connections] = []
    tasks = TaskGroup()

    def make(url: str, **more: Any) -> Connections:
        settings: dict[str, Any] = {"connect_timeout_s": 1.0, "limit": 0, "spawn": tasks.spawn, "clock": clock}
        made.append(Connections(url, **(settings | more)))
        return made[-1]

    yield make
    for each in made:
        each.close()
    await tasks.drain(1)


async def whole(pool: Connections, body: Any = None, method: str = "GET", **headers: str) -> bytes:
    connection = await pool.send(method, "/v1/x", Lines(list(headers.items())), body)
    said = await rest(connection)
    pool.done(connection)
    return said


async def rest(connection: Connection) -> bytes:
    said = b""
    while chunk := await connection.read():
        said += chunk
    return said


async def test_a_connection_is_used_again_and_one_that_grew_old_is_not(
    pool: Callable[..., Connections], clock: FakeClock
) -> None:
    async with serving() as server:
        mine = pool(f"http://127.0.0.1:{server.port}/v1")
        assert [await whole(mine) for _ in range(3)] == [b"ok"] * 3
        assert server.connections == 1
        clock.advance(16)
        await whole(mine)
        assert server.connections == 2


async def test_one_that_the_server_closed_is_not_used_again(pool: Callable[..., Connections]) -> None:
    async with serving() as server:
        mine = pool(f"http://127.0.0.1:{server.port}/v1")
        await whole(mine)
        server.writers[0].close()
        await asyncio.sleep(0.05)
        assert await whole(mine) == b"ok"
        assert server.connections == 2


async def test_a_get_that_meets_a_closing_connection_is_sent_once_more(pool: Callable[..., Connections]) -> None:
    seen = []

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request on each connection, and hangs up when the second one comes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hasty, "127.0.0.1", 0) as listening:
        mine = pool(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
        assert [await whole(mine) for _ in range(4)] == [b"ok"] * 4
        with pytest.raises(UpstreamFault, match="broke off"):
            await whole(mine, b"", "POST")  # it may have been carried out
        await whole(mine)
        assert await whole(mine, b"", "POST", **{"Idempotency-Key": "k"}) == b"ok"
        allowed = await mine.send("POST", "/v1/x", Lines([]), b"", again=True)
        assert await rest(allowed) == b"ok"
        mine.done(allowed)
        mine.close()
        await asyncio.sleep(0.05)
    assert len(seen) == 7


async def test_two_exchanges_never_share_one(pool: Callable[..., Connections]) -> None:
    async with serving() as server:
        mine = pool(f"http://127.0.0.1:{server.port}/v1")
        first = await mine.send("GET", "/v1/x", Lines([]), None)
        assert await whole(mine) == b"ok"
        assert server.connections == 2
        assert await rest(first) == b"ok"
        mine.done(first)


async def test_a_limit_makes_the_next_one_wait(pool: Callable[..., Connections]) -> None:
    async with serving() as server:
        mine = pool(f"http://127.0.0.1:{server.port}/v1", limit=1)
        first = await mine.send("GET", "/v1/x", Lines([]), None)
        waiting = asyncio.get_running_loop().create_task(whole(mine))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await rest(first)
        mine.done(first)
        assert await waiting == b"ok"
        assert server.connections == 1


async def test_an_answer_left_unread_costs_its_connection_only(pool: Callable[..., Connections]) -> None:
    async with serving() as server:
        mine = pool(f"http://127.0.0.1:{server.port}/v1", limit=1)
        first = await mine.send("GET", "/v1/x", Lines([]), None)
        first.close()
        mine.done(first)
        assert await whole(mine) == b"ok"
        assert server.connections == 2


async def test_how_bodies_are_framed(pool: Callable[..., Connections]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b""
        yield b"two"

    async with serving() as server:
        mine = pool(f"http://127.0.0.1:{server.port}/v1")
        await whole(mine, b"body", "POST", **{"Content-Type": "text/x"})
        await whole(mine, pieces(), "POST")
        await whole(mine, pieces(), "POST", **{"Content-Length": "6"})
        await whole(mine, None, "POST")
        await whole(mine)

    host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    assert server.requests == [
        b"POST /v1/x HTTP/1.1\r\n" + host + b"Content-Length: 4\r\nContent-Type: text/x\r\n\r\nbody",
        b"POST /v1/x HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
        b"POST /v1/x HTTP/1.1\r\n" + host + b"Content-Length: 6\r\n\r\nonetwo",
        b"POST /v1/x HTTP/1.1\r\n" + host + b"Content-Length: 0\r\n\r\n",
        b"GET /v1/x HTTP/1.1\r\n" + host + b"\r\n",
    ]


async def test_a_body_that_breaks_off_fails_the_exchange(pool: Callable[..., Connections]) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("the client left")

    async with serving() as server:
        mine = pool(f"http://127.0.0.1:{server.port}/v1")
        with pytest.raises(UpstreamFault, match="body broke off"):
            await whole(mine, broken(), "POST")
        assert await whole(mine) == b"ok"


async def test_an_early_answer_ends_the_upload(pool: Callable[..., Connections]) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(60)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listening:
        mine = pool(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
        connection = await mine.send("POST", "/v1/x", Lines([]), endless())
        assert (connection.status, await rest(connection)) == (413, b"no")
        mine.done(connection)
        assert not connection.open
        await asyncio.sleep(0.05)


async def test_nobody_there_is_told_with_the_place(pool: Callable[..., Connections]) -> None:
    with pytest.raises(UpstreamFault, match=r"127\.0\.0\.1:9") as caught:
        await whole(pool("http://127.0.0.1:9/v1"))
    assert (caught.value.phase, caught.value.sent) == ("connect", False)


async def test_a_name_that_nobody_knows(pool: Callable[..., Connections]) -> None:
    with pytest.raises(UpstreamFault) as caught:
        await whole(pool("http://nowhere.invalid/v1", connect_timeout_s=5.0))
    assert caught.value.phase == "connect"


async def test_tls_is_checked(pool: Callable[..., Connections], monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tls=True) as server:
        with pytest.raises(UpstreamFault, match="certificate") as caught:
            await whole(pool(f"https://localhost:{server.port}/v1"))
        assert caught.value.phase == "connect"

        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        mine = pool(f"https://localhost:{server.port}/v1")
        assert [await whole(mine), await whole(mine)] == [b"ok", b"ok"]
        assert f"Host: localhost:{server.port}".encode() in server.requests[0]


async def test_a_name_and_password_in_the_url_are_sent_where_the_client_has_none(
    pool: Callable[..., Connections],
) -> None:
    async with serving() as server:
        mine = pool(f"http://me:s%40crt@127.0.0.1:{server.port}/v1")
        await whole(mine)
        await whole(mine, Authorization="Bearer x")
        assert b"Authorization: Basic bWU6c0BjcnQ=\r\n" in server.requests[0]
        assert b"Basic" not in server.requests[1]


async def test_waiting_for_a_connection_can_be_cancelled(pool: Callable[..., Connections]) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n") as server:
        mine = pool(f"http://127.0.0.1:{server.port}/v1", limit=1)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await whole(mine)
        server.answers = [OK]
        assert await whole(mine) == b"ok"
