"""The benchmarks of stored entries have a line for each way, and read back what they store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import entry_codec, entry_pieces


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "compress").mkdir()
    for name, role in entry_codec._SLICES:
        said = [f"{name}: order {number} goes out on day {number % 28}." for number in range(200)]
        lines = [
            json.dumps({"messages": [{"role": role, "content": one}, {"role": "x", "content": ""}]}) for one in said
        ]
        (tmp_path / "compress" / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    return tmp_path


def test_each_kind_of_body_has_a_line_for_each_size(data: Path) -> None:
    lines = list(entry_codec.rows(data, [9_000, 30_000], rounds=1, round_s=0.0))
    assert len(lines) == 2 + 2 * len(entry_codec.KINDS)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert "zlib 1" in lines[0] and "zstd 1" in lines[0]


def test_a_body_is_as_an_upstream_sends_it() -> None:
    assert json.loads(entry_codec.chat("hello"))["choices"][0]["message"]["content"] == "hello"
    events = entry_codec.stream("Hello there, you.").decode().split("\n\n")
    parts = [json.loads(one.removeprefix("data: "))["choices"] for one in events[:-3]]
    assert "".join(one[0]["delta"]["content"] for one in parts) == "Hello there, you."
    assert events[-2:] == ["data: [DONE]", ""]


def test_whole_and_in_pieces_have_a_line_each_for_both_ways() -> None:
    lines = list(entry_pieces.rows([entry_pieces._WHOLE, 50_000], rounds=1, count=1, size=200_000))
    assert [line.split(" | ")[1] for line in lines[2:]] == ["stored", "read"] * 2
    assert all(line.count("|") == lines[0].count("|") for line in lines)
