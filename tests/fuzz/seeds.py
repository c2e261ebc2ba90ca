"""Where fuzzing begins: for each target, inputs like real ones, made from what the tests know of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from farthing.cache import reshape
from farthing.cache.codec import encode
from farthing.cache.entry import Entry
from farthing.proxy.object_graph import lines_of_graph
from tests.fakes.adapters import chat
from tests.security.test_fuzz import REAL

__all__ = ["seeds"]

_CLAUDE = {"model": "m", "max_tokens": 9, "system": "s", "messages": [{"role": "user", "content": "hi"}]}
_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
_ANSWER: dict[str, Any] = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello there."}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}  # fmt: skip
_MESSAGE: dict[str, Any] = {
    "id": "m1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn", "stop_sequence": None,
    "content": [{"type": "text", "text": "Hi."}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
    "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip
_ROWS = json.dumps([{"id": n, "name": f"item {n}", "ok": n % 2 == 0} for n in range(20)], indent=1)
_LOG = "\n".join(f"2026-01-01 10:00:{n:02d} INFO worker-{n % 3} job {n} done in {n * 7 % 9} ms" for n in range(20))
_TABLE = "| id | name |\n|---|---|\n" + "\n".join(f"| {n} | item {n} |" for n in range(12))
_ANSI = "\x1b[1mname   size\x1b[0m\n" + "\n".join(f"\x1b[32mfile{n}\x1b[0m   {n * 100}" for n in range(8))
_PAGE = f"<!doctype html><html><body><table>{'<tr><td>1</td><td><b>x</b></td></tr>' * 12}</table></body></html>"
_PROSE = "The merger is on. It was agreed in May. Nobody knows the price. " * 6
_TOML = '[upstream]\nurl = "http://127.0.0.1:1/v1"\n[cache]\nttl_s = 5\n[[budgets]]\nusd = 1\nper = "day"\n'


def seeds() -> dict[str, list[bytes]]:
    """By target."""
    answers = [_json(_ANSWER), _json(_MESSAGE)]
    streams = [*_streams()]
    bodies = [
        _json(chat()), _json(_CLAUDE), _json(chat(tools=[{"type": "function", "function": {"name": "f"}}], n=1e2)),
        _json({"model": "m", "input": "x", "stream": True}),
        _json(chat(messages=[{"role": "assistant", "content": None, "tool_calls": [_CALL]},
                             {"role": "tool", "tool_call_id": "c", "content": _ROWS}])),
    ]  # fmt: skip
    entry = Entry(
        key="a" * 32, scope="t", endpoint="chat", model_requested="m", model_served="m", shape="whole",
        content_type="application/json", body=b"{}", usage=None, stored_s=1.0, expires_s=9.0, tags=(("a", "b"),),
    )  # fmt: skip
    raw = encode(entry)
    texts = [_ROWS, _LOG, _TABLE, _ANSI, _PAGE, _PROSE]
    return {
        "sse": [b"\x03" + stream for stream in streams] + [b"\x00event: x\r\ndata: 1\rdata:2\n\n: note\n\n"],
        "key": bodies,
        "tidied": [*bodies, _ROWS.encode(), b'{ "a" : 1e3, "b" : [ 1.0, "\\u00e9" ] }'],
        "compressed": [f"Which item is number 7?\0{text}".encode() for text in texts],
        "config": [_TOML.encode(), b"[server]\nport = 1\n"],
        "importers": [json.dumps(line).encode() for line in REAL.values()] + [b"[" + _json(REAL["openai"]) + b"]"],
        "adapters": [*bodies, *answers, *streams, _json({"error": {"message": "x", "type": "y"}})],
        "stored": [raw, raw[24:], b"\n".join(lines_of_graph([1, (2.5, b"x"), {"a": None}], {}))],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()  # compact, which takes the short way


def _streams() -> Iterator[bytes]:
    for answer, endpoint in ((_ANSWER, "chat"), (_MESSAGE, "messages")):
        made = reshape.split(_json(answer), endpoint, include_usage=True)
        if made is not None:
            yield made
