"""OpenAI's batch API, and Azure's: files and batches.

Sources: OpenAI API reference, Files and Batch; Azure OpenAI, "Getting started with batch deployments" (the same calls
under `/openai/v1`, or with `api-version` under `/openai`, where the endpoint has no `/v1`; a file is taken once its
status is `processed`; the model is a batch deployment's name).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import orjson

from farthing.proxy.batch_api import Ask, Job, Line, Refused
from farthing.proxy.batch_http import BatchHttp, results_in
from farthing.proxy.clock import Randomness
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.jsontext import find

__all__ = ["OpenAIBatches", "job_of", "lines_in", "request_line"]

_UNREAD = ("pending", "running", "notRunning")  # Azure's, of a file
_ENDED: Mapping[Any, Literal["completed", "expired", "cancelled", "failed"]] = {
    "completed": "completed",
    "expired": "expired",
    "cancelled": "cancelled",
    "failed": "failed",
}


class OpenAIBatches:
    """A BatchApi. `dated`: Azure's dated API, which names endpoints without `/v1`. `reads_files`: a file has to
    be read by the provider first."""

    def __init__(
        self, http: BatchHttp, randomness: Randomness, *, dated: bool = False, reads_files: bool = False
    ) -> None:
        self._http = http
        self._randomness = randomness
        self._dated = dated
        self._reads_files = reads_files

    async def prepare(self, name: str, asks: Sequence[Ask]) -> str:
        """The id of a new file with these requests."""
        edge = f"farthing-{self._randomness.token(16)}"
        body = b"".join(
            (
                f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode(),
                f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}.jsonl"\r\n'.encode(),
                b"Content-Type: application/jsonl\r\n\r\n",
                b"\n".join(request_line(ask.id, self._endpoint(ask.path), ask.body) for ask in asks),
                f"\n\r\n--{edge}--\r\n".encode(),
            )
        )
        made = await self._http.json("POST", "/files", body, f"multipart/form-data; boundary={edge}")
        return str(made["id"])

    async def create(self, mark: str, name: str, asks: Sequence[Ask]) -> Job:
        """A new batch over the uploaded file; `name` stands in its metadata."""
        if self._reads_files:
            status = (await self._http.json("GET", f"/files/{mark}")).get("status")
            if status in _UNREAD:
                raise Refused(409, "the file isn't read yet")
        asked = {"input_file_id": mark, "endpoint": self._endpoint(asks[0].path), "completion_window": "24h"}
        return job_of(await self._http.json("POST", "/batches", orjson.dumps(asked | {"metadata": {"farthing": name}})))

    async def made(self, mark: str, name: str, ids: Collection[str]) -> Job | None:
        """The batch with that name, among the latest few hundred."""
        async for one in self._http.listed("/batches", "after"):
            if (one.get("metadata") or {}).get("farthing") == name:
                return job_of(one)
        return None

    async def get(self, id: str) -> Job:
        """See BatchApi."""
        return job_of(await self._http.json("GET", f"/batches/{id}"))

    async def cancel(self, id: str) -> None:
        """See BatchApi."""
        await self._http.json("POST", f"/batches/{id}/cancel", b"")

    async def answers(self, job: Job) -> list[Line]:
        """See BatchApi."""
        found: list[Line] = []
        for file in job.results:
            raw = await self._http.file(f"/files/{file}/content")
            found += await asyncio.to_thread(lines_in, raw)
        return found

    async def clear(self, mark: str, job: Job | None) -> None:
        """Delete the files; each is tried."""
        faults: list[Exception] = []
        for file in (mark, *(() if job is None else job.results)):
            try:
                await self._http.json("DELETE", f"/files/{file}")
            except (UpstreamFault, Refused) as fault:
                faults.append(fault)
        if faults:
            raise faults[0]

    def _endpoint(self, path: str) -> str:
        return path.removeprefix("/v1") if self._dated else path


def job_of(value: dict[str, Any]) -> Job:
    """A batch as OpenAI tells it."""
    status = value.get("status")
    files = tuple(
        file for name in ("output_file_id", "error_file_id") if isinstance(file := value.get(name), str) and file
    )
    return Job(str(value["id"]), _ENDED.get(status, ""), status == "cancelling", files)


def request_line(id: str, path: str, body: bytes) -> bytes:
    """One request of a batch's file; its body goes byte for byte, so it must stand on one line."""
    return b'{"custom_id":%s,"method":"POST","url":%s,"body":%s}' % (orjson.dumps(id), orjson.dumps(path), body)


def lines_in(file: bytes) -> list[Line]:
    """The answers in an output or an error file; what isn't one is passed over."""
    found = []
    for raw, value in results_in(file):
        response, error = value.get("response"), value.get("error")
        status = response.get("status_code") if isinstance(response, dict) else None
        place = find(raw, ("response", "body")) if type(status) is int else None
        body = b"" if place is None else raw[slice(*place)]
        if type(status) is int and body.startswith(b"{"):
            found.append(Line(value["custom_id"], status, body))
        else:
            code = error.get("code") if isinstance(error, dict) else None
            found.append(Line(value["custom_id"], 0, b"", str(code or "no answer")[:100]))
    return found
