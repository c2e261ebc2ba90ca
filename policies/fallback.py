"""What an attempt's failure means for the next one. Pure.

Rules of this file:
1. A class that the route declares leads to its next fallback.
2. Any other failure of a variant leads straight to the model that was asked for, as the client would have had it
   without a proxy: only what that one says is the client's to see.
3. Never after the first byte of an answer went on.

Sources: OpenAI API reference, "Error codes" (`context_length_exceeded`); Anthropic API reference, "Errors"; vLLM,
SGLang and llama.cpp word a prompt that is too long for them as below.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from farthing.proxy.errors import UpstreamFault

__all__ = ["CLASSES", "DEFAULT_CLASSES", "MAY_BE_CONTEXT", "FailureClass", "of_answer", "of_fault"]

FailureClass = Literal["429", "5xx", "connect", "timeout", "reset", "context"]
CLASSES: frozenset[str] = frozenset(get_args(FailureClass))
DEFAULT_CLASSES: tuple[FailureClass, ...] = ("429", "5xx", "connect", "context")
MAY_BE_CONTEXT = frozenset({400, 413, 422})
"""Statuses of which only the body tells whether the prompt was too long."""
_TOO_LONG = re.compile(
    rb"context_length_exceeded|context[ _](?:length|window|size)|maximum context|prompt is too long"
    rb"|too many (?:input )?tokens|exceed_context_size|exceeds? the (?:available|model'?s) (?:context|maximum)",
    re.I,
)
_LOOKED_AT = 8192


def of_answer(status: int, body: bytes) -> str:
    """The class of an answer with an error; '' where it is none that a route may name. `body`: its beginning."""
    if status == 429:
        return "429"
    if status in (408, 504):
        return "timeout"
    if status >= 500:
        return "5xx"
    return "context" if status in MAY_BE_CONTEXT and _TOO_LONG.search(body[:_LOOKED_AT]) else ""


def of_fault(fault: UpstreamFault) -> str:
    """The class of no answer at all. Where no replica is up nobody could be reached; where none is free, farthing's own
    limit refused as a provider's would."""
    if fault.phase in ("connect", "down"):
        return "connect"
    if fault.phase == "busy":
        return "429"
    return "timeout" if fault.status == 504 else "reset"
