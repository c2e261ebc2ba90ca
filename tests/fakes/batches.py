"""A scripted upstream with files and batches, shaped as OpenAI's API reference says, and billed at half price.

It shares no code with farthing. `AzureBatchUpstream` is the same in Azure's dated form. `polls`: how often a batch is
asked for before it has ended. `ends`: as what.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from aiohttp import web

from tests.fakes.upstream import Call, Script, ScriptedUpstream

__all__ = ["AzureBatchUpstream", "BatchUpstream", "batching", "listening", "said"]

_ANSWERS = {
    "/v1/chat/completions": "_chat",
    "/v1/completions": "_completions",
    "/v1/embeddings": "_embeddings",
    "/v1/responses": "_responses",
}


@dataclass
class Made:
    """One batch. `lines`: of its input."""

    value: dict[str, Any]
    lines: list[dict[str, Any]]
    owner: str
    polls: int = 0
    ran: bool = False


@dataclass
class File:
    """One file, and whose it is."""

    owner: str
    body: bytes
    purpose: str


class BatchUpstream(ScriptedUpstream):
    """See the module. `refuses`: status of every call to files and batches, 0 for none. `statuses`: of lines, by a text
    that stands in them: such a line stands in the error file, with a response, or (status 0) without one.
    `ends_when_cancelled`: the status with which a batch is not broken off, since it has just ended; 0: it hasn't.
    `repeats`: how often each answer stands in the output file.
    """

    root = "/v1"
    prefix = "/v1"  # of the endpoints that lines name

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, File] = {}
        self.batches: dict[str, Made] = {}
        self.batched: list[Call] = []
        self.polls = 2
        self.ends = "completed"
        self.answers_before_end = 10**9
        self.refuses = 0
        self.refuse_create = 0
        self.hang_up_after_create = False
        self.ends_when_cancelled = 0
        self.repeats = 1
        self.statuses: dict[str, int] = {}
        self.asked: list[str] = []
        self._numbered = 0

    def half_bill(self, usd_per_mtok: tuple[str, str, str]) -> Decimal:
        """Dollars for everything: calls at the full price, lines of batches at half."""
        direct, self.calls = self.calls, self.batched
        half = self.bill(usd_per_mtok) / 2
        self.calls = direct
        return half + self.bill(usd_per_mtok)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if not path.startswith((f"{self.root}/files", f"{self.root}/batches")):
            return await super().handle(request)
        self.asked.append(f"{request.method} {path}")
        owner = self._owner(request)
        if not owner:
            return said(401, "no key")
        if self.refuses:
            return said(self.refuses, "scripted")
        parts = path.removeprefix(f"{self.root}/").split("/")
        if parts[0] == "files":
            return await self._file(request, parts, owner)
        return await self._batch(request, parts, owner)

    def _owner(self, request: web.BaseRequest) -> str:
        return request.headers.get("Authorization", "")

    async def _file(self, request: web.BaseRequest, parts: list[str], owner: str) -> web.StreamResponse:
        if request.method == "POST" and len(parts) == 1:
            kind = request.headers["Content-Type"]
            assert kind.startswith("multipart/form-data; boundary="), kind
            fields: dict[str, bytes] = {}
            edge = f"--{kind.partition('boundary=')[2]}".encode()
            for part in (await request.read()).split(edge)[1:-1]:
                head, _, body = part.strip(b"\r\n").partition(b"\r\n\r\n")
                fields[head.split(b'name="')[1].split(b'"')[0].decode()] = body
            if fields.get("purpose") != b"batch" or "file" not in fields:
                return said(400, "purpose and file are required")
            return web.json_response(self._kept(owner, fields["file"], "batch"))
        name = parts[1] if len(parts) > 1 else ""
        found = self.files.get(name)
        if found is None or found.owner != owner:
            return said(404, "no such file")
        if request.method == "DELETE":
            del self.files[name]
            return web.json_response({"id": name, "object": "file", "deleted": True})
        if parts[2:] == ["content"]:
            return web.Response(body=found.body, content_type="application/octet-stream")
        return said(404, "no such call")

    def _kept(self, owner: str, body: bytes, purpose: str) -> dict[str, Any]:
        self._numbered += 1
        name = f"file-{self._numbered}"
        self.files[name] = File(owner, body, purpose)
        return {"id": name, "object": "file", "bytes": len(body), "created_at": int(time.time()), "purpose": purpose}

    async def _batch(self, request: web.BaseRequest, parts: list[str], owner: str) -> web.StreamResponse:
        if request.method == "POST" and len(parts) == 1:
            if self.refuse_create:
                return said(self.refuse_create, "scripted")
            made = self._made(json.loads(await request.read()), owner)
            if isinstance(made, str):
                return said(400, made)
            if self.hang_up_after_create:
                self.hang_up_after_create = False
                assert request.transport is not None
                request.transport.abort()
                await asyncio.sleep(0)
            return web.json_response(made.value)
        if len(parts) == 1:
            mine = [made.value for made in self.batches.values() if made.owner == owner]
            return web.json_response({"object": "list", "data": mine[::-1], "has_more": False})
        found = self.batches.get(parts[1])
        if found is None or found.owner != owner:
            return said(404, "no such batch")
        if parts[2:] == ["cancel"] and self.ends_when_cancelled:
            self._end(found, "completed")
            return said(self.ends_when_cancelled, "Cannot cancel a batch with status 'completed'.")
        if parts[2:] == ["cancel"]:
            found.value["status"] = "cancelling"
            return web.json_response(found.value)
        found.polls += 1
        if found.value["status"] == "cancelling":
            self._end(found, "cancelled")
        elif found.value["status"] in ("validating", "in_progress"):
            found.value["status"] = "in_progress"
            if found.polls >= self.polls:
                self._end(found, self.ends)
        return web.json_response(found.value)

    def _made(self, asked: dict[str, Any], owner: str) -> Made | str:
        file = self.files.get(asked.get("input_file_id", ""))
        if file is None or file.owner != owner or file.purpose != "batch":
            return "no such input file"
        endpoint = str(asked.get("endpoint"))
        if not endpoint.startswith(self.prefix):
            return "wrong endpoint"
        if asked.get("completion_window") != "24h" or "/v1" + endpoint.removeprefix(self.prefix) not in _ANSWERS:
            return "wrong window or endpoint"
        lines = [json.loads(line) for line in file.body.splitlines() if line.strip()]
        names = [line["custom_id"] for line in lines]
        if len(set(names)) != len(names) or not lines:
            return "custom_id must be unique"
        if {(line["method"], line["url"], line["body"]["model"]) for line in lines} != {
            ("POST", asked["endpoint"], lines[0]["body"]["model"])
        }:
            return "one endpoint and one model a batch"
        name = f"batch_{len(self.batches) + 1}"
        value = {
            "id": name,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "errors": None,
            "input_file_id": asked["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": int(time.time()),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "metadata": asked.get("metadata"),
        }
        self.batches[name] = Made(value, lines, owner)
        return self.batches[name]

    def _end(self, made: Made, status: str) -> None:
        made.value["status"] = status
        if made.ran or status == "failed":
            return
        made.ran = True
        output, errors = [], []
        for line in made.lines:
            said = json.dumps(line["body"])
            scripted = next((code for text, code in self.statuses.items() if text in said), None)
            answered = len(output) + len(errors)
            if (scripted is None and status == "completed") or (
                status != "completed" and answered < self.answers_before_end
            ):
                response = {"status_code": 200, "request_id": "r", "body": self._run(line)}
                row = {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}
                output += [row] * self.repeats
            elif scripted:
                body = {"error": {"message": f"scripted {scripted}", "type": "x", "param": None, "code": None}}
                response = {"status_code": scripted, "request_id": "r", "body": body}
                errors.append({"id": "x", "custom_id": line["custom_id"], "response": response, "error": None})
            else:
                error = {"code": f"batch_{status}", "message": "not done"}
                errors.append({"id": "x", "custom_id": line["custom_id"], "response": None, "error": error})
        for name, rows in (("output_file_id", output), ("error_file_id", errors)):
            if rows:
                body = "\n".join(map(json.dumps, rows)).encode()
                made.value[name] = self._kept(made.owner, body, "batch_output")["id"]

    def _run(self, line: dict[str, Any]) -> Any:
        path = "/v1" + line["url"].removeprefix(self.prefix)
        call = Call("POST", path, {}, json.dumps(line["body"]).encode(), model=line["body"]["model"])
        self.batched.append(call)
        _, pieces = getattr(self, _ANSWERS[path])(call, line["body"], Script())
        call.status, call.finished = 200, True
        return json.loads(b"".join(pieces))


class AzureBatchUpstream(BatchUpstream):
    """Under `/openai`, with `api-version` and `api-key`; a file is pending when it is first looked at."""

    root = "/openai"
    prefix = ""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[str] = set()

    def _owner(self, request: web.BaseRequest) -> str:
        assert request.query.get("api-version") == "2024-10-21", request.raw_path
        return request.headers.get("api-key", "")

    async def _file(self, request: web.BaseRequest, parts: list[str], owner: str) -> web.StreamResponse:
        if request.method == "GET" and len(parts) == 2:
            status = "processed" if parts[1] in self.read else "pending"
            self.read.add(parts[1])
            return web.json_response({"id": parts[1], "object": "file", "status": status})
        return await super()._file(request, parts, owner)

    def _made(self, asked: dict[str, Any], owner: str) -> Made | str:
        return super()._made(asked, owner) if asked.get("input_file_id") in self.read else "the file is pending"


def said(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


U = TypeVar("U", bound=BatchUpstream)


@asynccontextmanager
async def batching() -> AsyncIterator[BatchUpstream]:
    """Such an upstream that listens; `up.url` ends in /v1."""
    async with listening(BatchUpstream()) as up:
        yield up


@asynccontextmanager
async def listening(up: U) -> AsyncIterator[U]:
    """It listens; `up.url` ends in where its API is."""
    server = web.Server(up.handle, handler_cancellation=True, auto_decompress=False, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    up.url = f"http://127.0.0.1:{runner.addresses[0][1]}{up.root}"
    try:
        yield up
    finally:
        await runner.cleanup()
