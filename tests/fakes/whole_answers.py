"""Whole answers of Responses, messages and legacy completions, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["messages", "responses", "text_completions"]

_CHARS = st.characters(exclude_categories=("Cs",))
TEXT = st.text(_CHARS, max_size=150)
SOME = st.text(_CHARS, min_size=1, max_size=12)
_NUMBER = st.sampled_from([-0.1, -1e-7, 0, 1.0, -9999.0, 2**53 + 1, 2**70, 0.25])
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBER, SOME),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(SOME, inner, max_size=3)),
    max_leaves=6,
)


def _with(draw: st.DrawFn, target: dict[str, Any], **fields: st.SearchStrategy[Any]) -> dict[str, Any]:
    """Some of the fields, as they happen to be drawn."""
    return target | {name: draw(values) for name, values in fields.items() if draw(st.booleans())}


# -- legacy completions


@st.composite
def _completion_choice(draw: st.DrawFn, index: int) -> dict[str, Any]:
    tokens = draw(st.lists(TEXT, max_size=5))
    choice: dict[str, Any] = {"text": "".join(tokens), "index": index}
    kind = draw(st.integers(0, 2))
    if kind == 1:
        choice["logprobs"] = None
    elif kind == 2:
        begins = draw(st.sampled_from([0, 17]))
        choice["logprobs"] = {
            "tokens": tokens,
            "token_logprobs": [draw(st.one_of(st.none(), _NUMBER)) for _ in tokens],
            "top_logprobs": draw(st.sampled_from([None, [{token: -0.5} for token in tokens]])),
            "text_offset": [begins + sum(map(len, tokens[:i])) for i in range(len(tokens))],
        }
    choice["finish_reason"] = draw(st.sampled_from(["stop", "length", "content_filter"]))
    return _with(draw, choice, stop_reason=st.sampled_from([None, 7, "END"]), prompt_logprobs=st.none())


@st.composite
def text_completions(draw: st.DrawFn) -> dict[str, Any]:
    """Well-formed completions, of one choice to three."""
    answer = {
        "id": draw(SOME),
        "object": "text_completion",
        "created": draw(st.integers(1, 2**40)),
        "model": draw(SOME),
        "choices": [draw(_completion_choice(i)) for i in range(draw(st.integers(1, 3)))],
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return _with(draw, answer, usage=st.just(usage), system_fingerprint=st.sampled_from([None, "fp_1"]))


# -- Responses


@st.composite
def _output_text(draw: st.DrawFn) -> dict[str, Any]:
    cited = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "u", "title": "t"}
    part = {"type": "output_text", "annotations": draw(st.sampled_from([[], [cited]])), "text": draw(TEXT)}
    token = {"token": "t", "bytes": [116], "logprob": -0.25, "top_logprobs": []}
    return _with(draw, part, logprobs=st.sampled_from([[], [token], [token, token | {"token": "u"}]]))


@st.composite
def _item(draw: st.DrawFn, index: int) -> dict[str, Any]:
    kind = draw(st.sampled_from(["message", "message", "reasoning", "function_call", "custom_tool_call"]))
    item: dict[str, Any] = {"id": f"{kind}_{index}", "type": kind}
    match kind:
        case "message":
            refusal = st.fixed_dictionaries({"type": st.just("refusal"), "refusal": TEXT})
            parts = draw(st.lists(st.one_of(_output_text(), refusal), max_size=3))
            item |= {"status": "completed", "content": parts, "role": "assistant"}
            return _with(draw, item, phase=st.sampled_from([None, "final_answer"]))
        case "reasoning":
            said = [{"type": "summary_text", "text": text} for text in draw(st.lists(TEXT, max_size=3))]
            thought = st.lists(TEXT.map(lambda text: {"type": "reasoning_text", "text": text}), max_size=2)
            sealed = st.sampled_from([None, "gAAA"])
            return _with(
                draw,
                item | {"summary": said},
                content=st.one_of(st.none(), thought),
                encrypted_content=sealed,
                status=st.sampled_from([None, "completed"]),
            )
        case _:
            text = {"arguments" if kind == "function_call" else "input": draw(TEXT)}
            item |= {"call_id": f"call_{index}", "name": draw(SOME)} | text
            return _with(draw, item, status=st.just("completed"), namespace=st.none())


@st.composite
def responses(draw: st.DrawFn) -> dict[str, Any]:
    """Complete responses with messages, refusals, reasoning and calls."""
    answer: dict[str, Any] = {
        "id": draw(SOME),
        "object": "response",
        "created_at": draw(st.integers(1, 2**40)),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": draw(st.one_of(st.none(), TEXT)),
        "metadata": {},
        "model": draw(SOME),
        "output": [draw(_item(i)) for i in range(draw(st.integers(0, 4)))],
        "parallel_tool_calls": True,
        "temperature": draw(st.sampled_from([None, 1.0, 0.7])),
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 1},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 5,
        },
    }
    return _with(draw, answer, completed_at=st.integers(1, 2**40), service_tier=st.just("default"), vendor_note=_JSON)


# -- Anthropic messages


@st.composite
def _block(draw: st.DrawFn, index: int) -> dict[str, Any]:
    match draw(st.sampled_from(["text", "text", "tool_use", "thinking", "redacted_thinking"])):
        case "text":
            cited = {"type": "char_location", "cited_text": "c", "document_index": 0, "document_title": None,
                     "start_char_index": 0, "end_char_index": 1, "file_id": None}  # fmt: skip
            return _with(draw, {"type": "text", "text": draw(TEXT)}, citations=st.sampled_from([None, [], [cited] * 2]))
        case "tool_use":
            given = draw(st.dictionaries(SOME, _JSON, max_size=3))
            return {"type": "tool_use", "id": f"toolu_{index}", "name": draw(SOME), "input": given}
        case "thinking":
            return {"type": "thinking", "thinking": draw(TEXT), "signature": draw(TEXT)}
        case _:
            return {"type": "redacted_thinking", "data": draw(SOME)}


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Complete messages with text, thinking and calls."""
    stop = draw(st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "tool_use"]))
    usage = _with(
        draw,
        {"input_tokens": draw(st.integers(0, 99)), "output_tokens": draw(st.integers(0, 99))},
        cache_read_input_tokens=st.integers(0, 9),
        cache_creation_input_tokens=st.sampled_from([None, 0, 7]),
        cache_creation=st.just({"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0}),
        service_tier=st.just("standard"),
        output_tokens_details=st.sampled_from([None, {"thinking_tokens": 3}]),
    )
    answer: dict[str, Any] = {
        "model": draw(SOME),
        "id": draw(SOME),
        "type": "message",
        "role": "assistant",
        "content": [draw(_block(i)) for i in range(draw(st.integers(0, 4)))],
        "stop_reason": stop,
        "stop_sequence": "END" if stop == "stop_sequence" else None,
        "usage": usage,
    }
    return _with(draw, answer, stop_details=st.none(), container=st.none(), context_management=st.none())
