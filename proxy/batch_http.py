"""Calls of a batch API: one at a time, over an upstream's own connections, whole answers in bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import orjson
from multidict import CIMultiDict

from farthing.proxy.batch_api import Refused
from farthing.proxy.connections import Connections
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.header_facts import Lines

__all__ = ["BatchHttp", "results_in"]

_PAGE, _MOST_PAGES = 100, 5
_MOST_JSON_BYTES = 4 * 2**20
_MOST_FILE_BYTES = 512 * 2**20


class BatchHttp:
    """The API under `base` (its path) on the other side of `connections`, as `headers` (who asks) may use it.

    `query`: added to every call (Azure's `api-version`).
    """

    def __init__(
        self,
        connections: Connections,
        base: str,
        headers: Sequence[tuple[str, str]],
        query: str = "",
        timeout_s: float = 120.0,
    ) -> None:
        self._connections = connections
        self._base = base
        self._headers = list(headers)
        self._query = query
        self._timeout_s = timeout_s

    async def json(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        *,
        needs: Sequence[str] = ("id", "data"),
        more: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """The answer, which is about one thing or lists some. `needs`: one of these stands in it; none: anything may.
        `more`: headers of this call. Raises UpstreamFault, Refused.
        """
        raw, _ = await self._ask(method, path, body, kind, _MOST_JSON_BYTES, more)
        try:
            value = orjson.loads(raw)
        except ValueError:
            value = None
        if not isinstance(value, dict) or (needs and not any(name in value for name in needs)):
            raise Refused(404, "this is no batch API")
        return value

    async def listed(self, path: str, after: str) -> AsyncIterator[dict[str, Any]]:
        """The latest few hundred things of a list, latest first. `after`: the parameter that says behind which one a
        page begins. Raises UpstreamFault, Refused."""
        behind = ""
        for _ in range(_MOST_PAGES):
            page = await self.json("GET", f"{path}?limit={_PAGE}{behind}")
            found = page.get("data")
            things = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
            for one in things:
                yield one
            if not page.get("has_more") or not things:
                return
            behind = f"&{after}={things[-1].get('id')}"

    async def headers(self, method: str, path: str, body: bytes, more: Sequence[tuple[str, str]]) -> CIMultiDict[str]:
        """The headers of an answer that says nothing else. Raises UpstreamFault, Refused."""
        return (await self._ask(method, path, body, "application/json", _MOST_JSON_BYTES, more))[1]

    async def file(self, path: str) -> bytes:
        """A file's bytes. Raises UpstreamFault, Refused: it is too long, too."""
        return (await self._ask("GET", path, None, "", _MOST_FILE_BYTES))[0]

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        kind: str,
        limit_bytes: int,
        more: Sequence[tuple[str, str]] = (),
    ) -> tuple[bytes, CIMultiDict[str]]:
        headers = [*self._headers, ("Accept-Encoding", "identity"), *more]
        if body is not None:
            headers.append(("Content-Type", kind))
        target = self._base + path
        if self._query:
            target += f"{'&' if '?' in path else '?'}{self._query}"
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._connections.send(method, target, Lines(headers), body)
                try:
                    pieces, held = [], 0
                    while not answer.ended and (piece := await answer.read()):
                        pieces.append(piece)
                        held += len(piece)
                        if held > limit_bytes:
                            raise Refused(413, "the answer is too long")
                finally:
                    if not answer.ended:
                        answer.close()
                    self._connections.done(answer)
        except TimeoutError:
            raise UpstreamFault("the upstream sent nothing in time", phase="body", status=504) from None
        raw = b"".join(pieces)
        if not 200 <= answer.status < 300:
            raise Refused(answer.status, raw[:200].decode(errors="replace"))
        return raw, CIMultiDict(answer.headers)


def results_in(file: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a file of results, each with its value; what names no request of ours is passed over."""
    for raw in file.splitlines():
        try:
            value = orjson.loads(raw)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("custom_id"), str):
            yield raw, value
