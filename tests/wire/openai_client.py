"""What an app does with the official OpenAI client; run as a script in that client's own environment.

Usage: python openai_client.py BASE_URL. Prints one JSON object. Imports nothing of farthing: openai-python 2 (on httpx)
and 3 (on httpx2) can't live in one environment.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def say(text: str) -> Any:
    return [{"role": "user", "content": text}]


def run(base_url: str) -> dict[str, Any]:
    client = openai.OpenAI(base_url=base_url, api_key="sk-one", max_retries=0, timeout=20)
    got: dict[str, Any] = {"version": openai.__version__}

    raw = client.chat.completions.with_raw_response.create(model="m", messages=say("hello"))
    got["chat"] = [raw.headers["x-farthing-cache"], raw.parse().choices[0].message.content]

    stream = client.chat.completions.create(model="m", messages=say("stream"), stream=True)
    pieces = list(stream)
    got["stream"] = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    got["stream_usage"] = any(piece.usage for piece in pieces)

    wanted = client.chat.completions.create(
        model="m", messages=say("usage"), stream=True, stream_options={"include_usage": True}
    )
    got["usage_wanted"] = [piece.usage.completion_tokens for piece in wanted if piece.usage]

    call = client.chat.completions.create(model="m", messages=say("use a tool"), tools=[TOOL])
    found = call.choices[0].message.tool_calls
    assert found is not None
    got["tool"] = [found[0].function.name, found[0].function.arguments, call.choices[0].finish_reason]  # type: ignore[union-attr]

    with client.chat.completions.stream(model="m", messages=say("use a tool by stream"), tools=[TOOL]) as live:
        final = live.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    got["tool_stream"] = final.choices[0].message.tool_calls[0].function.arguments

    parsed = client.chat.completions.parse(model="m", messages=say("who?"), response_format=Person)
    assert parsed.choices[0].message.parsed is not None
    got["structured"] = parsed.choices[0].message.parsed.model_dump()

    vectors = client.embeddings.create(model="m", input=["a", "bcd"])
    got["embeddings"] = [list(row.embedding) for row in vectors.data]

    got["responses"] = client.responses.create(model="m", input="hi", store=False).output_text
    got["responses_stream"] = "".join(
        event.delta
        for event in client.responses.create(model="m", input="hi there", store=False, stream=True)
        if event.type == "response.output_text.delta"
    )
    got["completion"] = client.completions.create(model="m", prompt="once").choices[0].text
    got["models"] = [model.id for model in client.models.list()]

    errors = []
    for path, expected in (("/status/400", openai.BadRequestError), ("/status/429", openai.RateLimitError)):
        try:
            client.chat.completions.create(model="m", messages=say(path))
        except openai.APIStatusError as error:
            errors.append([isinstance(error, expected), error.status_code, error.message[:40]])
    try:
        client.chat.completions.create(model="m", messages=say("x"), extra_headers={"x-farthing-ttl": "soon"})
    except openai.BadRequestError as error:
        errors.append([error.code, error.param])
    got["errors"] = errors
    return got


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))  # noqa: T201
