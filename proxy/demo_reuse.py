"""The demo's second act: one route earns the right to serve near-duplicates, another doesn't, each by its own evidence.

Rules of this file: a farthing of its own with `unproven = false` decides, the model answers, and every figure is what
that farthing or its headers told in this run. A route that did not get there is shown as far as it got.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from rich.console import Console

from farthing.proxy.clock import Clock
from farthing.proxy.demo_replay import transport_errors
from farthing.proxy.traffic import Question

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

__all__ = ["HANDOVER", "MAX_WRONG", "TEAM", "App", "Heard", "SecondAct", "budget", "rewordings", "told"]

MAX_WRONG = 0.1
CONFIDENCE = 0.95
MOST, AFTER, TEAM_MOST = 240, 24, 100
QUESTIONS, FORMS = 50, 5
LINE_EVERY = 25
_FORMS = ("{}", "Hi, {}", "{} Thanks.", "Hello. {}", "Please help me: {}", "Good morning. {} Thank you.")
_READY_S = 30.0
# Labels from which on a share of wrong ones is worth a sentence.
_ENOUGH = 10


@dataclass(frozen=True, slots=True)
class App:
    """One app before the proxy: a closed question about each message. `key`: its credential, so its own tenant."""

    name: str
    key: str
    system: str
    shots: tuple[tuple[str, str], ...]
    words: tuple[str, ...]


# Few-shot examples, as people write such prompts; the questions asked are other ones.
HANDOVER = App(
    "handover",
    "demo-handover",
    "Does the customer ask for a human? Answer yes or no.",
    (
        ("My card is lost", "no"),
        ("I want to speak to a human", "yes"),
        ("How do I top up?", "no"),
        ("Let me talk to an agent now!", "yes"),
        ("Why was I charged a fee?", "no"),
    ),
    ("yes", "no"),
)
TEAM = App(
    "team",
    "demo-team",
    "Which team of a bank should answer this message: cards, transfers or account?",
    (("My card is lost", "cards"), ("Where is the money that I sent?", "transfers"), ("I have moved", "account")),
    ("cards", "transfers", "account"),
)


def budget(requests: int) -> tuple[int, int]:
    """How many requests each of the two apps may make, for a first act of `requests`."""
    return min(MOST, max(2, requests * 6 // 5)), min(TEAM_MOST, max(2, requests // 2))


def rewordings(questions: Sequence[Question], rng: random.Random) -> list[str]:
    """QUESTIONS of the questions, each in FORMS surfaces, in random order; those of one intent are rewordings too."""
    asked = rng.sample(questions, min(QUESTIONS, len(questions)))
    texts = [form.format(one.text) for one in asked for form in rng.sample(_FORMS, FORMS)]
    rng.shuffle(texts)
    return texts


@dataclass(slots=True)
class Heard:
    """What one app was told. `ms`: latencies by the header x-farthing-cache; `bound`: the last hit's."""

    asked: int = 0
    failed: int = 0
    error: str = ""
    answers: Counter[str] = field(default_factory=Counter)
    ms: dict[str, list[float]] = field(default_factory=dict)
    bound: str = ""
    first_hit: int | None = None

    @property
    def hits(self) -> int:
        """Near-duplicates that were answered from the cache."""
        return len(self.ms.get("hit-semantic", ()))

    def add(self, text: str, headers: Mapping[str, str], ms: float) -> None:
        """Count one answer."""
        self.asked += 1
        self.answers[text] += 1
        how = headers.get("x-farthing-cache", "")
        self.ms.setdefault(how, []).append(ms)
        if how == "hit-semantic":
            self.bound = headers.get("x-farthing-bound", "")
            self.first_hit = self.first_hit or self.asked


class SecondAct:
    """The two apps' traffic and what comes of it. `label`: 'simulated' where no model answers, else empty."""

    def __init__(self, console: Console, base: str, model: str, label: str, clock: Clock) -> None:
        self._console = console
        self._base = base
        self._model = model
        self._label = label
        self._clock = clock

    def introduce(self, most: int) -> None:
        """Say what will be proved, and what would take longer."""
        for line in (
            f"Promise    at most {MAX_WRONG:.0%} of the answers given again are wrong, {CONFIDENCE:.0%} sure; nothing",
            "           is served before that is proved. A loose promise, for a minute's time: 1% would take some",
            "           300 to 450 compared answers without a wrong one",
            f"Workload   {QUESTIONS} of the questions in other words, {most} requests at most, put to two apps:",
            f"           '{HANDOVER.name}' (does the customer ask for a human?) and, beside it, '{TEAM.name}' (cards,",
            "           transfers or account?). Each answer is compared with its nearest neighbour's, until its route",
            "           may serve",
        ):
            self._console.print(line, soft_wrap=True, markup=False)
        self._console.print()

    async def play(self, texts: Sequence[str], most: int, team_most: int) -> int:
        """Ask until `handover` has been served for a while, or `most` is spent; how many requests failed."""
        async with httpx.AsyncClient(base_url=self._base, trust_env=False, timeout=10.0) as admin:
            await self._loaded(admin)
            handover, team, over = Heard(), Heard(), asyncio.Event()
            with self._console.status("asking …") as status:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._team(team, texts[:team_most], over))
                    asked = iter(texts[:most])
                    await self._handover(admin, handover, asked, status)
                    over.set()
            names = {app.name: await self._route(admin, app) for app in (HANDOVER, TEAM)}
            await asyncio.sleep(0.5)  # the last answers are still being compared
            states = await self._states(admin)
        self._console.print()
        for app, heard in ((HANDOVER, handover), (TEAM, team)):
            for line in told(app, heard, states.get(names[app.name])):
                self._say(line)
        self._console.print()
        return handover.failed + team.failed

    async def _handover(self, admin: httpx.AsyncClient, heard: Heard, asked: Iterator[str], status: Any) -> None:
        async with self._client(HANDOVER) as client:
            name = ""
            for text in asked:
                await self._ask(client, HANDOVER, text, heard)
                name = name or await self._route(admin, HANDOVER)
                state = (await self._states(admin)).get(name)
                line = f"handover {heard.asked} requests: {standing(state)}, {heard.hits} served"
                status.update(f"{self._label} {line}".strip())
                if heard.asked % LINE_EVERY == 0 or heard.first_hit == heard.asked:
                    self._say(line)
                if heard.first_hit is not None and heard.asked >= heard.first_hit + AFTER:
                    return

    async def _team(self, heard: Heard, texts: Sequence[str], over: asyncio.Event) -> None:
        async with self._client(TEAM) as client:
            for text in texts:
                if over.is_set():
                    return
                await self._ask(client, TEAM, text, heard)

    def _client(self, app: App) -> AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(base_url=self._base + "/v1", api_key=app.key, max_retries=0, timeout=60.0)

    async def _ask(self, client: AsyncOpenAI, app: App, text: str, heard: Heard) -> None:
        import openai

        failures: tuple[type[Exception], ...] = (openai.OpenAIError, *transport_errors())
        begun = self._clock.tick_s()
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=messages(app, text),
                max_tokens=8,
                temperature=0,
                extra_body={"grammar": grammar(app.words)},
            )
            said = raw.parse().choices[0].message.content or ""
        except failures as error:
            heard.asked, heard.failed = heard.asked + 1, heard.failed + 1
            heard.error = heard.error or f"{type(error).__name__}: {error}"[:300]
            return
        heard.add(said, raw.headers, (self._clock.tick_s() - begun) * 1000)

    async def _loaded(self, admin: httpx.AsyncClient) -> None:
        """Wait for the embedding model; without it nothing is served, and the act says so by its figures."""
        until = self._clock.tick_s() + _READY_S
        while self._clock.tick_s() < until:
            if (await admin.get("/readyz")).json().get("semantic_ready"):
                return
            await asyncio.sleep(0.1)

    async def _route(self, admin: httpx.AsyncClient, app: App) -> str:
        """The name of the app's route; empty while the proxy can't tell."""
        body = {"model": self._model, "messages": messages(app, "How do I change my PIN?"), "max_tokens": 8}
        asked = {
            "body": body | {"temperature": 0, "grammar": grammar(app.words)},
            "headers": {"Authorization": f"Bearer {app.key}"},
        }
        answer = await admin.post("/farthing/api/cache/explain", json=asked, headers={"x-farthing-admin": "1"})
        return str(answer.json().get("route", ""))

    async def _states(self, admin: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
        return {one["route"]["name"]: one for one in (await admin.get("/farthing/api/semantic")).json()["routes"]}

    def _say(self, line: str) -> None:
        self._console.print(f"[{self._label}] {line}" if self._label else line, soft_wrap=True, markup=False)


def messages(app: App, text: str) -> list[ChatCompletionMessageParam]:
    """The app's prompt for one message."""
    made: list[ChatCompletionMessageParam] = [{"role": "system", "content": app.system}]
    for asked, said in app.shots:
        made += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return [*made, {"role": "user", "content": text}]


def grammar(words: Sequence[str]) -> str:
    """One of these words and nothing else, in llama.cpp's notation."""
    return "root ::= " + " | ".join(f'"{word}"' for word in words)


def standing(state: Mapping[str, Any] | None) -> str:
    """A route in a few words."""
    if state is None:
        return "observing, no candidate yet"
    compared = f"{state['wrong']:.0f} of {state['labels']:.0f} compared answers wrong"
    if state["serving"]:
        return f"SERVING, {compared}, at most {state['bound']:.1%}"
    if state["needed"] is None:
        return f"observing, {state['reason'] or 'nothing compared yet'}"
    return f"observing, {compared}, about {state['needed']} more right ones needed"


def told(app: App, heard: Heard, state: Mapping[str, Any] | None) -> list[str]:
    """What came of one app, in sentences."""
    lines = [f"{app.name:9} {standing(state)}; promise: at most {MAX_WRONG:.0%}"]
    said = ", ".join(f"'{word}' {count}" for word, count in heard.answers.most_common(len(app.words)))
    lines.append(f"          {heard.asked} requests, answered {said or 'nothing'}")
    hits, misses = heard.ms.get("hit-semantic"), heard.ms.get("miss")
    if hits and misses:
        lines.append(
            f"          {len(hits)} near-duplicates answered by the cache from request {heard.first_hit} on: median "
            f"{statistics.median(hits):.0f} ms against {statistics.median(misses):.0f}; x-farthing-bound: {heard.bound}"
        )
    else:
        lines.append(
            f"          nothing was served: at most {MAX_WRONG:.0%} wrong is not proved for this route in this run"
        )
    if app is HANDOVER and len(heard.answers) == 1:
        lines.append("          an easy route: nobody in this workload asks for a human, and one answer fits all")
    if state is not None and state["labels"] >= _ENOUGH and state["wrong"] > MAX_WRONG * state["labels"]:
        lines.append("          so many rewordings changed the upstream's answer that it goes on being asked")
    if heard.failed:
        lines.append(f"          {heard.failed} requests failed; the first: {heard.error}")
    return lines
