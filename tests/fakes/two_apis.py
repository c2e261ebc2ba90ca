"""Requests and answers that OpenAI's chats and Anthropic's messages can both say, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from farthing.cache.exact_json import dumps

__all__ = ["ANYTHING", "CALM", "chat_answers", "chat_requests", "message_answers"]

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # nobody's clock decides
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=24)
SAID = TEXT.filter(bool)
NAME = st.text("abcdefgh_0123456789", min_size=1, max_size=12)
COUNT = st.integers(0, 10**6)
LEAF = (
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
OBJECT = st.dictionaries(TEXT, VALUE, max_size=3)
WORDS = ("user", "assistant", "tool", "system", "text", "tool_use", "tool_result", "image", "image_url", "message")
EVENTS = ("thinking", "stop", "message_start", "content_block_start", "content_block_delta", "message_delta")
NAMES = (
    *("model", "messages", "role", "content", "type", "text", "tools", "tool_calls", "function", "name", "id"),
    *("arguments", "input", "tool_choice", "max_tokens", "stop", "choices", "delta", "message", "usage", "index"),
    *("finish_reason", "stop_reason", "content_block", "thinking", "reasoning_details", "signature", "error"),
    *("system", "source", "image_url", "url", "tool_use_id", "tool_call_id", "prompt_tokens", "input_tokens"),
)
ANYTHING = st.recursive(
    LEAF | st.sampled_from(WORDS + EVENTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)


def compact(value: Any) -> str:
    return dumps(value).decode()


@st.composite
def parts(draw: st.DrawFn, images: bool, text: st.SearchStrategy[str] = TEXT) -> Any:
    """A content: a text, or parts."""
    one: st.SearchStrategy[dict[str, Any]] = st.builds(lambda text: {"type": "text", "text": text}, SAID)
    if images:
        url = st.sampled_from(["data:image/png;base64,aGVsbG8=", "https://example.org/a.png", "http://example.org/b"])
        one |= st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, url)
        pdf = {"file_data": "data:application/pdf;base64,aGVsbG8=", "filename": "a.pdf"}
        one |= st.just({"type": "file", "file": pdf})
    marked = st.booleans().flatmap(
        lambda mark: one.map(lambda part: part | ({"cache_control": {"type": "ephemeral"}} if mark else {}))
    )
    return draw(text | st.lists(marked, min_size=1, max_size=3))


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    if draw(st.booleans()):
        out.append({"role": "system", "content": draw(parts(images=False, text=SAID))})
    for number in range(draw(st.integers(0, 3))):
        out.append({"role": "user", "content": draw(parts(images=True))})
        kind = draw(st.sampled_from(("text", "parts", "calls", "both")))
        if kind == "text":
            out.append({"role": "assistant", "content": draw(SAID)})
            continue
        if kind == "parts":
            texts = draw(st.lists(SAID, min_size=1, max_size=2))
            out.append({"role": "assistant", "content": [{"type": "text", "text": text} for text in texts]})
            continue
        calls = []
        for i in range(draw(st.integers(1, 3))):
            called = {"name": draw(NAME), "arguments": compact(draw(OBJECT))}
            calls.append({"id": f"call_{number}_{i}", "type": "function", "function": called})
        out.append({"role": "assistant", "content": draw(SAID) if kind == "both" else None, "tool_calls": calls})
        out += [{"role": "tool", "tool_call_id": call["id"], "content": draw(parts(images=False))} for call in calls]
    return [*out, {"role": "user", "content": draw(parts(images=True))}]


@st.composite
def chat_requests(draw: st.DrawFn) -> dict[str, Any]:
    """What a chat can ask that messages can ask too, in the form that comes back from there."""
    out: dict[str, Any] = {"model": draw(NAME), "messages": draw(turns())}
    out["max_completion_tokens"] = draw(st.integers(1, 10**6))
    maybe: dict[str, st.SearchStrategy[Any]] = {
        "temperature": st.sampled_from([0, 0.0, 0.3, 1, 1.0]),
        "top_p": st.sampled_from([0.1, 1]),
        "top_k": st.integers(1, 500),
        "stop": st.lists(SAID, min_size=1, max_size=4),
        "user": NAME,
        "service_tier": st.sampled_from(["auto", "default"]),
        "reasoning_effort": st.sampled_from(["none", "low", "medium", "high", "xhigh", "max"]),
        "cache_control": st.just({"type": "ephemeral", "ttl": "1h"}),
        "response_format": OBJECT.map(
            lambda schema: {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"} | schema, "strict": True},
            }
        ),
    }
    for name, values in maybe.items():
        if draw(st.booleans()):
            out[name] = draw(values)
    if draw(st.booleans()):
        out |= {"stream": True, "stream_options": {"include_usage": True}}
    names = draw(st.lists(NAME, max_size=3, unique=True))
    if names:
        out["tools"] = []
        for name in names:
            function = {"name": name, "parameters": {"type": "object"} | draw(OBJECT)}
            for field, values in (("description", TEXT), ("strict", st.booleans())):
                if draw(st.booleans()):
                    function[field] = draw(values)
            out["tools"].append({"type": "function", "function": function})
        choices = [None, "none", "auto", "required", {"type": "function", "function": {"name": names[0]}}]
        choice = draw(st.sampled_from(choices))
        if choice is not None:
            out["tool_choice"] = choice
            if choice != "none" and draw(st.booleans()):
                out["parallel_tool_calls"] = False
    return out


@st.composite
def message_answers(draw: st.DrawFn) -> dict[str, Any]:
    """Whole messages: signed and sealed thoughts, texts, calls, every end, every count."""
    blocks: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            blocks.append({"type": "thinking", "thinking": draw(SAID), "signature": draw(NAME)})
        else:
            blocks.append({"type": "redacted_thinking", "data": draw(NAME)})
    if text := draw(TEXT):
        blocks.append({"type": "text", "text": text})
    calls = draw(st.integers(0, 2))
    blocks += [
        {"type": "tool_use", "id": f"toolu_{i}", "name": draw(NAME), "input": draw(OBJECT)} for i in range(calls)
    ]
    end: dict[str, Any] = {"stop_reason": "tool_use", "stop_sequence": None}
    if not calls:
        reason = draw(st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "refusal"]))
        end = {"stop_reason": reason, "stop_sequence": draw(SAID) if reason == "stop_sequence" else None}
        if reason == "refusal":
            end["stop_details"] = {"type": "refusal", "category": None, "explanation": draw(SAID)}
    output = draw(COUNT)
    usage: dict[str, Any] = {
        "input_tokens": draw(COUNT),
        "cache_creation_input_tokens": draw(COUNT),
        "cache_read_input_tokens": draw(COUNT),
        "output_tokens": output,
    }
    if thought := draw(st.integers(0, output)):
        usage["output_tokens_details"] = {"thinking_tokens": thought}
    if tier := draw(st.sampled_from(["", "standard", "priority", "batch"])):
        usage["service_tier"] = tier
    base = {"id": draw(NAME), "type": "message", "role": "assistant", "model": draw(NAME), "content": blocks}
    return base | end | {"usage": usage}


@st.composite
def chat_answers(draw: st.DrawFn) -> dict[str, Any]:
    """Whole chat completions as OpenAI, DeepSeek and vLLM give them."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | SAID)}
    if draw(st.booleans()):
        message[draw(st.sampled_from(["reasoning_content", "reasoning"]))] = draw(SAID)
    calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": draw(NAME), "arguments": compact(draw(OBJECT))}}
        for i in range(draw(st.integers(0, 2)))
    ]
    if calls:
        message["tool_calls"] = calls
    finish = draw(st.sampled_from(["stop", "tool_calls"] if calls else ["stop", "length", "content_filter"]))
    choice = {"index": 0, "message": message, "finish_reason": finish}
    if finish == "stop" and draw(st.booleans()):
        choice["stop_reason"] = draw(SAID)
    given, made = draw(COUNT), draw(COUNT)
    reads = draw(st.integers(0, given))
    usage = {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": reads, "cache_write_tokens": draw(st.integers(0, given - reads))},
        "completion_tokens_details": {"reasoning_tokens": draw(st.integers(0, made))},
    }
    base = {"id": draw(NAME), "object": "chat.completion", "created": 1_700_000_000, "model": draw(NAME)}
    return base | {"choices": [choice], "usage": usage}
