"""Teacher's answers as lines for fine-tuning. Pure.

Sources: OpenAI API reference, "Fine-tuning: chat format" (JSON lines of `messages`); Stanford Alpaca's `data_release`
(instruction, input, output); ShareGPT's `conversations` (from, value), as axolotl and LLaMA-Factory read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import orjson

from farthing.proxy.distill_rows import TeacherRow

__all__ = ["FORMATS", "NoSuchForm"]


class NoSuchForm(ValueError):
    """The format has no words for this row; the message says why."""


def _openai(row: TeacherRow) -> bytes:
    messages = [{"role": turn.role, "content": turn.text} for turn in row.turns]
    return _line({"messages": [*messages, {"role": "assistant", "content": row.answer}]})


def _alpaca(row: TeacherRow) -> bytes:
    """Instructions, one question, one answer. Raises NoSuchForm: a conversation."""
    *before, last = row.turns
    if any(turn.role != "system" for turn in before):
        raise NoSuchForm("a conversation of several turns")
    instruction = "\n\n".join(turn.text for turn in before)
    given = {"instruction": instruction, "input": last.text} if instruction else {"instruction": last.text, "input": ""}
    return _line({**given, "output": row.answer})


_FROM = MappingProxyType({"system": "system", "user": "human", "assistant": "gpt"})


def _sharegpt(row: TeacherRow) -> bytes:
    said = [{"from": _FROM[turn.role], "value": turn.text} for turn in row.turns]
    return _line({"conversations": [*said, {"from": "gpt", "value": row.answer}]})


FORMATS: Mapping[str, Callable[[TeacherRow], bytes]] = MappingProxyType(
    {"openai": _openai, "alpaca": _alpaca, "sharegpt": _sharegpt}
)
"""How a row is written, by the format's name."""


def _line(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
