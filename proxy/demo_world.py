"""A world whose truth is known, for `farthing demo --evals`: an upstream with three models and questions with answers.

A question of BANKING77 asks for its intent. What a model says is a pure function of the model, the question and whether
the world is *regressed*: `world-large` is right in 99 % of all cases, `world-small` in 98 %, `world-hasty` in 75 %. In
the regressed world the provider has changed `world-small` under its name, without a word: it is right in 70 %. Nothing
here passes for a model: every answer carries `x-simulated: 1`.

    python -m farthing.proxy.demo_world --port 9000
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Mapping, Sequence

import orjson
from aiohttp import web

from farthing.proxy.traffic import Question, load_questions

__all__ = ["MODELS", "World", "asked", "main"]

MODELS: Mapping[str, float] = {"world-large": 0.99, "world-small": 0.98, "world-hasty": 0.75}
REGRESSED: Mapping[str, float] = {**MODELS, "world-small": 0.70}
ORDER = "Name the intent of the customer's message."
LABEL = {"x-simulated": "1"}


def asked(question: Question, customer: int, model: str = "world-large") -> dict[str, object]:
    """The request of one customer. Each is another one, so that no cache answers for a model."""
    messages = [
        {"role": "system", "content": ORDER},
        {"role": "user", "content": f"{question.text} (customer {customer})"},
    ]
    return {"model": model, "messages": messages, "temperature": 0}


class World:
    """What is true, and what models say. `regressed`: see the module."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.truth = {question.text: question.intent for question in questions}
        self.intents = sorted(set(self.truth.values()))
        self.regressed = False

    def right(self, message: str) -> str:
        """The true intent of a customer's message, '' where there is none."""
        return self.truth.get(message.rpartition(" (customer ")[0], "")

    def says(self, model: str, message: str) -> str:
        """The model's answer: the truth, or another intent."""
        truth = self.right(message)
        skill = (REGRESSED if self.regressed else MODELS).get(model, 0.0)
        digest = hashlib.sha256(f"{model} {message}".encode()).digest()
        if truth and int.from_bytes(digest[:4]) < skill * 2**32:
            return truth
        others = [intent for intent in self.intents if intent != truth]
        return others[int.from_bytes(digest[4:8]) % len(others)]

    async def chat(self, request: web.Request) -> web.Response:
        """Source: OpenAI API reference, "Create chat completion"."""
        body = orjson.loads(await request.read())
        message = str(body["messages"][-1]["content"])
        said = self.says(str(body["model"]), message)
        prompt = sum(len(str(turn["content"]).split()) for turn in body["messages"])
        usage = {"prompt_tokens": prompt, "completion_tokens": 3, "total_tokens": prompt + 3}
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        told = {
            "id": f"world-{hashlib.sha256(message.encode()).hexdigest()[:12]}", "object": "chat.completion",
            "created": 1_700_000_000, "model": body["model"], "choices": [choice], "usage": usage,
        }  # fmt: skip
        return web.Response(body=orjson.dumps(told), content_type="application/json", headers=LABEL)

    async def turn(self, request: web.Request) -> web.Response:
        """Change the world: {"regressed": true}."""
        self.regressed = bool(orjson.loads(await request.read())["regressed"])
        return web.Response(body=b"{}", content_type="application/json", headers=LABEL)

    async def health(self, request: web.Request) -> web.Response:
        """It answers."""
        return web.Response(body=b'{"status":"ok"}', content_type="application/json", headers=LABEL)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the world on loopback until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m farthing.proxy.demo_world", description="A world of known truth.")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    world = World(load_questions())
    app = web.Application()
    app.router.add_post("/v1/chat/completions", world.chat)
    app.router.add_post("/world", world.turn)
    app.router.add_get("/health", world.health)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
