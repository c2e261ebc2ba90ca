"""A scripted upstream with batches as Gemini has them: in OpenAI's form, with files by Google's own way.

It shares no code with farthing. What it does is scripted as in tests/fakes/batches.py. `lists_files`: whether a listed
batch names its input file.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from tests.fakes.batches import BatchUpstream, File, Made, said

__all__ = ["GeminiBatchUpstream"]


class GeminiBatchUpstream(BatchUpstream):
    """See the module. Google's own calls take a key as `x-goog-api-key` alone, the others as a bearer's."""

    root = "/v1beta/openai"

    def __init__(self) -> None:
        super().__init__()
        self.lists_files = True
        self.uploads: dict[str, str] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path.startswith(f"{self.root}/batches"):
            self.asked.append(f"{request.method} {path}")
            owner = request.headers.get("Authorization", "").removeprefix("Bearer ")
            told = path.removeprefix(f"{self.root}/batches").strip("/").split("/")
            parts = ["batches"] if told == [""] else ["batches", "/".join(told[:2]), *told[2:]]
            no = self._no(owner)
            return no if no is not None else await self._batch(request, parts, owner)
        if path.startswith(("/upload/", "/download/", "/v1beta/files/", "/v1beta/batches")):
            self.asked.append(f"{request.method} {path}")
            assert "Authorization" not in request.headers, "that would be a token"
            owner = request.headers.get("x-goog-api-key", "")
            no = self._no(owner)
            return no if no is not None else await self._own(request, path, owner)
        return await super().handle(request)

    def _no(self, owner: str) -> web.Response | None:
        if not owner:
            return said(401, "no key")
        return said(self.refuses, "scripted") if self.refuses else None

    async def _own(self, request: web.BaseRequest, path: str, owner: str) -> web.StreamResponse:
        if path == "/upload/v1beta/files":
            headers = {name.lower(): value for name, value in request.headers.items()}
            assert headers["x-goog-upload-protocol"] == "resumable" and headers["x-goog-upload-command"] == "start"
            number = f"{len(self.uploads) + 1}"
            self.uploads[number] = headers["x-goog-upload-header-content-length"]
            where = f"https://elsewhere.invalid/upload/v1beta/files?upload_id={number}&upload_protocol=resumable"
            return web.json_response({}, headers={"X-Goog-Upload-URL": where.replace("/files?", "/session?")})
        if path == "/upload/v1beta/session":
            body = await request.read()
            assert request.headers["X-Goog-Upload-Command"] == "upload, finalize"
            assert str(len(body)) == self.uploads[request.query["upload_id"]]
            kept = self._kept(owner, body, "batch")
            return web.json_response({"file": {"name": kept["id"], "mimeType": "application/jsonl"}})
        if path == "/v1beta/batches":
            mine = [self._listed(made) for made in self.batches.values() if made.owner == owner]
            return web.json_response({"operations": mine[::-1]} if mine else {})
        name = path.removeprefix("/download").removeprefix("/v1beta/").removesuffix(":download")
        found = self.files.get(name)
        if found is None or found.owner != owner:
            return said(404, "no such file")
        if request.method == "DELETE":
            del self.files[name]
            return web.json_response({})
        assert request.query.get("alt") == "media"
        return web.Response(body=found.body, content_type="application/jsonl")

    def _listed(self, made: Made) -> dict[str, Any]:
        given = {"inputConfig": {"fileName": made.value["input_file_id"]}} if self.lists_files else {}
        return {"name": made.value["id"], "metadata": {"state": "BATCH_STATE_RUNNING"} | given}

    def _kept(self, owner: str, body: bytes, purpose: str) -> dict[str, Any]:
        self._numbered += 1
        name = f"files/{'batch-' if purpose != 'batch' else ''}{self._numbered}"
        self.files[name] = File(owner, body, purpose)
        return {"id": name}

    def _made(self, asked: dict[str, Any], owner: str) -> Made | str:
        if asked.keys() != {"input_file_id", "endpoint", "completion_window"}:
            return f"unknown fields: {json.dumps(asked)}"
        made = super()._made(asked, owner)
        if isinstance(made, Made):
            del self.batches[made.value["id"]]
            made.value |= {"id": f"batches/g{self._numbered}", "input_file_id": asked["input_file_id"]}
            self.batches[made.value["id"]] = made
        return made
