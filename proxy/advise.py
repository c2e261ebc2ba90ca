"""Advice for an app's prompts: what costs most, a shorter draft of it, and whether the draft is as good.

Nothing here changes an app, or a request that is served: the proxy never rewrites a system prompt by itself. Pure but
for `draft_by_model` and `advise`, which ask the upstream through an Asker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from farthing.compress.prompt_kept import lost
from farthing.compress.prompt_model import again, first, taken
from farthing.compress.prompt_rules import Draft, draft
from farthing.compress.provider_cache import Kind, provider_cache
from farthing.policies.opinion import Embed
from farthing.proxy.advise_ask import Asker, OutOfBudget
from farthing.proxy.advise_find import Costs, Part, Place, costs_of, find_parts, with_draft
from farthing.proxy.advise_requests import Asked
from farthing.proxy.advise_trial import Terms, Trial, try_draft
from farthing.proxy.prices import RateCard, Rates
from farthing.proxy.usage import Usage

__all__ = ["Advice", "Money", "Overview", "Tell", "advise", "draft_by_model", "drafted", "overview"]

_LEAST_TOKENS = 20
# Of its tokens that a draft must save to be worth a trial, and an author's time.
_LEAST_SAVED = 0.03
# Of the requests that carry a part, how many are counted whole for what the draft saves.
_PRICED_REQUESTS = 200


class Tell(Protocol):
    """Progress: what is done, how much of it, of how much in all."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


class Counts(Protocol):
    """What counts tokens; tokens.Tokenizer."""

    def count(self, text: str, model: str = "") -> int: ...
    def count_request(self, endpoint: str, payload: Any, model: str) -> int: ...


class Money(NamedTuple):
    """US dollars saved by 1,000 requests that carry the part; negative: it costs. `fresh`: where nothing is read from
    the provider's cache, `cached`: where all of the prompt would be. `below_minimum`: the shorter prompt is too short
    for the provider to cache. `answers`: by shorter answers, as the trial saw them; None without one."""

    fresh: float
    cached: float
    below_minimum: bool
    answers: float | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """One part, its draft, and what came of the trial. `drafter`: rules, model, or why the model's was not taken.

    `verdict`: in words. `trial_usd`: what draft and trial cost; None where no price is known.
    """

    part: Part
    model: str
    costs: Costs
    tokens_after: int
    drafter: str
    draft: Draft
    money: Money | None
    trial: Trial | None
    verdict: str
    trial_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """All that recurs in a file. `parts`: what costs most first. `tokens_in`: of all requests, `tokens_tools`: of their
    tool definitions, which are counted and not drafted."""

    requests: int
    skipped: int
    tokens_in: int
    tokens_tools: int
    parts: tuple[tuple[Part, str, Costs], ...]


def overview(
    requests: Sequence[Asked], skipped: int, model: str, tokens: Counts, rates: RateCard, at_s: float, tell: Tell
) -> Overview:
    """Find what recurs and what it costs. `model`: whose tokenizer and prices; '' for each request's own."""
    total = len(requests)
    tokens_in = tokens_tools = 0
    for done, asked in enumerate(requests, 1):
        of = model or asked.model
        tokens_in += tokens.count_request(asked.endpoint, asked.body, of)
        if tools := asked.body.get("tools"):
            bare: dict[str, Any] = {"messages": [], "input": []}
            tokens_tools += tokens.count_request(asked.endpoint, bare | {"tools": tools}, of)
            tokens_tools -= tokens.count_request(asked.endpoint, bare, of)
        tell("counting", done, total)
    found = []
    for part in find_parts(requests, lambda done: tell("looking for what recurs", done, total)):
        of = model or Counter(requests[index].model for index in part.requests).most_common(1)[0][0]
        count = tokens.count(part.text, of)
        if count >= _LEAST_TOKENS:
            found.append((part, of, costs_of(part, count, tokens_in, rates.rates(of, at_s))))
    found.sort(key=lambda one: -one[2].share)
    return Overview(total, skipped, tokens_in, tokens_tools, tuple(found))


def drafted(
    requests: Sequence[Asked], part: Part, of: str, costs: Costs, tokens: Counts, rates: Rates | None
) -> Advice:
    """The part with a draft by rules, not evaluated."""
    bare = Advice(part, of, costs, costs.tokens, "rules", Draft(part.text), None, None, "")
    return _with(requests, bare, draft(part.text), "rules", tokens, rates)


async def advise(
    requests: Sequence[Asked],
    advice: Advice,
    asker: Asker,
    terms: Terms,
    embed: Embed | None,
    tokens: Counts,
    tell: Tell,
    *,
    by_model: bool,
) -> Advice:
    """The advice with a model's draft, where one is asked for and holds, and with the trial's verdict."""
    spent, rates = asker.budget.spent_pico, asker.rates.rates(advice.model, asker.at_s)
    if by_model:
        found, drafter = await draft_by_model(advice, asker, terms.model or advice.model, tokens)
        advice = _with(requests, advice, found, drafter, tokens, rates)
    if advice.tokens_after >= advice.costs.tokens:
        return replace(advice, trial_usd=_usd(asker, spent, rates))
    total = min(terms.cases, len(advice.part.requests))
    trial = await try_draft(
        requests,
        advice.part,
        advice.draft.text,
        asker,
        terms,
        embed,
        lambda done: tell("asking both versions", done, total),
    )
    return replace(
        advice,
        trial=trial,
        verdict=_verdict(trial),
        money=_answers(advice.money, trial, rates),
        trial_usd=_usd(asker, spent, rates),
    )


async def draft_by_model(advice: Advice, asker: Asker, model: str, tokens: Counts) -> tuple[Draft, str]:
    """The model's draft where it is shorter than the rules' and has lost nothing; else the rules', and why."""
    text, limit = advice.part.text, advice.costs.tokens + 64
    body = first(model, text, limit)
    why = ""
    for _ in range(2):
        try:
            said = await asker.ask("chat", body)
        except OutOfBudget:
            why = "the budget is used up"
            break
        if said.answer is None:
            why = said.error
            break
        short = taken(said.answer.text, text)
        losses = lost(text, short)
        if not losses and short and tokens.count(short, advice.model) < advice.tokens_after:
            return Draft(short), f"model {model}"
        if not losses:
            why = "it was no shorter than the rules' draft"
            break
        why = f"it lost {len(losses)} of what must stay, first the {losses[0].kind} {losses[0].text!r}"
        body = again(model, text, limit, short, losses)
    return advice.draft, f"rules, since the model's draft was not taken: {why}"


def _with(
    requests: Sequence[Asked], advice: Advice, found: Draft, drafter: str, tokens: Counts, rates: Rates | None
) -> Advice:
    """The advice with another draft, which is none where it hardly saves any tokens."""
    after = tokens.count(found.text, advice.model)
    if after > (1 - _LEAST_SAVED) * advice.costs.tokens:
        found, after = found._replace(text=advice.part.text, cuts=()), advice.costs.tokens
    verdict = "not evaluated" if after < advice.costs.tokens else "nothing shorter found"
    money = None if rates is None else _money(requests, advice.part, found.text, advice.model, tokens, rates)
    return replace(advice, tokens_after=after, drafter=drafter, draft=found, verdict=verdict, money=money)


def _money(requests: Sequence[Asked], part: Part, text: str, model: str, tokens: Counts, rates: Rates) -> Money:
    """What the shorter text saves, by whole prompts, since providers cache none that is too short."""
    cache = provider_cache(model)
    places: dict[int, list[Place]] = {}
    for place in part.places:
        if place.request in places or len(places) < _PRICED_REQUESTS:
            places.setdefault(place.request, []).append(place)
    fresh = cached = 0
    below = False
    for index, here in places.items():
        asked = requests[index]
        long, short = (
            tokens.count_request(asked.endpoint, body, model) for body in (asked.body, with_draft(asked, here, text))
        )
        fresh += rates.pico(Usage(fresh=long)) - rates.pico(Usage(fresh=short))
        reads = [cache.kind is not Kind.NONE and count >= cache.minimum_tokens for count in (long, short)]
        below |= reads == [True, False]
        before, after = (
            rates.pico(Usage(cached=count) if read else Usage(fresh=count))
            for count, read in zip((long, short), reads, strict=True)
        )
        cached += before - after
    return Money(fresh / len(places) / 1e9, cached / len(places) / 1e9, below)


def _answers(money: Money | None, trial: Trial, rates: Rates | None) -> Money | None:
    if money is None or rates is None or trial.long is None or trial.short is None:
        return money
    long, short = (
        rates.pico(Usage(output=used.output, reasoning=used.reasoning)) for used in (trial.long, trial.short)
    )
    return money._replace(answers=(long - short) / trial.judged.cases / 1e9)


def _usd(asker: Asker, before_pico: int, rates: Rates | None) -> float | None:
    return None if rates is None else (asker.budget.spent_pico - before_pico) / 1e12


def _verdict(trial: Trial) -> str:
    judged = trial.judged
    if not judged.cases:
        return "not evaluated"
    if judged.word != "not shown to be as good":
        return judged.word
    more = judged.more_cases
    return f"{judged.word}: " + (f"{more:,} more cases needed" if more is not None else "no number of cases would do")
