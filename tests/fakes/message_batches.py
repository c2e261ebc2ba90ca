"""A scripted upstream with Message Batches, shaped as Anthropic's API reference says, and billed at half price.

It shares no code with farthing. What it does is scripted as in tests/fakes/batches.py; `ends` is what becomes
of what a batch leaves undone. Results come in no order of the requests, as the reference warns.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.fakes.batches import BatchUpstream, File, Made
from tests.fakes.upstream import Call, Script

__all__ = ["MessageBatchUpstream"]

_HERE = "/v1/messages/batches"
_KINDS = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error", 503: "overloaded_error"}
_ENDS = {"completed": "canceled", "cancelled": "canceled", "expired": "expired", "failed": "errored"}


class MessageBatchUpstream(BatchUpstream):
    """See the module. `cleared`: batches that were deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.cleared: list[Made] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if not path.startswith(_HERE):
            return await super().handle(request)
        self.asked.append(f"{request.method} {path}")
        owner = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not owner:
            return _said(401, "authentication_error", "no key")
        if "anthropic-version" not in request.headers:
            return _said(400, "invalid_request_error", "anthropic-version: header is required")
        if self.refuses:
            return _said(self.refuses, _KINDS.get(self.refuses, "api_error"), "scripted")
        parts = path.removeprefix(_HERE).strip("/").split("/")
        if not parts[0]:
            return await self._make(request, owner) if request.method == "POST" else self._list(request, owner)
        found = self.batches.get(parts[0])
        if found is None or found.owner != owner:
            return _said(404, "not_found_error", "no such batch")
        return self._of(request, found, parts[1:])

    async def _make(self, request: web.BaseRequest, owner: str) -> web.StreamResponse:
        if self.refuse_create:
            return _said(self.refuse_create, "invalid_request_error", "scripted")
        asked = json.loads(await request.read())
        names = [one["custom_id"] for one in asked["requests"]]
        if not names or len(set(names)) < len(names) or any(not re.fullmatch("[a-zA-Z0-9_-]{1,64}", n) for n in names):
            return _said(400, "invalid_request_error", "custom_id")
        for one in asked["requests"]:
            if set(one) != {"custom_id", "params"} or "max_tokens" not in one["params"] or one["params"].get("stream"):
                return _said(400, "invalid_request_error", "params")
        name = f"msgbatch_{len(self.batches) + len(self.cleared) + 1}"
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        value = {
            "id": name,
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": counts | {"processing": len(names)},
            "created_at": datetime.fromtimestamp(time.time(), UTC).isoformat(),
            "ended_at": None,
            "results_url": None,
        }
        self.batches[name] = made = Made(value, asked["requests"], owner)
        if self.hang_up_after_create:
            self.hang_up_after_create = False
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(0)
        return web.json_response(made.value)

    def _list(self, request: web.BaseRequest, owner: str) -> web.StreamResponse:
        for made in self.batches.values():
            self._seen(made)
        mine = [made.value for made in self.batches.values() if made.owner == owner][::-1]
        after = request.query.get("after_id")
        start = next((at + 1 for at, one in enumerate(mine) if one["id"] == after), 0)
        page = mine[start : start + int(request.query.get("limit", "20"))]
        more = start + len(page) < len(mine)
        return web.json_response({"data": page, "has_more": more, "first_id": None, "last_id": None})

    def _of(self, request: web.BaseRequest, found: Made, verb: list[str]) -> web.StreamResponse:
        if verb == ["cancel"]:
            found.value["processing_status"] = "canceling"
            return web.json_response(found.value)
        if verb == ["results"]:
            return web.Response(body=self.files[found.value["id"]].body, content_type="application/x-jsonl")
        if request.method == "DELETE":
            if found.value["processing_status"] != "ended":
                return _said(400, "invalid_request_error", "it goes on")
            self.files.pop(found.value["id"], None)
            del self.batches[found.value["id"]]
            self.cleared.append(found)
            return web.json_response({"id": found.value["id"], "type": "message_batch_deleted"})
        self._seen(found)
        return web.json_response(found.value)

    def _seen(self, made: Made) -> None:
        """Time passes with each look."""
        made.polls += 1
        if made.value["processing_status"] == "canceling":
            self._end(made, "cancelled")
        elif made.value["processing_status"] == "in_progress" and made.polls >= self.polls:
            self._end(made, self.ends)

    def _end(self, made: Made, status: str) -> None:
        if made.ran:
            return
        made.ran = True
        rows = []
        for line in made.lines:
            said = json.dumps(line["params"])
            scripted = next((code for text, code in self.statuses.items() if text in said), None)
            done = sum(row["result"]["type"] == "succeeded" for row in rows)
            result: dict[str, Any]
            if scripted is None and (status == "completed" or (status != "failed" and done < self.answers_before_end)):
                result = {"type": "succeeded", "message": self._ran(line["params"])}
            elif scripted:
                error = {"type": _KINDS[scripted], "message": f"scripted {scripted}"}
                result = {"type": "errored", "error": {"type": "error", "error": error}}
            elif status == "failed":
                error = {"type": "api_error", "message": "it broke"}
                result = {"type": "errored", "error": {"type": "error", "error": error}}
            else:
                result = {"type": _ENDS[status]}
            rows.append({"custom_id": line["custom_id"], "result": result})
        counts = made.value["request_counts"]
        counts["processing"] = 0
        for row in rows:
            counts[row["result"]["type"]] += 1
        name = made.value["id"]
        made.value |= {"processing_status": "ended", "results_url": f"https://elsewhere.invalid/{name}/results"}
        self.files[name] = File(made.owner, "\n".join(map(json.dumps, rows[::-1])).encode(), "results")

    def _ran(self, params: dict[str, Any]) -> Any:
        call = Call("POST", "/v1/messages", {}, json.dumps(params).encode(), model=params["model"])
        self.batched.append(call)
        _, pieces = self._messages(call, params, Script())
        call.status, call.finished = 200, True
        return json.loads(b"".join(pieces))


def _said(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"type": "error", "error": {"type": kind, "message": message}}, status=status)
