"""The upstreams: nginx with one static answer for hot loops, and one in Python for streams and answers that differ.

Both count the requests that reached them, so that a run can show what was a miss and what was a hit.
Run alone: `python -m bench.upstream --port 9000 --chunks 25 --first-ms 50 --gap-ms 20`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from bench.http1 import Framer, Part
from bench.machine import Place
from bench.servers import Running, free_port, get, module, started

__all__ = ["StaticAnswer", "events", "fast", "nginx_conf", "requests_seen", "streaming"]

WORDS = "The quick answer is that it depends on the contract, and the contract says thirty days from delivery. " * 3


def answer(serial: int) -> bytes:
    """A chat completion of about 0.7 KB, another one for each serial number."""
    return json.dumps(
        {
            "id": f"chatcmpl-{serial:012d}",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": f"{serial:012d} {WORDS}", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 480, "completion_tokens": 62, "total_tokens": 542},
            "system_fingerprint": "fp_bench",
        },
        separators=(",", ":"),
    ).encode()


def events(serial: int, chunks: int, usage: bool) -> list[bytes]:
    """A streamed completion as server-sent events: a role, `chunks` pieces of text, the end, and usage where asked."""
    base = {
        "id": f"chatcmpl-{serial:012d}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "system_fingerprint": "fp_bench",
    }
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": f" word{serial + position}"}, None) for position in range(chunks)]
    deltas.append(({}, "stop"))
    payloads = [
        base | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    if usage:
        counts = {"prompt_tokens": 480, "completion_tokens": chunks, "total_tokens": 480 + chunks}
        payloads.append(base | {"choices": [], "usage": counts})
    lines = [json.dumps(payload, separators=(",", ":")).encode() for payload in payloads]
    return [b"data: " + line + b"\n\n" for line in [*lines, b"[DONE]"]]


def nginx_conf(folder: Path, port: int) -> str:
    """nginx's configuration: one worker, in the foreground, one static answer, a counter under /status."""
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off; {user} worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_max_body_size 0; client_body_buffer_size 256k;
{temporary}
  server {{
    listen 127.0.0.1:{port};
    location = /status {{ stub_status; }}
    location / {{ default_type application/json; return 200 '{answer(0).decode()}'; }}
  }}
}}
"""


@contextlib.contextmanager
def fast(here: Place) -> Iterator[Running]:
    """The fastest static upstream that is installed: nginx, else the one in Python."""
    if not shutil.which("nginx"):
        with streaming(here, chunks=20, first_ms=0, gap_ms=0) as running:
            yield running
        return
    port = free_port()
    conf = here.folder / "nginx.conf"
    conf.write_text(nginx_conf(here.folder, port), "utf-8")
    command = ["nginx", "-p", str(here.folder), "-c", str(conf), "-e", str(here.folder / "nginx-error.log")]
    with started("direct", command, port, here.folder, core=here.load) as running:
        yield running


@contextlib.contextmanager
def streaming(here: Place, *, chunks: int, first_ms: float, gap_ms: float) -> Iterator[Running]:
    """The upstream in Python: unique answers; streams of `chunks` pieces, `gap_ms` apart, first after `first_ms`."""
    port = free_port()
    command = module("upstream", "--port", str(port), "--chunks", str(chunks))
    command += ["--first-ms", str(first_ms), "--gap-ms", str(gap_ms)]
    with started("direct", command, port, here.folder, core=here.load) as running:
        yield running


def requests_seen(upstream: Running) -> int:
    """How many requests have reached the upstream, those for this count not among them where it is the Python one."""
    text = get(f"http://127.0.0.1:{upstream.port}/status")
    if text.startswith("Active connections"):  # nginx's stub_status: the third number of the third line
        return int(text.splitlines()[2].split()[2])
    return int(text)


class StaticAnswer(asyncio.Protocol):
    """One connection of the Python upstream."""

    def __init__(self, seen: list[int], chunks: int, first_s: float, gap_s: float) -> None:
        self._seen = seen
        self._chunks = chunks
        self._first_s = first_s
        self._gap_s = gap_s
        self._framer = Framer()
        self._head = b""
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        for part, piece in self._framer.feed(data):
            if part is Part.HEAD:
                self._head = piece
                self._body = []
            elif part is Part.BODY:
                self._body.append(piece)
            else:
                self._answer(self._head, b"".join(self._body))

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /status"):
            self._write(_plain(b"text/plain", str(self._seen[0]).encode()))
            return
        self._seen[0] += 1
        serial = self._seen[0]
        if b'"stream":true' not in body.replace(b'"stream": true', b'"stream":true'):
            self._later(self._first_s, lambda: self._write(_plain(b"application/json", answer(serial))))
            return
        pieces = [b"%x\r\n%b\r\n" % (len(event), event) for event in events(serial, self._chunks, b"usage" in body)]
        pieces[-1] += b"0\r\n\r\n"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        if not self._gap_s:
            self._later(self._first_s, lambda: self._write(head + b"".join(pieces)))
            return
        pieces[0] = head + pieces[0]
        self._later(self._first_s, lambda: self._next(pieces, 0))

    def _next(self, pieces: list[bytes], position: int) -> None:
        self._write(pieces[position])
        if position + 1 < len(pieces) and self._transport:
            self._later(self._gap_s, lambda: self._next(pieces, position + 1))

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, act)
        else:
            act()

    def _write(self, piece: bytes) -> None:
        if self._transport:
            self._transport.write(piece)


def _plain(kind: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body)


async def serve(port: int, chunks: int, first_s: float, gap_s: float) -> None:
    """Answer until cancelled."""
    seen = [0]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StaticAnswer(seen, chunks, first_s, gap_s), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunks", type=int, default=25, help="pieces of text in a stream")
    parser.add_argument("--first-ms", type=float, default=0.0, help="time to the first byte")
    parser.add_argument("--gap-ms", type=float, default=0.0, help="time between the events of a stream")
    given = parser.parse_args()
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(given.port, given.chunks, given.first_ms / 1000, given.gap_ms / 1000))


if __name__ == "__main__":
    main()
