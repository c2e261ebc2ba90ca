"""The upstream as a process of its own, so that it can be killed and stopped: `python -m tests.chaos.upstream PORT`.

`POST /wait` with a number of seconds: how long each answer takes to begin from now on. `POST /status` with a status:
what each answer has from now on; not 200: an error in the OpenAI shape. `GET /asked`: how many chats it was asked for.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

from tests.chaos.answers import events, prompt_of, whole

_FIRST_S = 0.01


class Upstream:
    """Answers chats by the rule of answers.py."""

    def __init__(self) -> None:
        self.wait_s = _FIRST_S
        self.status = 200
        self.chats = 0

    async def wait(self, request: web.Request) -> web.Response:
        """Set how long an answer takes to begin."""
        self.wait_s = float(await request.text())
        return web.Response()

    async def fail(self, request: web.Request) -> web.Response:
        """Set the status of answers."""
        self.status = int(await request.text())
        return web.Response()

    async def asked(self, _: web.Request) -> web.Response:
        """Tell how many chats there were."""
        return web.Response(text=str(self.chats))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat, whole or as a stream."""
        prompt, stream = prompt_of(await request.read())
        self.chats += 1
        await asyncio.sleep(self.wait_s)
        if self.status != 200:
            error = {"error": {"message": "out of order", "type": "server_error", "param": None, "code": None}}
            return web.json_response(error, status=self.status)
        if not stream:
            return web.Response(body=whole(prompt), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in events(prompt):
            await response.write(piece)
            await asyncio.sleep(0.002)
        await response.write_eof()
        return response


if __name__ == "__main__":
    served = Upstream()
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/wait", served.wait)
    app.router.add_post("/status", served.fail)
    app.router.add_get("/asked", served.asked)
    app.router.add_post("/v1/chat/completions", served.chat)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
