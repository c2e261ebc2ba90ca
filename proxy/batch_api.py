"""The provider's batch API: files and batches. Sources: OpenAI API reference, Files and Batch.

What is asked here is one call after the other in the background; a fault is the caller's to try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from farthing.proxy.clock import Randomness
from farthing.proxy.connections import Connections
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.header_facts import Lines
from farthing.proxy.jsontext import find

__all__ = ["BatchApi", "Line", "Refused", "lines_in", "request_line"]

_MOST_JSON_BYTES = 4 * 2**20
_PAGE = 100
_MOST_PAGES = 5


class Refused(Exception):
    """The upstream answered, with a status that says no. `lasting`: it would say so again."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said[:200]}")
        self.status = status
        self.lasting = status not in (408, 409, 429) and status < 500


class Line(NamedTuple):
    """One answer out of a batch's files. `status` 0: there is none, and `error` is why."""

    id: str
    status: int
    body: bytes
    error: str = ""


class BatchApi:
    """The API under `base` (its path) on the other side of `connections`, as `headers` (who asks) may use it."""

    def __init__(
        self,
        connections: Connections,
        base: str,
        headers: Sequence[tuple[str, str]],
        randomness: Randomness,
        timeout_s: float = 120.0,
    ) -> None:
        self._connections = connections
        self._base = base
        self._headers = list(headers)
        self._randomness = randomness
        self._timeout_s = timeout_s

    async def upload(self, name: str, lines: Iterable[bytes]) -> str:
        """The id of a new file with these lines. Raises UpstreamFault, Refused; so does every method."""
        edge = f"farthing-{self._randomness.token(16)}"
        body = b"".join(
            (
                f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode(),
                f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}.jsonl"\r\n'.encode(),
                b"Content-Type: application/jsonl\r\n\r\n",
                b"\n".join(lines),
                f"\n\r\n--{edge}--\r\n".encode(),
            )
        )
        made = await self._json("POST", "/files", body, f"multipart/form-data; boundary={edge}")
        return str(made["id"])

    async def create(self, file: str, endpoint: str, name: str) -> dict[str, Any]:
        """A new batch over an uploaded file; `name` stands in its metadata."""
        asked = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h"}
        return await self._json("POST", "/batches", orjson.dumps(asked | {"metadata": {"farthing": name}}))

    async def named(self, name: str) -> dict[str, Any] | None:
        """The batch with that name, among the latest few hundred."""
        after = ""
        for _ in range(_MOST_PAGES):
            page = await self._json("GET", f"/batches?limit={_PAGE}{after}")
            found = page.get("data")
            batches = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
            for one in batches:
                if (one.get("metadata") or {}).get("farthing") == name:
                    return one
            if not page.get("has_more") or not batches:
                return None
            after = f"&after={batches[-1].get('id')}"
        return None

    async def get(self, batch: str) -> dict[str, Any]:
        """The batch as it stands."""
        return await self._json("GET", f"/batches/{batch}")

    async def cancel(self, batch: str) -> None:
        """Break it off; what is done already can be had all the same."""
        await self._json("POST", f"/batches/{batch}/cancel", b"")

    async def content(self, file: str, limit_bytes: int) -> bytes:
        """A file's bytes. Raises Refused: it is longer than the limit, too."""
        return await self._ask("GET", f"/files/{file}/content", None, "", limit_bytes)

    async def remove(self, file: str) -> None:
        """Delete a file."""
        await self._json("DELETE", f"/files/{file}")

    async def _json(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        raw = await self._ask(method, path, body, kind, _MOST_JSON_BYTES)
        try:
            value = orjson.loads(raw)
        except ValueError:
            value = None
        if not isinstance(value, dict) or ("id" not in value and "data" not in value):
            raise Refused(404, "this is no batch API")
        return value

    async def _ask(self, method: str, path: str, body: bytes | None, kind: str, limit_bytes: int) -> bytes:
        headers = [*self._headers, ("Accept-Encoding", "identity")]
        if body is not None:
            headers.append(("Content-Type", kind))
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._connections.send(method, self._base + path, Lines(headers), body)
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
        return raw


def request_line(id: str, path: str, body: bytes) -> bytes:
    """One request of a batch's file; its body goes byte for byte, so it must stand on one line."""
    return b'{"custom_id":%s,"method":"POST","url":%s,"body":%s}' % (orjson.dumps(id), orjson.dumps(path), body)


def lines_in(file: bytes) -> list[Line]:
    """The answers in an output or an error file; what isn't one is passed over."""
    found = []
    for raw in file.splitlines():
        try:
            value = orjson.loads(raw)
        except ValueError:
            continue
        if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
            continue
        response, error = value.get("response"), value.get("error")
        status = response.get("status_code") if isinstance(response, dict) else None
        place = find(raw, ("response", "body")) if type(status) is int else None
        if type(status) is int and place is not None:
            found.append(Line(value["custom_id"], status, raw[place[0] : place[1]]))
        else:
            code = error.get("code") if isinstance(error, dict) else None
            found.append(Line(value["custom_id"], 0, b"", str(code or "no answer")[:100]))
    return found
