"""What outsiders write is refused in words or understood, whatever it is: configuration and traces. Hypothesis makes
it; the seeds are fixed here, and FARTHING_FUZZ_EXAMPLES makes longer runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from farthing.proxy.config import Config, effective, load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.replay_formats import FORMATS, recorded
from farthing.proxy.replay_read import open_trace
from farthing.proxy.replay_values import NotARequest

EXAMPLES = int(os.environ.get("FARTHING_FUZZ_EXAMPLES", "150"))
SLOWLY = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), names,
    st.sampled_from(["", "7d", "-1", "1e999", "http://127.0.0.1:1/v1", "p-0", "*", "../../etc/passwd", "a" * 5000]),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


def keys_of(model: type[Any], prefix: str = "", depth: int = 3) -> list[str]:
    """The dotted names of all that may be set, tables included."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        if depth and hasattr(field.annotation, "model_fields"):
            found += keys_of(field.annotation, f"{prefix}{name}.", depth - 1)
    return found


@seed(20261126)
@SLOWLY
@given(st.dictionaries(st.sampled_from(keys_of(Config)), values, min_size=1, max_size=4))
@example({"routes": [{"name": "a", "variants": ["a"]}], "variants": [{"name": "a", "model": "a", "upstream": "a"}]})
@example({"budgets": [{"usd": float("inf"), "per": "day"}]})
def test_any_configuration_is_understood_or_refused_in_words(flags: Mapping[str, Any]) -> None:
    try:
        config = load(None, {}, flags)
    except ConfigFault as fault:
        assert str(fault).strip()
        return
    assert load(None, {}, {}) is not None and effective(config) is not None


@seed(20261126)
@SLOWLY
@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
@example(b"[[routes]]\nname = 1\n")
@example(b"[cache]\nmode = 'serve'\n" * 2)
@example(b"\xff\xfe")
def test_any_file_is_a_configuration_or_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(text)
    try:
        load(path, {}, {})
    except ConfigFault as fault:
        assert str(path) in str(fault) or path.name in str(fault)


REAL = {
    "farthing": {"ts": 1.0, "endpoint": "chat", "tenant": "t", "request": {"model": "m", "messages": []}, "row": {}},
    "ledger": {
        "key_hash": "k",
        "cache_reason": "",
        "ts": 1.0,
        "endpoint": "chat",
        "model_requested": "m",
        "tokens_out": 5,
    },
    "openai": {"body": {"model": "m", "messages": [{"role": "user", "content": "x"}]}, "response": {"usage": {}}},
    "litellm": {"startTime": "2026-01-01T00:00:00Z", "call_type": "acompletion", "model": "m", "metadata": {}},
    "helicone": {"request_body": {"model": "m"}, "request_created_at": "2026-01-01", "response_body": {}},
    "langfuse": {"type": "GENERATION", "traceId": "t", "input": [{"role": "user", "content": "x"}], "usageDetails": {}},
}


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A line like one of a real export, with some of its fields put otherwise or left out, at any depth."""
    kind = draw(st.sampled_from(sorted(REAL)))
    line: dict[str, Any] = json.loads(json.dumps(REAL[kind]))
    for _ in range(draw(st.integers(1, 4))):
        place: Any = line
        while isinstance(place, dict) and place:
            name = draw(st.sampled_from(sorted(place)))
            if draw(st.booleans()) or not isinstance(place[name], dict):
                place[name] = draw(values)
                break
            place = place[name]
    return kind, line | draw(
        st.dictionaries(st.sampled_from(["usage", "tags", "status", "latency_ms", "user"]), values)
    )


def test_there_is_a_real_line_of_every_format() -> None:
    assert REAL.keys() == FORMATS.keys()


@seed(20261126)
@SLOWLY
@given(lines())
def test_a_line_of_any_export_is_a_request_or_says_why_not(told: tuple[str, dict[str, Any]]) -> None:
    kind, line = told
    for format in ("", kind):
        try:
            found = recorded(line, format)
        except NotARequest as error:
            assert str(error)
        else:
            assert found.usage is None or found.usage.tokens_in >= 0


@seed(20261126)
@SLOWLY
@given(st.lists(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()), max_size=12))
@example([b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03junk"])
@example([b"[1", b"\x80]"])
def test_every_line_of_a_file_is_read_or_counted(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    written = [part.replace(b"\n", b" ").replace(b"\r", b" ") for part in parts]
    path.write_bytes(b"\n".join(written) + b"\n" if written else b"")
    try:
        trace = open_trace(path)
    except ConfigFault as fault:
        assert str(fault)
        return
    try:
        read = [line for block in trace.blocks() for line in block.lines]
    except ConfigFault as fault:
        assert str(fault)
        return
    if not trace.array and not trace.newest_first and not trace.zipped:
        assert [line.rstrip(b"\r\n") for line in read if line.strip()] == [line for line in written if line.strip()]
