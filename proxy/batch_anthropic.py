"""Anthropic's Message Batches. Source: Anthropic API reference, Message Batches (create, list, results, cancel, delete)
and Errors.

A batch has no name of ours. One whose making was cut off is looked for among those made since, by how many requests it
has; whose it is stands in its results, which are there only once it has ended: until then it is unclear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Literal

import orjson

from farthing.proxy.batch_api import Ask, Job, Line, Unclear
from farthing.proxy.batch_http import BatchHttp, results_in
from farthing.proxy.clock import Clock
from farthing.proxy.jsontext import find

__all__ = ["MessageBatches", "lines_in"]

_HERE = "/messages/batches"
_CLOCKS_DIFFER_S = 600.0
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class MessageBatches:
    """A BatchApi. Its marks are the moment before the batch was made, and how many requests it has."""

    def __init__(self, http: BatchHttp, clock: Clock) -> None:
        self._http = http
        self._clock = clock

    async def prepare(self, name: str, asks: Sequence[Ask]) -> str:
        """Nothing is sent before `create`."""
        return f"{self._clock.now_s():.0f}/{len(asks)}"

    async def create(self, mark: str, name: str, asks: Sequence[Ask]) -> Job:
        """See BatchApi."""
        requests = b",".join(b'{"custom_id":%s,"params":%s}' % (orjson.dumps(ask.id), ask.body) for ask in asks)
        return _job(await self._http.json("POST", _HERE, b'{"requests":[%s]}' % requests))

    async def made(self, mark: str, name: str, ids: Collection[str]) -> Job | None:
        """The batch that holds one of these requests, of those of that size made since."""
        since, _, count = mark.partition("/")
        unclear = False
        async for value in self._http.listed(_HERE, "after_id"):
            if _made_s(value) < float(since) - _CLOCKS_DIFFER_S:
                break
            counts = value.get("request_counts") or {}
            if sum(int(counts.get(name) or 0) for name in _COUNTS) != int(count):
                continue
            job = _job(value)
            if not job.ended:
                unclear = True
            elif job.results and any(line.id in ids for line in await self.answers(job)):
                return job
        if unclear:
            raise Unclear("a batch goes on that may be ours")
        return None

    async def get(self, id: str) -> Job:
        """See BatchApi."""
        return _job(await self._http.json("GET", f"{_HERE}/{id}"))

    async def cancel(self, id: str) -> None:
        """See BatchApi."""
        await self._http.json("POST", f"{_HERE}/{id}/cancel", b"")

    async def answers(self, job: Job) -> list[Line]:
        """See BatchApi. Asked for by the batch's id: `results_url` might name another host, which gets no key."""
        if not job.results:
            return []
        return await asyncio.to_thread(lines_in, await self._http.file(f"{_HERE}/{job.id}/results"))

    async def clear(self, mark: str, job: Job | None) -> None:
        """Delete the batch, which takes its prompts and answers along."""
        if job is not None:
            await self._http.json("DELETE", f"{_HERE}/{job.id}")


def _made_s(value: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(value.get("created_at"))).timestamp()
    except ValueError:
        return float("inf")


def _job(value: dict[str, Any]) -> Job:
    status, counts = value.get("processing_status"), value.get("request_counts") or {}
    results = (url,) if isinstance(url := value.get("results_url"), str) and url else ()
    ended: Literal["", "completed", "expired", "cancelled", "failed"] = ""
    if status == "ended":
        ended = "expired" if counts.get("expired") else "cancelled" if counts.get("canceled") else "completed"
    return Job(str(value["id"]), ended, status == "canceling", results)


def lines_in(file: bytes) -> list[Line]:
    """The answers in a file of results; what isn't one is passed over."""
    found = []
    for raw, value in results_in(file):
        result = value.get("result")
        kind = result.get("type") if isinstance(result, dict) else None
        place = find(raw, ("result", "message" if kind == "succeeded" else "error"))
        said = b"" if place is None else raw[slice(*place)]
        if kind == "succeeded" and said.startswith(b"{"):
            found.append(Line(value["custom_id"], 200, said))
        elif kind == "errored" and said:
            found.append(_errored(value["custom_id"], said))
        else:
            found.append(Line(value["custom_id"], 0, b"", str(kind or "no answer")[:100]))
    return found


def _errored(id: str, error: bytes) -> Line:
    """What failed, as a call at once would have failed; the error stands there with its envelope or without."""
    value = orjson.loads(error)
    inner = value.get("error") if isinstance(value, dict) else None
    if not isinstance(inner, dict):
        inner, error = value, orjson.dumps({"type": "error", "error": value})
    kind = inner.get("type") if isinstance(inner, dict) else None
    return Line(id, _STATUS.get(str(kind), 500), error)
