"""A label as an answer of the API that was asked. Pure.

Sources: OpenAI API reference, "The chat completion object"; Anthropic API reference, "Messages".
"""

from __future__ import annotations

from typing import Any

from farthing.proxy.exchange import Endpoint
from farthing.proxy.usage import Usage

__all__ = ["answer"]


def answer(endpoint: str, label: str, model: str, usage: Usage, id: str, now_s: float) -> dict[str, Any]:
    """The whole answer. `id`: letters and digits. ValueError: an endpoint that no student answers."""
    given, made = usage.tokens_in, usage.tokens_out
    if endpoint == Endpoint.CHAT:
        message = {"role": "assistant", "content": label, "refusal": None}
        return {
            "id": f"chatcmpl-{id}",
            "object": "chat.completion",
            "created": int(now_s),
            "model": model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made},
        }
    if endpoint == Endpoint.MESSAGES:
        return {
            "id": f"msg_{id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": label}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": given, "output_tokens": made},
        }
    raise ValueError(f"no student answers {endpoint}")
