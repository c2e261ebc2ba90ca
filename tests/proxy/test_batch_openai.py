"""A batch's files, line by line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farthing.proxy.batch_api import Line
from farthing.proxy.batch_openai import lines_in, request_line


def test_a_request_stands_on_one_line_with_its_body_byte_for_byte() -> None:
    body = b'{"model":"m", "temperature":0.10, "messages":[{"role":"user","content":"a\\nb"}]}'
    line = request_line("far-1", "/v1/chat/completions", body)
    assert b"\n" not in line and body in line
    assert json.loads(line) == {
        "custom_id": "far-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": json.loads(body),
    }


def line(custom_id: Any, response: Any, error: Any = None) -> bytes:
    return json.dumps({"id": "x", "custom_id": custom_id, "response": response, "error": error}).encode()


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (line("a", {"status_code": 200, "body": {"x": 1.0}}), [Line("a", 200, b'{"x": 1.0}')]),
        (line("a", {"status_code": 400, "body": {"error": {}}}), [Line("a", 400, b'{"error": {}}')]),
        (line("a", None, {"code": "batch_expired"}), [Line("a", 0, b"", "batch_expired")]),
        (line("a", {"status_code": 200}), [Line("a", 0, b"", "no answer")]),
        (line("a", {"status_code": 200, "body": None}), [Line("a", 0, b"", "no answer")]),
        (line("a", {"status_code": 200, "body": "[]"}), [Line("a", 0, b"", "no answer")]),
        (line("a", {"status_code": "200", "body": {}}), [Line("a", 0, b"", "no answer")]),
        (line("a", None, "strange"), [Line("a", 0, b"", "no answer")]),
        (line(7, {"status_code": 200, "body": {}}), []),
        (b"not json\n\n[1]\n" + line("b", None), [Line("b", 0, b"", "no answer")]),
        (b"", []),
    ],
)
def test_reads_output_and_error_files(raw: bytes, read: list[Line]) -> None:
    assert lines_in(raw) == read
