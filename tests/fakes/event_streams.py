"""A whole answer of Responses, messages or legacy completions as its provider would have streamed it.

`cut`: how a text is cut into deltas. It shares no code with farthing. Sources: OpenAI API reference, "Streaming events"
of Responses and "The completion object"; Anthropic API reference, "Streaming messages".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["Cut", "by_words", "completion_chunks", "in_shape", "message_events", "response_events", "written"]

Cut = Callable[[str], list[str]]


def by_words(text: str) -> list[str]:
    """Word by word, as a model speaks."""
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [word for word in words[-1:] if word]


def written(events: list[dict[str, Any]], *, names: bool, done: bool, ascii_only: bool = False) -> list[bytes]:
    """Events as they go over the wire. `names`: with `event:` lines. `done`: with `[DONE]`."""
    pieces = [
        (f"event: {event['type']}\n" if names else "") + f"data: {json.dumps(event, ensure_ascii=ascii_only)}\n\n"
        for event in events
    ]
    return [piece.encode() for piece in [*pieces, *(["data: [DONE]\n\n"] if done else [])]]


def completion_chunks(whole: dict[str, Any], cut: Cut, *, usage: bool) -> list[dict[str, Any]]:
    """One choice's chunk after another's, each with as many tokens as it has text for; the end last."""
    base = {name: item for name, item in whole.items() if name not in ("choices", "usage")}
    tail = {"usage": None} if usage else {}
    rows = []
    for choice in whole["choices"]:
        logged = {"logprobs": None} if "logprobs" in choice else {}
        logs = choice.get("logprobs")
        row: list[dict[str, Any]] = []
        if logs is None:
            row = [{"text": piece, **logged} for piece in cut(choice["text"])]
        else:
            for i, token in enumerate(logs["tokens"]):
                one = {name: None if items is None else items[i : i + 1] for name, items in logs.items()}
                row.append({"text": token, "logprobs": one})
            if not row:
                row = [{"text": "", "logprobs": logs}]
        row = [{"index": choice["index"], **piece, "finish_reason": None} for piece in row]
        row.append(choice | {"text": ""} | logged)
        rows.append(row)
    most = max(map(len, rows))
    chunks = [base | {"choices": [row[i]]} | tail for i in range(most) for row in rows if i < len(row)]
    return [*chunks, base | {"choices": [], "usage": whole["usage"]}] if usage else chunks


def response_events(whole: dict[str, Any], cut: Cut) -> list[dict[str, Any]]:
    """The events of a response, numbered."""
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    events.append({"type": "response.in_progress", "response": begun})

    def grows(base: str, at: dict[str, Any], name: str, text: str, more: dict[str, Any]) -> None:
        pieces = cut(text)
        for i, piece in enumerate(pieces):
            logged = {"logprobs": more["logprobs"] if i + 1 == len(pieces) else []} if "logprobs" in more else {}
            events.append(
                {"type": f"{base}.delta", **at, "delta": piece, **logged, "obfuscation": "x" * (len(piece) % 7)}
            )
        events.append({"type": f"{base}.done", **at, name: text, **more})

    for index, item in enumerate(whole["output"]):
        place = {"output_index": index}
        empty: dict[str, Any] = {"content": []} if item.get("content") is not None else {}
        empty |= {name: value for name, value in (("summary", []), ("arguments", ""), ("input", "")) if name in item}
        going = {"status": "in_progress"} if item.get("status") else {}
        events.append({"type": "response.output_item.added", **place, "item": item | empty | going})
        at = {"item_id": item["id"], **place}
        for i, part in enumerate(item.get("summary") or []):
            here = at | {"summary_index": i}
            events.append({"type": "response.reasoning_summary_part.added", **here, "part": part | {"text": ""}})
            grows("response.reasoning_summary_text", here, "text", part["text"], {})
            events.append({"type": "response.reasoning_summary_part.done", **here, "part": part})
        for i, part in enumerate(item.get("content") or []):
            here = at | {"content_index": i}
            name = "refusal" if part["type"] == "refusal" else "text"
            blank: dict[str, Any] = {"annotations": [], "logprobs": []} if part["type"] == "output_text" else {}
            events.append({"type": "response.content_part.added", **here, "part": part | {name: ""} | blank})
            logged = {"logprobs": part.get("logprobs", [])} if part["type"] == "output_text" else {}
            if logged.get("logprobs") and not cut(part[name]):
                events.append({"type": "response.output_text.delta", **here, "delta": "", **logged})
            grows(f"response.{part['type']}", here, name, part[name], logged)
            for number, cited in enumerate(part.get("annotations", [])):
                told = {"annotation_index": number, "annotation": cited}
                events.append({"type": "response.output_text.annotation.added", **here, **told})
            events.append({"type": "response.content_part.done", **here, "part": part})
        if item["type"] == "function_call":
            more = {"name": item["name"]}
            grows("response.function_call_arguments", at, "arguments", item["arguments"], more)
        elif item["type"] == "custom_tool_call":
            grows("response.custom_tool_call_input", at, "input", item["input"], {})
        events.append({"type": "response.output_item.done", **place, "item": item})
    events.append({"type": "response.completed", "response": whole})
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


def message_events(whole: dict[str, Any], cut: Cut) -> list[dict[str, Any]]:
    """The events of a message, with a ping."""
    usage = whole["usage"]
    late = {name: item for name, item in usage.items() if name == "output_tokens_details"}
    early = {name: item for name, item in usage.items() if name not in late}
    later = {name: None for name in ("stop_details", "container", "context_management") if name in whole}
    start = whole | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": early | {"output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start | later}]
    for index, block in enumerate(whole["content"]):
        deltas: list[dict[str, Any]] = []
        begun = block
        match block["type"]:
            case "text":
                begun = block | {"text": ""} | ({"citations": []} if block.get("citations") else {})
                deltas = [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
                deltas += [{"type": "citations_delta", "citation": one} for one in block.get("citations") or []]
            case "tool_use":
                begun = block | {"input": {}}
                given = cut(json.dumps(block["input"])) if block["input"] else []
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *given]]
            case "thinking":
                begun = block | {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        if not index:
            events.append({"type": "ping"})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ending = {name: whole[name] for name in ("stop_reason", "stop_sequence")}
    ending |= {name: whole[name] for name in ("stop_details", "container") if name in whole}
    counts = {"output_tokens": usage["output_tokens"], **late}
    beside = {"context_management": whole["context_management"]} if "context_management" in whole else {}
    events.append({"type": "message_delta", "delta": ending, "usage": counts, **beside})
    return [*events, {"type": "message_stop"}]


def in_shape(path: str, asked: dict[str, Any], whole: dict[str, Any]) -> tuple[str, list[bytes]]:
    """The whole answer as the request asked for it: its content type, and the pieces that are written."""
    if not asked.get("stream"):
        return "application/json", [json.dumps(whole).encode()]
    match path:
        case "/v1/completions":
            usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            pieces = written(completion_chunks(whole, by_words, usage=usage), names=False, done=True)
        case "/v1/responses":
            pieces = written(response_events(whole, by_words), names=True, done=False)
        case _:
            pieces = written(message_events(whole, by_words), names=True, done=False)
    return "text/event-stream", pieces
