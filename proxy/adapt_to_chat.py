"""A request of Anthropic's messages as a chat request. Pure. Rules: see adapt_shared.

Sources: Anthropic API reference, "Create a message"; OpenAI API reference, "Create chat completion". Left out because
it changes no answer: `diagnostics`, marks of a cache's breakpoints (unless the upstream takes them), how thinking is
shown, which thoughts of earlier turns are cleared (none of them goes along), how a tool's input is streamed.
"""

from __future__ import annotations

from typing import Any

from farthing.cache.exact_json import dumps, loads
from farthing.proxy.adapt_shared import EFFORTS, Fields, Options, Refused, cached, failing_safely, named_user
from farthing.proxy.adapt_to_turns import instruction, turns_of

__all__ = ["request_to_chat"]

_TIERS = {"auto": "auto", "standard_only": "default"}
_CHOICES = {"none": "none", "auto": "auto", "any": "required"}
_SAME = ("low", "medium", "high", "xhigh", "max")
_CLEARS_THOUGHTS = "clear_thinking_"
_MEANT = ("low", "medium", "high")  # by a budget: what every model that thinks knows


@failing_safely
def request_to_chat(body: bytes, options: Options = Options()) -> bytes:  # noqa: B008 -- immutable
    """The body for `/v1/chat/completions`. A stream is asked for its usage. Raises Refused."""
    fields = Fields(loads(body))
    out: dict[str, Any] = {"model": fields.need("model", str)}
    system = fields.take("system", object)
    first = [] if system is None else [instruction(system, "system", options)]
    out["messages"] = first + turns_of(fields.need("messages", list), options)
    out[options.max_tokens_field] = fields.need("max_tokens", int)
    for name in ("temperature", "top_p"):
        if (number := fields.number(name)) is not None:
            out[name] = number
    if (top_k := fields.number("top_k")) is not None:
        if not options.top_k:
            raise Refused("top_k")
        out["top_k"] = top_k
    if stop := fields.take("stop_sequences", list):
        out["stop"] = stop
    if fields.take("stream", bool):
        out |= {"stream": True} | ({"stream_options": {"include_usage": True}} if options.stream_usage else {})
    out |= _tools(fields, options) | _thinking(fields)
    if (about := fields.take("metadata", dict)) is not None:
        inner = Fields(about, "metadata")
        if (user := inner.take("user_id", str)) is not None:
            out["user"] = named_user(user)
        inner.done()
    if (tier := fields.word("service_tier", _TIERS)) is not None:
        out["service_tier"] = tier
    mark = fields.take("cache_control", dict)
    if mark is not None and options.cache_control:
        out["cache_control"] = mark
    fields.may_be("speed", "standard")
    fields.may_be("inference_geo", "global", "not_available")
    fields.leave_out("diagnostics")
    _edited(fields)
    fields.done()
    return dumps(out)


def _edited(fields: Fields) -> None:
    """Raises Refused: what is kept of earlier turns would be edited otherwise than by clearing thoughts."""
    if (managed := fields.take("context_management", dict)) is None:
        return
    inner = Fields(managed, "context_management")
    for i, edit in enumerate(inner.take("edits", list) or []):
        one = Fields(edit, f"context_management.edits[{i}]")
        if not one.need("type", str).startswith(_CLEARS_THOUGHTS):
            raise Refused(one.path("type"))
    inner.done()


def _thinking(fields: Fields) -> dict[str, Any]:
    """The effort, which is said outright, or meant by a budget, or not at all; and the answer's schema."""
    out: dict[str, Any] = {}
    if (config := fields.take("output_config", dict)) is not None:
        inner = Fields(config, "output_config")
        effort = inner.word("effort", {name: name for name in _SAME})
        if effort is not None:
            out["reasoning_effort"] = effort
        if (form := inner.take("format", dict)) is not None:
            asked = Fields(form, "output_config.format")
            asked.may_be("type", "json_schema")
            told = {"name": "answer", "schema": asked.need("schema", dict), "strict": True}
            out["response_format"] = {"type": "json_schema", "json_schema": told}
            asked.done()
        inner.done()
    if (thinking := fields.take("thinking", dict)) is not None:
        inner = Fields(thinking, "thinking")
        kind = inner.need("type", str)
        inner.leave_out("display")
        if kind == "disabled":
            out["reasoning_effort"] = "none"
        elif kind == "enabled":
            budget = inner.need("budget_tokens", int)
            meant = [name for name in _MEANT if EFFORTS[name] <= max(budget, EFFORTS["low"])]
            out.setdefault("reasoning_effort", meant[-1])
        elif kind == "adaptive":
            inner.may_be("budget_tokens", 0)
        else:
            raise Refused("thinking.type", f"= {kind[:40]!r} has no counterpart")
        inner.done()
    return out


def _tools(fields: Fields, options: Options) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if tools := fields.take("tools", list):
        out["tools"] = [_tool(tool, f"tools[{i}]", options) for i, tool in enumerate(tools)]
    if (choice := fields.take("tool_choice", dict)) is not None:
        inner = Fields(choice, "tool_choice")
        kind = inner.need("type", str)
        if kind == "tool":
            out["tool_choice"] = {"type": "function", "function": {"name": inner.need("name", str)}}
        elif kind in _CHOICES:
            out["tool_choice"] = _CHOICES[kind]
        else:
            raise Refused("tool_choice.type", f"= {kind[:40]!r} isn't known")
        if inner.take("disable_parallel_tool_use", bool):
            out["parallel_tool_calls"] = False
        inner.done()
        if not tools and kind in ("any", "tool"):
            raise Refused("tool_choice", "asks for a tool, and there are none")
    return out if tools else {}


def _tool(tool: Any, where: str, options: Options) -> dict[str, Any]:
    fields = Fields(tool, where)
    fields.may_be("type", "custom", why="must be custom: the upstream has no tools of its own")
    function: dict[str, Any] = {"name": fields.need("name", str)}
    if (about := fields.take("description", str)) is not None:
        function["description"] = about
    function["parameters"] = fields.need("input_schema", dict)
    if (strict := fields.take("strict", bool)) is not None:
        function["strict"] = strict
    fields.may_be("defer_loading", False)
    fields.may_be("allowed_callers", ["direct"])
    fields.may_be("input_examples", [])
    fields.leave_out("eager_input_streaming")
    out = cached(fields, {"type": "function", "function": function}, keep=options.cache_control)
    fields.done()
    return out
