"""What the GenAI conventions ask of messages on a span, as JSON Schema: written down from what their own schemas say.

Source: open-telemetry/semantic-conventions-genai, model/gen-ai: the four schemas of messages, instructions and tools.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs

__all__ = ["checked"]


def _part(kind: str, **needed: Any) -> dict[str, Any]:
    return {"if": {"properties": {"type": {"const": kind}}}, "then": {"properties": needed, "required": [*needed]}}


_TEXT: dict[str, Any] = {"type": "string"}
_PARTS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["type"],
        "properties": {"type": _TEXT},
        "allOf": [
            _part("text", content=_TEXT),
            _part("reasoning", content=_TEXT),
            _part("tool_call", name=_TEXT),
            _part("tool_call_response", response={}),
            _part("blob", modality=_TEXT, content=_TEXT),
            _part("uri", modality=_TEXT, uri=_TEXT),
            _part("file", modality=_TEXT, file_id=_TEXT),
        ],
    },
}
_INPUT = {"type": "object", "required": ["role", "parts"], "properties": {"role": _TEXT, "parts": _PARTS}}
_OUTPUT = {
    "allOf": [_INPUT],
    "anyOf": [
        {"required": ["finish_reason"], "properties": {"finish_reason": _TEXT}},
        {"properties": {"role": {"const": "farthing"}}},  # the mark of what is left out
    ],
}
_TOOL = {"type": "object", "required": ["type", "name"], "properties": {"type": _TEXT, "name": _TEXT}}
_SCHEMAS: Mapping[str, dict[str, Any]] = {
    "gen_ai.input.messages": {"type": "array", "items": _INPUT},
    "gen_ai.output.messages": {"type": "array", "items": _OUTPUT},
    "gen_ai.system_instructions": _PARTS,
    "gen_ai.tool.definitions": {"type": "array", "items": _TOOL},
}
_VALIDATORS = {name: jsonschema_rs.Draft202012Validator(schema) for name, schema in _SCHEMAS.items()}


def checked(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that hold messages, read. Raises AssertionError, ValueError: one isn't as it must be."""
    found = {name: json.loads(attributes[name]) for name in _SCHEMAS if name in attributes}
    for name, value in found.items():
        faults = [fault.message for fault in _VALIDATORS[name].iter_errors(value)]
        assert not faults, (name, faults[:3])
    return found
