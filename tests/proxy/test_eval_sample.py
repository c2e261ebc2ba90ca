"""Datasets out of recorded traffic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from farthing.policies.dataset import EvalCase, read_cases
from farthing.policies.outcome import Outcome
from farthing.proxy.clock import SystemClock
from farthing.proxy.config import load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.eval_sample import Source, Wanted, bad_ratings, from_capture, from_trace, gather, sample, write
from farthing.proxy.redact import KINDS, Redactor


def line(number: int, text: str, says: str = "Yes.", **more: Any) -> bytes:
    answer = {"object": "chat.completion", "choices": [{"message": {"content": says}, "finish_reason": "stop"}]}
    value = {
        "id": f"far-{number}", "ts": float(number), "tenant": "t", "tags": {"team": "a"}, "endpoint": "chat",
        "status": 200,
        "request": {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True},
        "response": answer, "row": None, "path": "/v1/chat/completions", "user": "",
    }  # fmt: skip
    return orjson.dumps(value | more)


def gathered(*lines: bytes, **more: Any) -> Source:
    return gather(enumerate(lines, 1), **more)


def test_equal_requests_become_one_case_that_stands_for_all() -> None:
    source = gathered(line(1, "a?", "one"), line(2, "b?"), line(3, "a?", "two"))
    (first, second) = source.cases.values()
    assert (first.weight, second.weight, source.whole) == (2.0, 1.0, 3)
    assert first.reference is not None and first.reference["choices"][0]["message"]["content"] == "two"
    assert "stream" not in first.request and first.slices["tag:team"] == "a"


def test_what_can_not_be_used_is_counted_by_the_reason() -> None:
    source = gathered(
        line(1, "a?", status=500),
        b"{",
        line(2, "b?", response=None),
        line(3, "c?", endpoint="embeddings"),
        line(4, "d?"),
    )
    assert len(source.cases) == 1 and source.broken.told == [(2, "not JSON")]
    assert sum(source.left_out.values()) == 3 and source.left_out["failed"] == 1


def test_a_bad_rating_becomes_a_case_without_its_answer() -> None:
    bad = bad_ratings([Outcome("far-2", "rating", 0.0, 1, 1), Outcome("far-1", "click", 0.0, 1, 1)])
    source = gathered(line(1, "a?"), line(2, "b?"), bad=bad)
    found = sample(source, Wanted(adversarial=0.0)).parts[0]
    rated = [case for case in found if case.source == "rating"]
    assert [(case.id, case.reference) for case in rated] == [("far-2-rated", None)]


def test_a_rated_case_is_in_one_part_once_and_the_weights_stay_productions() -> None:
    lines = [line(number, f"question {number % 40}?") for number in range(100)]
    source = gathered(*lines, bad=frozenset(("far-3", "far-43", "far-60")))
    parts = sample(source, Wanted(size=40, shares=(0.5, 0.5), adversarial=0.0)).parts
    asked = [[case.request["messages"][0]["content"] for case in part] for part in parts]
    assert len(set(asked[0]) | set(asked[1])) == len(asked[0]) + len(asked[1])
    assert {case.id: case.weight for part in parts for case in part if case.source == "rating"} == {
        "far-3-rated": 3.0, "far-60-rated": 2.0
    }  # fmt: skip
    assert sum(case.weight for part in parts for case in part) == pytest.approx(100)


def test_names_and_keys_are_taken_out() -> None:
    redactor = Redactor(KINDS, [], b"secret", SystemClock())
    source = gathered(line(1, "write to ann@example.org", "Done, ann@example.org"), redactor=redactor)
    (case,) = source.cases.values()
    assert b"ann@" not in orjson.dumps([case.request, case.reference])


def test_parts_are_in_time_and_share_nothing() -> None:
    lines = [line(number, f"question {number % 40}?") for number in range(100)]
    lines.append(line(101, "  QUESTION 3?".lower() + " "))  # the same but for white space
    parts = sample(gathered(*lines), Wanted(size=60, shares=(0.5, 0.5), adversarial=0.0)).parts
    texts = [{case.request["messages"][0]["content"].strip() for case in part} for part in parts]
    assert not texts[0] & texts[1] and all(texts)


def test_traps_follow_their_originals_and_say_what_is_expected() -> None:
    source = gathered(*(line(number, f"Is it open on Monday at {number}?") for number in range(10, 30)))
    found = sample(source, Wanted(size=20, adversarial=1.0)).parts[0]
    traps = [case for case in found if case.of]
    assert {"generated:number", "generated:negation", "generated:unicode"} <= {case.source for case in traps}
    ids = [case.id for case in found]
    assert all(ids.index(case.of) < ids.index(case.id) and case.reference is None for case in traps)
    assert {case.expect for case in traps} == {"same", "other"}


def test_it_is_the_same_for_the_same_seed() -> None:
    lines = [line(number, f"q {number}?") for number in range(50)]
    one, other = (sample(gathered(*lines), Wanted(size=10, seed=4)) for _ in range(2))
    assert one == other


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b"\n".join([line(1, "a?"), b"", line(2, "b?")]))
    return path


def test_a_trace_is_read_and_a_file_written_whole(trace: Path, tmp_path: Path) -> None:
    found = sample(gather(from_trace(trace)), Wanted(adversarial=0.0)).parts[0]
    out = tmp_path / "suite.jsonl"
    write(out, found)
    assert [case.id for case in _cases(out)] == ["far-1", "far-2"]
    assert out.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigFault):
        write(out / "suite.jsonl", found)


def test_without_captures_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault, match=r"capture\.enabled"):
        list(from_capture(load(None, {}, {"state_dir": tmp_path}), 0.0))


def _cases(path: Path) -> Iterator[EvalCase]:
    for found in read_cases(path.read_bytes().splitlines()):
        assert isinstance(found, EvalCase)
        yield found
