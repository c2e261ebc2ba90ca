"""Chat completions and their streams, for property tests: whole answers, and chunks in the way OpenAI's API sends."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

__all__ = ["completions", "sse", "streams"]

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=150)
_SOME = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
_NUMBER = st.sampled_from([-0.1, -1e-7, 0, 1.0, -9999.0, 2**53 + 1, 2**70, -0.0004313323])


def sse(chunks: list[dict[str, Any]], *, done: bool = True, newline: str = "\n", ascii_only: bool = False) -> bytes:
    """The chunks as a stream of server-sent events."""
    text = "".join(
        f"data: {json.dumps(chunk, separators=(',', ':'), ensure_ascii=ascii_only)}{newline * 2}" for chunk in chunks
    )
    return (text + (f"data: [DONE]{newline * 2}" if done else "")).encode()


def _tokens(text: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries({"token": text, "logprob": _NUMBER, "bytes": st.none()}), max_size=4)


_CALL = st.one_of(
    st.builds(
        lambda id_, name, arguments: {
            "id": id_,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        _SOME,
        _SOME,
        _TEXT,
    ),
    st.builds(
        lambda id_, name, text: {"id": id_, "type": "custom", "custom": {"name": name, "input": text}},
        _SOME,
        _SOME,
        _TEXT,
    ),
)


@st.composite
def _choice(draw: st.DrawFn, index: int) -> dict[str, Any]:
    content = draw(st.one_of(st.none(), _TEXT))
    message: dict[str, Any] = {"role": "assistant", "content": content}
    for name, values in (
        ("refusal", st.one_of(st.none(), _TEXT)),
        ("annotations", st.one_of(st.just([]), st.just([{"type": "url_citation", "url_citation": {"url": "u"}}]))),
        ("reasoning_content", st.one_of(st.none(), _TEXT)),
        ("reasoning_details", st.just([{"type": "reasoning.text", "text": "t", "index": 0}])),
        ("tool_calls", st.one_of(st.none(), st.lists(_CALL, max_size=3))),
        ("function_call", st.one_of(st.none(), st.just({"name": "f", "arguments": '{"a": 1}'}))),
        ("audio", st.none()),
        ("provider_note", st.one_of(st.none(), _SOME)),
    ):
        if draw(st.integers(0, 2)) == 0:
            message[name] = draw(values)
    choice: dict[str, Any] = {"index": index, "message": message}
    kind = draw(st.integers(0, 3))
    if kind == 1:
        choice["logprobs"] = None
    elif kind == 2:
        choice["logprobs"] = {"content": draw(_tokens(_TEXT)), "refusal": draw(st.one_of(st.none(), _tokens(_SOME)))}
    elif kind == 3 and content:
        cut = draw(st.integers(0, len(content)))
        tokens = [{"token": part, "logprob": -0.5, "bytes": None} for part in (content[:cut], content[cut:])]
        choice["logprobs"] = {"content": tokens, "refusal": None}
    choice["finish_reason"] = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    if draw(st.booleans()):
        choice["stop_reason"] = draw(st.sampled_from([None, 7, "END"]))
    return choice


@st.composite
def completions(draw: st.DrawFn) -> dict[str, Any]:
    """Well-formed chat completions, of one choice to three."""
    answer: dict[str, Any] = {
        "id": draw(_SOME),
        "object": "chat.completion",
        "created": draw(st.integers(1, 2**40)),
        "model": draw(_SOME),
        "choices": [draw(_choice(i)) for i in range(draw(st.integers(1, 3)))],
    }
    for name, values in (
        ("usage", st.one_of(st.none(), st.just({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}))),
        ("service_tier", st.sampled_from([None, "default"])),
        ("system_fingerprint", st.sampled_from([None, "fp_1"])),
        ("timings", st.just({"predicted_ms": 1.5, "big": 2**70})),
    ):
        if draw(st.booleans()):
            answer[name] = draw(values)
    return answer


@st.composite
def streams(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Chunks as OpenAI sends them: role first, deltas of text or calls, the end, and maybe usage."""
    usage = draw(st.booleans())
    envelope = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini",
        "service_tier": "default",
        "system_fingerprint": draw(st.sampled_from([None, "fp_1"])),
    }
    # One choice after the other; OpenAI interleaves them, which comes to the same.
    chunks = []
    for index in range(draw(st.integers(1, 2))):
        parts: list[tuple[dict[str, Any], Any, Any]]
        if draw(st.booleans()):
            texts = draw(st.lists(_TEXT, max_size=4))
            prob = {"content": [{"token": "t", "logprob": -0.25, "bytes": [116], "top_logprobs": []}], "refusal": None}
            logged = draw(st.booleans())
            parts = [({"role": "assistant", "content": "", "refusal": None}, None, None)]
            parts += [({"content": text}, prob if logged else None, None) for text in texts]
            parts.append(({}, None, "stop"))
        else:
            parts = [({"role": "assistant", "content": None, "refusal": None}, None, None)]
            for i in range(draw(st.integers(1, 3))):
                head = {"index": i, "id": f"call_{i}", "type": "function"}
                parts.append(({"tool_calls": [head | {"function": {"name": "f", "arguments": ""}}]}, None, None))
                for text in draw(st.lists(_TEXT, max_size=3)):
                    parts.append(({"tool_calls": [{"index": i, "function": {"arguments": text}}]}, None, None))
            parts.append(({}, None, "tool_calls"))
        for delta, logprobs, reason in parts:
            part = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            chunks.append(envelope | {"choices": [part]} | ({"usage": None} if usage else {}))
    if usage:
        chunks.append(
            envelope | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
        )
    for chunk in chunks:
        if draw(st.booleans()):
            chunk["obfuscation"] = draw(_SOME)
    return chunks
