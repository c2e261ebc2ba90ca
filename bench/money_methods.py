"""What `bench.compress_money` compares: ways to shorten the tool results of a conversation as it grows.

`Ours` runs through the proxy's own code: keys, the store of decisions, and `pay`. The oracle chooses for every result
the form that is cheapest in the end, knowing all later turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from bench.compress_data import Messages
from bench.money_world import Conversation, Pieces, PriceModel, Provider, Request, length
from farthing.compress.decided import FROZEN, Decision, chain, first_new, request_ends
from farthing.compress.decided_store import MemoryDecisions, settle
from farthing.compress.forms import RECODE, Form, shorten
from farthing.compress.later_turns import LaterTurns, depth
from farthing.compress.pay import LEAST_STEPS, PayFacts, Seen, pays
from farthing.compress.tidy import tidied_text
from farthing.proxy.clock import FakeClock
from farthing.proxy.usage import Usage

__all__ = ["Chooser", "Forms", "Ours", "Played", "always", "oracle", "play", "whole"]

SQUEEZE = Form("squeeze-0.5", keep=0.5)
_EXHAUSTIVE = 729
_PASSES = 2

# A turn's number, to the text that is sent in its place.
Sent = dict[int, str]
# (turns, what the last answer reported) to what is sent.
Chooser = Callable[[Messages, Seen | None], Sent]


class Played(NamedTuple):
    """One conversation by one method."""

    pico: int
    tokens: int
    requests: list[Request]


class Forms:
    """The forms of a tool result, each made once. 'whole' is the text as it came."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self.count = count
        self.pieces = Pieces(count)
        self._made: dict[tuple[str, str, str], str] = {}

    def __call__(self, form: str, text: str, question: str = "") -> str:
        """The text in that form: whole, tidy, recode or squeeze (which alone looks at the question)."""
        key = (form, text, question if form == "squeeze" else "")
        if key not in self._made:
            self._made[key] = self._make(form, text, question)
        return self._made[key]

    def _make(self, form: str, text: str, question: str) -> str:
        if form == "whole":
            return text
        if form == "tidy":
            return tidied_text(text) or text
        short = shorten(text, question, RECODE if form == "recode" else SQUEEZE, self.count)
        return short.text if short else self("tidy", text)


def question_of(turns: Messages) -> str:
    """What the user said last."""
    return next((str(turn["content"]) for turn in reversed(turns) if turn["role"] == "user"), "")


def results_in(turns: Messages) -> list[int]:
    """The numbers of the turns that hold a tool's result."""
    return [number for number, turn in enumerate(turns) if turn["role"] == "tool"]


def whole(turns: Messages, seen: Seen | None) -> Sent:
    """Nothing is done."""
    return {}


def always(forms: Forms, form: str) -> Chooser:
    """Every result in that form, each time anew: for squeeze, by the question of the day."""
    return lambda turns, seen: {n: forms(form, turns[n]["content"], question_of(turns)) for n in results_in(turns)}


def fixed(forms: Forms, chosen: dict[int, str], questions: dict[int, str]) -> Chooser:
    """Each result in the form chosen for it."""
    return lambda turns, seen: {
        n: forms(chosen[n], turns[n]["content"], questions[n]) for n in results_in(turns) if n in chosen
    }


class Ours:
    """Decided once, replayed, and only where it pays. `ladder`: the forms in the order in which they are tried.
    `lose_after`: so many requests the store of decisions is lost. `fresh_start`: the store knows
    all that was sent."""

    def __init__(
        self,
        forms: Forms,
        ladder: Sequence[str],
        model: PriceModel,
        later: LaterTurns,
        app: str,
        runner: asyncio.Runner,
        lose_after: int = 0,
        least_steps: Fraction = LEAST_STEPS,
        fresh_start: bool = True,
    ) -> None:
        self._forms, self._ladder, self._model, self._later, self._app = forms, ladder, model, later, app
        self._runner = runner
        self._lose_after, self._least_steps, self._fresh_start = lose_after, least_steps, fresh_start
        self._store = self._new_store()
        self._requests = 0

    def __call__(self, turns: Messages, seen: Seen | None) -> Sent:
        self._requests += 1
        if self._lose_after and self._requests == self._lose_after + 1:
            self._store, self._fresh_start = self._new_store(), False  # a new store doesn't know how old the policy is
        return self._runner.run(self._send(turns, seen))

    async def _send(self, turns: Messages, seen: Seen | None) -> Sent:
        results = results_in(turns)
        keys = chain("t", "bench", turns)
        at = depth("chat", turns)
        later = self._later.expected("t", self._app, at)
        self._later.observe("t", self._app, at)

        async def decide(new: list[int], known: dict[int, Decision]) -> list[Decision]:
            before = sum(decision.tokens_saved for decision in known.values())
            return self._decide(turns, new, before, later, seen)

        ends = request_ends("chat", turns) if self._fresh_start else []
        settled = await settle(self._store, keys, results, first_new("chat", turns), decide, ends=ends)
        sent = {}
        for number, done in settled.items():
            text = turns[number]["content"]
            short = done.decision.texts[0] if done.decision.texts else None
            sent[number] = text if done.decision == FROZEN else short or self._forms("tidy", text)
        return sent

    def _decide(
        self, turns: Messages, new: list[int], before: int, later: Decimal, seen: Seen | None
    ) -> list[Decision]:
        """The first form of the ladder that pays."""
        count = self._forms.count
        everything = sum(self._forms.pieces(turn).tokens for turn in turns)
        asked = {n: question_of(turns[:n]) for n in new}
        for form in self._ladder:
            texts = [self._forms(form, turns[n]["content"], asked[n]) for n in new]
            saved = [count(turns[n]["content"]) - count(text) for n, text in zip(new, texts, strict=True)]
            facts = PayFacts(
                rates=self._model.rates,
                cache=self._model.cache,
                tokens_prompt=everything - before,
                tokens_saved=sum(saved),
                tokens_saved_before=before,
                later_turns=later,
                marked=self._model.marked,
                seen=seen,
                least_steps=self._least_steps,
            )
            if pays(facts).worth:
                given = [(text,) if form != "tidy" else () for text in texts]
                return [Decision(text, (form,), (tokens,)) for text, tokens in zip(given, saved, strict=True)]
        return [FROZEN for _ in new]

    @staticmethod
    def _new_store() -> MemoryDecisions:
        return MemoryDecisions(clock=FakeClock(), ttl_s=1e9, most_bytes=2**30)


def play(conversation: Conversation, model: PriceModel, choose: Chooser, forms: Forms) -> Played:
    """The whole conversation, request by request."""
    provider = Provider(model, forms.count)
    requests: list[Request] = []
    pico = tokens = 0
    last: tuple[Usage, float] | None = None
    for turns, at_s in conversation.requests():
        seen = Seen(last[0].tokens_in, last[0].cached, at_s - last[1]) if last else None
        sent = choose(turns, seen)
        prompt = [forms.pieces(turn, sent.get(n)) for n, turn in enumerate(turns)]
        requests.append(Request(prompt, at_s))
        usage = provider.ask(requests[-1])
        last = (usage, at_s)
        pico += model.rates.pico(usage)
        tokens += length(prompt)
    return Played(pico, tokens, requests)


def oracle(conversation: Conversation, model: PriceModel, forms: Forms, ladder: Sequence[str]) -> Played:
    """The cheapest choice of forms, known in the end: all of them tried where they are few, else turn by turn, twice,
    from the best uniform one. Its questions are those of the requests in which the results came."""
    turns = conversation.turns
    results = results_in(turns)
    questions = {n: question_of(turns[:n]) for n in results}
    kinds = ("whole", *ladder)

    def played(chosen: Sequence[str]) -> Played:
        return play(conversation, model, fixed(forms, dict(zip(results, chosen, strict=True)), questions), forms)

    if len(kinds) ** len(results) <= _EXHAUSTIVE:
        return min((played(chosen) for chosen in product(kinds, repeat=len(results))), key=lambda one: one.pico)
    chosen = min(([kind] * len(results) for kind in kinds), key=lambda each: played(each).pico)
    best = played(chosen)
    for _ in range(_PASSES):
        for place in range(len(results)):
            for kind in kinds:
                other = [*chosen[:place], kind, *chosen[place + 1 :]]
                if kind != chosen[place] and (found := played(other)).pico < best.pico:
                    best, chosen = found, other
    return best
