"""Gemini's batches: asked for in OpenAI's form, with files that go by Google's own way.

Sources: Gemini API, "OpenAI compatibility" (batches are made, read and broken off under `/v1beta/openai`; files are
neither taken nor given there), "Files API" (resumable uploads; a file is deleted after 48 hours), "Batch API"
(`batches.list`). As others recorded it: a batch's id is its resource name (`batches/…`), also where it stands in the
path; the file of results is asked for under `/download`, and its long name can't be deleted.

A batch has no name of ours here; whose it is stands in its input file's name, which is listed with it. One that is
listed without it leaves it unclear whether a batch was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from urllib.parse import quote, urlsplit

import orjson

from farthing.proxy.batch_api import Ask, Job, Line, Refused, Unclear
from farthing.proxy.batch_http import BatchHttp
from farthing.proxy.batch_openai import job_of, lines_in, request_line

__all__ = ["GeminiBatches"]

_JSONL = "application/jsonl"
_PAGE, _MOST_PAGES = 100, 5


class GeminiBatches:
    """A BatchApi. `chats`: the API in OpenAI's form; `own`: Google's, under the same host's root."""

    def __init__(self, chats: BatchHttp, own: BatchHttp) -> None:
        self._chats = chats
        self._own = own

    async def prepare(self, name: str, asks: Sequence[Ask]) -> str:
        """The name of a new file with these requests."""
        lines = b"\n".join(request_line(ask.id, ask.path, ask.body) for ask in asks) + b"\n"
        begins = [
            ("X-Goog-Upload-Protocol", "resumable"),
            ("X-Goog-Upload-Command", "start"),
            ("X-Goog-Upload-Header-Content-Length", str(len(lines))),
            ("X-Goog-Upload-Header-Content-Type", _JSONL),
        ]
        told = orjson.dumps({"file": {"display_name": name}})
        where = (await self._own.headers("POST", "/upload/v1beta/files", told, begins)).get("X-Goog-Upload-URL", "")
        path, query = urlsplit(where)[2:4]
        if not path.startswith("/"):
            raise Refused(404, "this is no batch API")
        ends = [("X-Goog-Upload-Offset", "0"), ("X-Goog-Upload-Command", "upload, finalize")]
        # On the same connections: a key goes to no other host, whatever the answer names.
        made = await self._own.json("POST", f"{path}?{query}", lines, _JSONL, needs=("file",), more=ends)
        file = made["file"]
        if not isinstance(file, dict) or not isinstance(named := file.get("name"), str) or not named:
            raise Refused(404, "this is no batch API")
        return named

    async def create(self, mark: str, name: str, asks: Sequence[Ask]) -> Job:
        """A new batch over the uploaded file."""
        asked = {"input_file_id": mark, "endpoint": asks[0].path, "completion_window": "24h"}
        return job_of(await self._chats.json("POST", "/batches", orjson.dumps(asked)))

    async def made(self, mark: str, name: str, ids: Collection[str]) -> Job | None:
        """The batch over that file, among the latest few hundred."""
        unclear, behind = False, ""
        for _ in range(_MOST_PAGES):
            page = await self._own.json("GET", f"/v1beta/batches?pageSize={_PAGE}{behind}", needs=())
            for one in page.get("operations") or ():
                told = one.get("metadata") if isinstance(one, dict) else None
                given = told.get("inputConfig") if isinstance(told, dict) else None
                file = given.get("fileName") if isinstance(given, dict) else None
                if file == mark:
                    return await self.get(str(one["name"]))
                unclear = unclear or not isinstance(file, str)
            if not (token := page.get("nextPageToken")):
                break
            behind = f"&pageToken={quote(str(token), safe='')}"
        if unclear:
            raise Unclear("a batch is listed without its file, and may be ours")
        return None

    async def get(self, id: str) -> Job:
        """See BatchApi."""
        return job_of(await self._chats.json("GET", f"/batches/{id}"))

    async def cancel(self, id: str) -> None:
        """See BatchApi."""
        await self._chats.json("POST", f"/batches/{id}/cancel", b"")

    async def answers(self, job: Job) -> list[Line]:
        """See BatchApi."""
        found: list[Line] = []
        for file in job.results:
            raw = await self._own.file(f"/download/v1beta/{file}:download?alt=media")
            found += await asyncio.to_thread(lines_in, raw)
        return found

    async def clear(self, mark: str, job: Job | None) -> None:
        """Delete what was uploaded; results go by themselves after 48 hours."""
        await self._own.json("DELETE", f"/v1beta/{mark}", needs=())
