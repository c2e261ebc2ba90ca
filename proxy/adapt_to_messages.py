"""A chat request as a request of Anthropic's messages. Pure. Rules: see adapt_shared.

Sources: OpenAI API reference, "Create chat completion"; Anthropic API reference, "Create a message". Left out because
it changes no answer: `metadata`, `store: false`, `prediction`, `prompt_cache_*`, `stream_options`, a response format's
name.
"""

from __future__ import annotations

from typing import Any

from farthing.cache.exact_json import dumps, loads
from farthing.proxy.adapt_shared import EFFORTS, Fields, Options, Refused, cached, failing_safely
from farthing.proxy.adapt_to_blocks import system_and_turns

__all__ = ["request_to_messages"]

_TIERS = {"auto": "auto", "default": "standard_only"}
_CHOICES = {"none": "none", "auto": "auto", "required": "any"}
_LEAST_BUDGET = 1024


@failing_safely
def request_to_messages(body: bytes, options: Options = Options()) -> bytes:  # noqa: B008 -- immutable
    """The body for `/v1/messages`. Raises Refused."""
    fields = Fields(loads(body))
    out: dict[str, Any] = {"model": fields.need("model", str)}
    out |= system_and_turns(fields)
    out["max_tokens"] = _max_tokens(fields, options)
    for name in ("top_p", "top_k"):
        if (number := fields.number(name)) is not None:
            out[name] = number
    if (temperature := fields.number("temperature")) is not None:
        if temperature > 1:
            raise Refused("temperature", "is at most 1 there")
        out["temperature"] = temperature
    if stop := _stop(fields):
        out["stop_sequences"] = stop
    if fields.take("stream", bool):
        out["stream"] = True
    out |= _tools(fields)
    out |= _thinking(fields, options, out["max_tokens"])
    if (form := _format(fields)) is not None:
        out["output_config"] = out.get("output_config", {}) | {"format": form}
    user = fields.take("user", str)
    who = fields.take("safety_identifier", str) or user
    if who:
        out["metadata"] = {"user_id": who}
    if (tier := fields.word("service_tier", _TIERS)) is not None:
        out["service_tier"] = tier
    if (mark := fields.take("cache_control", dict)) is not None:
        out["cache_control"] = mark
    _refuse_the_rest(fields)
    return dumps(out)


def _refuse_the_rest(fields: Fields) -> None:
    """Raises Refused for what asks for something that an Anthropic upstream can't do."""
    fields.may_be("n", 1, why="must be 1: that API gives one answer")
    fields.may_be("logprobs", False)
    fields.may_be("top_logprobs", 0)
    fields.may_be("logit_bias", {})
    fields.may_be("frequency_penalty", 0, 0.0)
    fields.may_be("presence_penalty", 0, 0.0)
    fields.may_be("modalities", ["text"])
    fields.may_be("store", False, why="can't be kept there: answers aren't stored")
    fields.may_be("verbosity", "medium")
    fields.may_be("functions", why="is the old form of tools: send `tools`")
    fields.may_be("function_call", why="is the old form of tools: send `tool_choice`")
    fields.leave_out(
        "metadata", "prediction", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "stream_options"
    )
    fields.done()


def _max_tokens(fields: Fields, options: Options) -> int:
    newer, older = fields.take("max_completion_tokens", int), fields.take("max_tokens", int)
    if newer is not None and older is not None and newer != older:
        raise Refused("max_tokens", "and max_completion_tokens say different things")
    return newer if newer is not None else older if older is not None else options.max_tokens


def _stop(fields: Fields) -> list[str]:
    value = fields.take("stop", object)
    stop = [value] if isinstance(value, str) else value or []
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise Refused("stop", "must be a text or a list of texts")
    return stop


def _thinking(fields: Fields, options: Options, max_tokens: int) -> dict[str, Any]:
    """Of `reasoning_effort`, or of `thinking`, which some clients of chats send as Anthropic has it."""
    effort, thinking = fields.take("reasoning_effort", str), fields.take("thinking", dict)
    if effort is not None and effort != "none" and effort not in EFFORTS:
        raise Refused("reasoning_effort", f"= {effort[:40]!r} isn't known")
    if thinking is not None and effort is not None:
        raise Refused("reasoning_effort", "and thinking are both there: send one of them")
    if effort is None:
        return {} if thinking is None else {"thinking": thinking}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if not options.budgets:
        effort = "low" if effort == "minimal" else effort
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    if max_tokens <= _LEAST_BUDGET:
        raise Refused("reasoning_effort", f"needs more than {_LEAST_BUDGET} tokens: raise max_completion_tokens")
    budget = max(_LEAST_BUDGET, min(EFFORTS[effort], max_tokens // 2))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _format(fields: Fields) -> dict[str, Any] | None:
    """A schema for the answer. Anthropic's is always kept to, so `strict` needs no counterpart."""
    asked = fields.take("response_format", dict)
    if asked is None:
        return None
    inner = Fields(asked, "response_format")
    kind = inner.need("type", str)
    if kind == "text":
        inner.done()
        return None
    if kind != "json_schema":
        raise Refused("response_format.type", "must be json_schema or text: there is no JSON mode without a schema")
    told = Fields(inner.need("json_schema", dict), "response_format.json_schema")
    inner.done()
    schema = told.need("schema", dict)
    about = told.take("description", str)
    told.leave_out("name", "strict")
    told.done()
    return {"type": "json_schema", "schema": {"description": about} | schema if about else schema}


def _tools(fields: Fields) -> dict[str, Any]:
    given, choice, parallel = (
        fields.take("tools", list),
        fields.take("tool_choice", object),
        fields.take("parallel_tool_calls", bool),
    )
    chosen: dict[str, Any] | None = None
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise Refused("tool_choice", f"= {choice[:40]!r} isn't known")
        chosen = {"type": _CHOICES[choice]}
    elif choice is not None:
        named = Fields(choice, "tool_choice")
        named.may_be("type", "function")
        function = Fields(named.need("function", dict), "tool_choice.function")
        chosen = {"type": "tool", "name": function.need("name", str)}
        function.done()
        named.done()
    if not given:
        if chosen is not None and chosen["type"] in ("any", "tool"):
            raise Refused("tool_choice", "asks for a tool, and there are none")
        return {}
    out: dict[str, Any] = {"tools": [_tool(tool, f"tools[{i}]") for i, tool in enumerate(given)]}
    if parallel is False and (chosen is None or chosen["type"] != "none"):
        chosen = (chosen or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    return out | ({} if chosen is None else {"tool_choice": chosen})


def _tool(tool: Any, where: str) -> dict[str, Any]:
    outer = Fields(tool, where)
    outer.may_be("type", "function", why="must be function: other kinds of tools have no counterpart")
    function = Fields(outer.need("function", dict), f"{where}.function")
    out: dict[str, Any] = {"name": function.need("name", str)}
    if (about := function.take("description", str)) is not None:
        out["description"] = about
    out["input_schema"] = function.take("parameters", dict) or {"type": "object", "properties": {}}
    if (strict := function.take("strict", bool)) is not None:
        out["strict"] = strict
    out = cached(outer, cached(function, out))
    function.done()
    outer.done()
    return out
