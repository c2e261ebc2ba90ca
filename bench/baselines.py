"""What farthing is compared with: the least that a proxy, and a cache, written with the same libraries can do.

`pass`: an aiohttp application and an aiohttp client, nothing between them. `hit`: an aiohttp application that reads the
body, parses it with orjson, keys it by the SHA-256 of its sorted form and answers from a dict. `low`: the same on
aiohttp's low-level server, without an application's routes, middlewares and signals. All on uvloop, without access log.
Run alone: `python -m bench.baselines pass --port 9001 --upstream http://127.0.0.1:9000`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict

from bench.upstream import answer

__all__ = ["hit_app", "low_server", "pass_app"]

HOP_BY_HOP = ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length")


def without_hops(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """The headers that travel on. Source: RFC 9110, section 7.6.1."""
    for name in HOP_BY_HOP:
        headers.popall(name, None)
    return headers


def pass_app(upstream: str) -> web.Application:
    """Every request goes to `upstream` as it came; the answer comes back as it arrives. Owns its client session."""
    session = web.AppKey("session", aiohttp.ClientSession)

    async def open_session(app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as app[session]:
            yield

    async def carry(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        async with request.app[session].request(
            request.method, upstream + request.path_qs, data=body, headers=without_hops(CIMultiDict(request.headers))
        ) as answered:
            headers = without_hops(CIMultiDict(answered.headers))
            if "content-length" in answered.headers:
                return web.Response(status=answered.status, headers=headers, body=await answered.read())
            response = web.StreamResponse(status=answered.status, headers=headers)
            await response.prepare(request)
            async for piece in answered.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application(client_max_size=2**30)
    app.cleanup_ctx.append(open_session)
    app.router.add_get("/status", ready)
    app.router.add_route("*", "/{rest:.*}", carry)
    return app


def hit_app() -> web.Application:
    """A cache that has learnt every body once it was sent: the second answer comes from the dict."""
    kept: dict[str, bytes] = {}

    async def look_up(request: web.Request) -> web.Response:
        parsed = orjson.loads(await request.read())
        key = hashlib.sha256(orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS)).hexdigest()
        found = kept.get(key)
        if found is None:
            found = kept[key] = answer(len(kept))
        return web.Response(body=found, content_type="application/json")

    app = web.Application(client_max_size=2**30)
    app.router.add_get("/status", ready)
    app.router.add_post("/v1/chat/completions", look_up)
    return app


def low_server() -> web.Server:
    """The same cache on the low-level server: one handler for everything."""
    kept: dict[str, bytes] = {}

    async def look_up(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(text="ready")
        parsed = orjson.loads(await request.read())
        key = hashlib.sha256(orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS)).hexdigest()
        found = kept.get(key)
        if found is None:
            found = kept[key] = answer(len(kept))
        return web.Response(body=found, content_type="application/json")

    return web.Server(look_up, access_log=None)


async def serve_low(port: int) -> None:
    """Answer until cancelled."""
    server = await asyncio.get_running_loop().create_server(low_server(), "127.0.0.1", port)
    await server.serve_forever()


async def ready(_: web.Request) -> web.Response:
    """That it listens."""
    return web.Response(text="ready")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("pass", "hit", "low"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", default="", help="scheme, host and port; for `pass`")
    given = parser.parse_args()
    import uvloop

    if given.kind == "low":
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(serve_low(given.port))
        return
    app = pass_app(given.upstream) if given.kind == "pass" else hit_app()
    web.run_app(app, host="127.0.0.1", port=given.port, access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
