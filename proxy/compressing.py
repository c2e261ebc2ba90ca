"""Recode and squeeze at work: which form a route may have, what becomes of each message, and whether answers stay good.

A message's form is decided once, when it first appears, and kept (compress/decided.py), so that a provider's prompt
cache finds the same bytes in every later request. How far a route may go is proved step by step (policies/steps.py) by
requests that are sent in both forms, within a daily sum. Until then, and where only observing is allowed, the client's
request goes as it came, and what could have been saved is told in the ledger.

Rules of this file: nothing here fails a request; what was decided is never decided again; every comparison is learnt
with the verdict it was made under, and with no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from farthing.compress.decided import LEFT, Decision, chain, first_new
from farthing.compress.decided_store import Decisions, Settled, settle
from farthing.compress.forms import Form
from farthing.compress.offer import with_tool
from farthing.compress.places import Marks, turns_of
from farthing.compress.request import Texts, before_turns, decide, route_name, rules_of, sent
from farthing.compress.rewrite import Rewritten, rewrite
from farthing.policies.reuse import Action, Label, RouteKey, Verdict
from farthing.policies.steps import Chain
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.exchange import Exchange
from farthing.proxy.keeping import Keeping, without_markers
from farthing.proxy.retrieving import Retrieval
from farthing.proxy.shadow import Shadows
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.worth import Worth

__all__ = ["Compressing", "Track"]


@dataclass(frozen=True, slots=True)
class Track:
    """A chain of steps, and the form of each. `serves`: proved forms are sent; else they are only watched."""

    chain: Chain
    forms: tuple[Form, ...]
    serves: bool


@dataclass(slots=True)
class Case:
    """One request on its way. `at`: the step of the form that it is sent in, -1: none is proved. `verdict`: under
    which a new form was used. `short`: something in it is in a form that isn't the client's own."""

    texts: Texts
    track: Track
    route: RouteKey
    at: int
    short: bool = False
    verdict: Verdict | None = None
    keys: Sequence[bytes] = ()
    predicted_usd: Decimal | None = None
    retrieval: Retrieval | None = None
    looking: asyncio.Task[tuple[int, tuple[str, ...]]] | None = None


@dataclass(slots=True)
class Compressing:
    """`tracks`: those that serve first. `version`: of all settings that a decision depends on."""

    tracks: Sequence[Track]
    decisions: Decisions | None
    version: str
    marks: Sequence[Marks]
    tidy: bool
    tokenizer: Tokenizer
    worth: Worth
    clock: Clock
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    randomness: Randomness
    shadow_share: float
    shadows: Shadows | None = None
    keeping: Keeping | None = None
    saved: dict[str, int] = field(default_factory=dict)

    async def run(self, ex: Exchange, reach: Callable[[Form], bool]) -> Rewritten | None:
        """The body with its texts in the forms that this route may have; None where there is nothing to touch.

        `reach`: whether this request may have a form.
        """
        assert ex.payload is not None
        assert ex.body is not None
        texts = Texts.of(ex.endpoint, ex.payload, self.marks)
        if not texts.by_turn and (self.keeping is None or not ex.payload.get("tools")):
            return None
        route = RouteKey(ex.tenant, route_name(ex.endpoint, ex.payload, ex.model))
        case = self._case(texts, route, reach)
        if self.keeping is not None and case.track.serves:
            case.retrieval = await self.keeping.offered(ex, may_begin=case.at >= 0)
        if not texts.by_turn:
            return self._with_tool(ex, case, Rewritten(ex.body))
        ex.shortening = case
        settled = await self._settled(ex, case, self.decisions) if case.track.serves and self.decisions else {}
        decided = {turn: one.decision for turn, one in settled.items()}
        if self.keeping is not None and case.retrieval is not None:
            decided = await self.keeping.followed(ex, texts, decided, case.retrieval)
        else:
            decided = without_markers(texts, decided)
        made = rewrite(ex.body, ex.payload, sent(texts, decided, tidy=self.tidy))
        rules = rules_of(decided.values())
        if made.texts and rules:
            case.short = True
            ex.compress = "squeeze" if "squeeze" in rules else "recode"
            self._tell(ex, case, settled, rules)
        elif made.texts:
            ex.compress = "tidy"
        if case.at < 0:
            case.looking = self.spawn(asyncio.to_thread(self._look, ex.model, case))
        return self._with_tool(ex, case, made)

    def _with_tool(self, ex: Exchange, case: Case, made: Rewritten) -> Rewritten:
        """What is sent, with the tool where the conversation has it."""
        if case.retrieval is None:
            return made
        made = made._replace(body=with_tool(ex.endpoint, made.body))
        ex.retrieval = case.retrieval
        return made

    def _case(self, texts: Texts, route: RouteKey, reach: Callable[[Form], bool]) -> Case:
        """The track that this request is on: one that serves something, else one that may, else one that watches."""
        for track in self.tracks:
            allowed = sum(map(reach, track.forms))  # from gentle to bold, so the first so many
            proved = min(track.chain.proved(route), allowed) if track.serves else 0
            if allowed:
                return Case(texts, track, route, proved - 1)
        return Case(texts, Track(Chain(()), (), serves=False), route, -1)

    async def _settled(self, ex: Exchange, case: Case, decisions: Decisions) -> dict[int, Settled]:
        """What is decided for each turn; new ones get the form that is proved, or none."""
        texts, track = case.texts, case.track
        turns = turns_of(ex.endpoint, texts.payload)
        version = f"{self.version} {track.chain.version(case.route)}"
        keys = case.keys = chain(ex.tenant, version, turns, before_turns(ex.endpoint, texts.payload))

        async def make(new: list[int], known: dict[int, Decision]) -> list[Decision]:
            left = [LEFT] * len(new)
            if case.at < 0:
                return left
            form = track.forms[case.at]
            begun_tick = self.clock.tick_s()
            made, tokens = await asyncio.to_thread(self._make, ex, case, new, form, known)
            saved, before = (sum(one.tokens_saved for one in few) for few in (made, known.values()))
            if not saved:
                return made
            pay = self.worth.of(ex, keys, tokens - before, saved, before, self.clock.tick_s() - begun_tick)
            if not pay.worth:
                ex.decide("compress", "left", pay.reason)
                return left
            case.predicted_usd = pay.predicted_usd
            chance = self.randomness.uniform()
            may_audit = self.shadows is not None and self.shadows.may(ex)
            case.verdict = verdict = track.chain.decide(case.route, case.at, chance, may_audit=may_audit)
            if verdict.action is not Action.SERVE:
                ex.decide("compress", "left", verdict.reason)
                return left
            if self.keeping and not await self.keeping.keep_new(ex, texts, dict(zip(new, made, strict=True))):
                ex.decide("compress", "left", "what would be left out can't be kept")
                return left
            return made

        first = first_new(ex.endpoint, turns)
        return await settle(decisions, keys, list(texts.by_turn), first, make, texts.frozen)

    def _make(
        self, ex: Exchange, case: Case, new: list[int], form: Form, known: dict[int, Decision]
    ) -> tuple[list[Decision], int]:
        """The new turns in this form, and the tokens of the whole request as it came; in a thread."""
        names = self.keeping.names(ex) if self.keeping is not None and case.retrieval is not None else None
        made = decide(case.texts, new, form, self._counter(ex.model), known, names)
        return made, self.tokenizer.count_request(ex.endpoint, case.texts.payload, ex.model)

    def _counter(self, model: str) -> Callable[[str], int]:
        return partial(self.tokenizer.count, model=model)

    def _tell(self, ex: Exchange, case: Case, settled: Mapping[int, Settled], rules: tuple[str, ...]) -> None:
        new = sum(one.decision.tokens_saved for one in settled.values() if one.new)
        old = sum(one.decision.tokens_saved for one in settled.values() if not one.new)
        worth = f", ${case.predicted_usd:.6f} predicted" if case.predicted_usd else ""
        ex.decide("compress", ex.compress, f"{'+'.join(rules)}: {new} tokens of new messages{worth}, {old} of old ones")

    def _look(self, model: str, case: Case) -> tuple[int, tuple[str, ...]]:
        """What the next form would save on new messages, and by which rules; in a thread."""
        texts, forms = case.texts, case.track.forms
        if not forms:
            return 0, ()
        first = first_new(texts.endpoint, turns_of(texts.endpoint, texts.payload))
        new = [turn for turn in texts.by_turn if turn >= first]
        made = decide(texts, new, forms[0], self._counter(model))
        return sum(one.tokens_saved for one in made), rules_of(made)

    def ended(self, ex: Exchange) -> None:
        """The answer is there: tell what was found meanwhile, and send shadows where that is due."""
        case = ex.shortening
        if not isinstance(case, Case):
            return
        if case.track.serves:
            self.worth.learn(ex, case.keys)
        if case.looking is not None and case.looking.done() and not case.looking.cancelled():
            tokens, rules = case.looking.result()
            if tokens:
                ex.decide("compress", "observed", f"{'+'.join(rules)} would save {tokens} tokens")
                for rule in rules:
                    self.saved[rule] = self.saved.get(rule, 0) + tokens
        if self.shadows is None or ex.call is None or ex.call.answer is None:
            return
        audits = case.verdict is not None and case.verdict.audit and case.short
        explores = case.at + 1 < len(case.track.forms) and (audits or not case.short)
        if audits or (explores and self.randomness.uniform() < self.shadow_share and self.shadows.may(ex)):
            self.spawn(self._compare(ex, case, audits=audits, explores=explores))

    async def _compare(self, ex: Exchange, case: Case, *, audits: bool, explores: bool) -> None:
        """Ask for what the client didn't get, and learn from the difference."""
        shadows, call = self.shadows, ex.call
        assert shadows is not None
        assert ex.body is not None
        whole = call
        if audits and case.verdict is not None:
            whole = await shadows.ask(ex, ex.body, "")
            await self._learn(ex, case, case.at, case.verdict, whole, call)
        if not explores or not shadows.may(ex):
            return
        at = case.at + 1
        body = await asyncio.to_thread(self._in_form, ex, case.texts, case.track.forms[at])
        if body is None:
            return
        verdict = case.track.chain.decide(case.route, at, self.randomness.uniform(), may_audit=True)
        if verdict.action is Action.SERVE:
            return  # proved meanwhile: what is learnt from now on must be drawn by the verdict's own coin
        short = await shadows.ask(ex, body, case.track.forms[at].name)
        await self._learn(ex, case, at, verdict, whole, short)

    async def _learn(self, ex: Exchange, case: Case, at: int, verdict: Verdict, whole: Any, short: Any) -> None:
        assert self.shadows is not None
        worse = await self.shadows.worse(ex, whole, short)
        if worse is not None:
            case.track.chain.learn(case.route, at, verdict, Label(worse))

    def _in_form(self, ex: Exchange, texts: Texts, form: Form) -> bytes | None:
        """The whole request in a form, as if all of it were new; None where the form changes nothing."""
        assert ex.body is not None
        turns = [turn for turn in texts.by_turn if turn not in texts.frozen]
        made = decide(texts, turns, form, self._counter(ex.model))
        if not rules_of(made):
            return None
        found = rewrite(ex.body, texts.payload, sent(texts, dict(zip(turns, made, strict=True)), tidy=self.tidy))
        return found.body if found.texts else None
