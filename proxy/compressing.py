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
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, ParamSpec, TypeVar

from farthing.compress.decided import FROZEN, Decision, chain, first_new, request_ends
from farthing.compress.decided_store import Decisions, Settled, settle
from farthing.compress.forms import Form, kept_whole
from farthing.compress.offer import TOOL_TOKENS, with_tool
from farthing.compress.places import Marks, turns_of
from farthing.compress.request import Texts, before_turns, decide, route_name, rules_of, sent, tidied
from farthing.compress.rewrite import Rewritten, rewrite
from farthing.policies.reuse import Action, Label, RouteKey, Verdict
from farthing.policies.steps import Chain
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.compress_counts import CompressCounts, RouteCount, Use, changed, used
from farthing.proxy.exchange import Exchange
from farthing.proxy.keeping import Keeping, without_markers
from farthing.proxy.noted import Noted
from farthing.proxy.retrieving import Retrieval
from farthing.proxy.shadow import Shadows
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.worth import Worth

__all__ = ["Compressing", "Track"]

# Longer new texts would take a processor for seconds; they are tidied.
_MOST_CHARS = 400_000
# Looking at what could be saved takes milliseconds of a processor, and nobody waits for it.
_LOOKS_AT_ONCE = 2
_OFF_LOOP_BYTES = 65_536

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Track:
    """A chain of steps, and the form of each. `serves`: proved forms are sent; else they are only watched."""

    chain: Chain
    forms: tuple[Form, ...]
    serves: bool


@dataclass(slots=True)
class Case:
    """One request on its way. `at`: the step of the form that new texts may have, -1: none is proved. `short`: some
    text of it is in a form that isn't the client's own. `verdict`: on the step `verdict_at`, the boldest in it."""

    texts: Texts
    track: Track
    route: RouteKey
    at: int
    short: bool = False
    verdict: Verdict | None = None
    verdict_at: int = -1
    keys: Sequence[bytes] = ()
    predicted_usd: Decimal | None = None
    count: RouteCount = field(default_factory=RouteCount)
    retrieval: Retrieval | None = None
    looking: asyncio.Task[list[Use]] | None = None


@dataclass(slots=True)
class Compressing:
    """`tracks`: those that serve first. `version`: of all settings that a decision depends on. `noted`: whether all
    that was sent is."""

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
    noted: Noted
    shadow_share: float
    shadows: Shadows | None = None
    keeping: Keeping | None = None
    counts: CompressCounts = field(default_factory=CompressCounts)
    _looks: int = 0

    async def run(self, ex: Exchange, reach: Callable[[Form], bool]) -> Rewritten | None:
        """The body with its texts in the forms that this route may have; None where there is nothing to touch.

        `reach`: whether this request may have a form.
        """
        assert ex.payload is not None
        assert ex.body is not None
        texts, name = await self._aside(ex, _read, ex, self.marks, self.keeping is not None)
        if not texts.by_turn and (self.keeping is None or not ex.payload.get("tools")):
            return None
        route = RouteKey(ex.tenant, name)
        case = self._case(texts, route, reach)
        if self.keeping is not None and case.track.serves:
            case.retrieval = await self.keeping.offered(ex, may_begin=case.at >= 0)
        if not texts.by_turn:
            return self._with_tool(ex, case, Rewritten(ex.body))
        ex.shortening = case
        case.count = self.counts.met(route)
        settled = await self._settled(ex, case, self.decisions) if case.track.serves and self.decisions else {}
        self.counts.kept(settled.values())
        decided = {turn: one.decision for turn, one in settled.items()}
        if self.keeping is not None and case.retrieval is not None:
            decided = await self.keeping.followed(ex, texts, decided, case.retrieval)
        else:
            decided = without_markers(texts, decided)
        made = await self._aside(ex, _rewritten, ex.body, texts, decided, self.tidy)
        rules = rules_of(decided.values())
        ex.tidied = made.texts - sum(text is not None for one in decided.values() for text in one.texts)
        if made.texts and rules:
            case.short = True
            if case.verdict is None:
                self._replays(ex, case, decided.values())
            ex.uses = [
                use for one in settled.values() for use in used([one.decision], "sent" if one.new else "replayed")
            ]
            ex.compress = "squeeze" if {"squeeze", "words"} & {*rules} else "recode"
            self._tell(ex, case, settled, rules)
        elif made.texts:
            ex.compress = "tidy"
        watched = self._watched(case, reach)
        if watched and self._looks < _LOOKS_AT_ONCE and texts.new():
            self._looks += 1
            case.looking = self.spawn(self._look(ex.model, case, watched))
        return self._with_tool(ex, case, made)

    def _with_tool(self, ex: Exchange, case: Case, made: Rewritten) -> Rewritten:
        """What is sent, with the tool where the conversation has it."""
        if case.retrieval is None:
            return made
        made = made._replace(body=with_tool(ex.endpoint, made.body))
        ex.retrieval = case.retrieval
        return made

    async def _aside(self, ex: Exchange, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What takes milliseconds with a long body leaves the event loop then."""
        if len(ex.body or b"") > _OFF_LOOP_BYTES:
            return await asyncio.to_thread(work, *args, **named)
        return work(*args, **named)

    def _case(self, texts: Texts, route: RouteKey, reach: Callable[[Form], bool]) -> Case:
        """The track that this request is on: one that serves something, else one that may, else one that watches."""
        for track in self.tracks:
            allowed = sum(map(reach, track.forms))  # from gentle to bold, so the first so many
            proved = min(track.chain.proved(route), allowed) if track.serves else 0
            if allowed:
                return Case(texts, track, route, proved - 1)
        return Case(texts, Track(Chain(()), (), serves=False), route, -1)

    def _watched(self, case: Case, reach: Callable[[Form], bool]) -> dict[Form, str]:
        """The first form of each track that this request could have and doesn't, and why it doesn't."""
        tracks = [track for track in self.tracks if track is not case.track or case.at < 0]
        first = {track.forms[0]: "not_proved" if track.serves else "observing" for track in reversed(tracks)}
        return {form: why for form, why in first.items() if reach(form)}

    async def _settled(self, ex: Exchange, case: Case, decisions: Decisions) -> dict[int, Settled]:
        """What is decided for each turn; new ones get the form that is proved, or none."""
        texts, track = case.texts, case.track
        turns = turns_of(ex.endpoint, texts.payload)
        version = f"{self.version} {track.chain.version(case.route)}"
        before = before_turns(ex.endpoint, texts.payload)
        # What one route has proved is no other's: a conversation that goes on with another model begins anew there.
        of_route = f"{version} {case.route.name}"
        keys = case.keys = await self._aside(ex, chain, ex.tenant, of_route, turns, before)

        async def make(new: list[int], known: dict[int, Decision]) -> list[Decision]:
            form = track.forms[case.at] if case.at >= 0 else None
            begun_tick = self.clock.tick_s()
            made, plain, tokens = await asyncio.to_thread(self._make, ex, case, new, form, known)
            before = sum(one.tokens_saved for one in known.values())
            spent_s = self.clock.tick_s() - begun_tick
            left = ""
            if rules_of(made):
                left = "does_not_pay"
                if self._pays(ex, case, tokens - before, made, before, spent_s):
                    verdict = self._ask(ex, case, case.at)
                    left, why = "not_audited", verdict.reason
                    if verdict.action is Action.SERVE:
                        if await self._kept(ex, texts, dict(zip(new, made, strict=True))):
                            return made
                        left, why = "not_kept", "what would be left out can't be kept"
                    ex.decide("compress", "left", why)
                self.counts.left[left] += changed(made)
            if self._pays(ex, case, tokens - before, plain, before, 0.0):
                return plain
            if not left:
                self.counts.left["does_not_pay"] += sum(one.tokens_saved > 0 for one in plain)
            return [FROZEN] * len(new)

        first, ends = first_new(ex.endpoint, turns), request_ends(ex.endpoint, turns)
        fresh = ends if await self.noted.all_of(ex.tenant, decisions, version) else ()
        return await settle(decisions, keys, list(texts.by_turn), first, make, texts.frozen, ends=fresh)

    async def _kept(self, ex: Exchange, texts: Texts, made: dict[int, Decision]) -> bool:
        """Whether what is left out can be had again wherever a marker says so."""
        return self.keeping is None or await self.keeping.keep_new(ex, texts, made)

    def _ask(self, ex: Exchange, case: Case, at: int) -> Verdict:
        """What the policy says to serving this request at a step."""
        chance = self.randomness.uniform()
        may_audit = self.shadows is not None and self.shadows.may(ex)
        case.verdict_at = at
        case.verdict = case.track.chain.decide(case.route, at, chance, may_audit=may_audit)
        return case.verdict

    def _replays(self, ex: Exchange, case: Case, decided: Iterable[Decision]) -> None:
        """Where all that is short was decided before: a later question about it is answered from it as well, so such
        requests count as served, and are looked at as often."""
        steps = {form.name: at for at, form in enumerate(case.track.forms)}
        at = max([steps.get(one.form, -1) for one in decided if any(one.texts)], default=-1)
        if at >= 0:
            self._ask(ex, case, at)

    def _pays(
        self, ex: Exchange, case: Case, tokens: int, made: Sequence[Decision], before: int, spent_s: float
    ) -> bool:
        """Whether to send new turns so; what nobody knows the price of is tidied at most."""
        saved = sum(one.tokens_saved for one in made)
        tidies = not rules_of(made)
        if tidies and not (saved and self.tidy):
            return True  # nothing changes
        tool_tokens = TOOL_TOKENS if case.retrieval is not None and not tidies else 0
        pay = self.worth.of(ex, case.keys, tokens, saved, before, spent_s, tool_tokens)
        if pay.worth and not tidies:
            case.predicted_usd = pay.predicted_usd
        if not pay.worth:
            lost = f", by ${-pay.predicted_usd:.6f}" if pay.predicted_pico < 0 else ""
            ex.decide("compress", "left" if not tidies else "whole", pay.reason + lost)
        return pay.worth or (tidies and not pay.priced)

    def _make(
        self, ex: Exchange, case: Case, new: list[int], form: Form | None, known: dict[int, Decision]
    ) -> tuple[list[Decision], list[Decision], int]:
        """The new turns in this form, and tidied alone, and the tokens of the whole request as it came; in a thread."""
        count = self._counter(ex.tenant, ex.model)
        names = self.keeping.names(ex) if self.keeping is not None and case.retrieval is not None else None
        plain = tidied(case.texts, new, count)
        if form is not None and names is None:
            form = kept_whole(form)  # nothing goes for good that could be kept
        short = form is not None and case.texts.chars(new) <= _MOST_CHARS
        made = decide(case.texts, new, form, count, known, names) if form is not None and short else plain
        return made, plain, self.tokenizer.of(ex.tenant).count_request(ex.endpoint, case.texts.payload, ex.model)

    def _counter(self, tenant: str, model: str) -> Callable[[str], int]:
        return partial(self.tokenizer.of(tenant).count, model=model)

    def _tell(self, ex: Exchange, case: Case, settled: Mapping[int, Settled], rules: tuple[str, ...]) -> None:
        new = sum(one.decision.tokens_saved for one in settled.values() if one.new)
        old = sum(one.decision.tokens_saved for one in settled.values() if not one.new)
        worth = f", ${case.predicted_usd:.6f} predicted" if case.predicted_usd else ""
        ex.decide("compress", ex.compress, f"{'+'.join(rules)}: {new} tokens of new messages{worth}, {old} of old ones")

    async def _look(self, model: str, case: Case, forms: Mapping[Form, str]) -> list[Use]:
        """What rules would do to new messages in these forms."""
        uses: list[Use] = []
        try:
            new = case.texts.new() if case.texts.chars(case.texts.new()) <= _MOST_CHARS else []
            for form, why in forms.items():
                made = await asyncio.to_thread(decide, case.texts, new, form, self._counter(case.route.tenant, model))
                uses += used(made, "observed")
                self.counts.left[why] += changed(made)
        finally:
            self._looks -= 1
        self.counts.add(uses)
        case.count.observed += sum(use.tokens for use in uses)
        return uses

    def ended(self, ex: Exchange) -> None:
        """The answer is there: tell what was found meanwhile, and send shadows where that is due."""
        case = ex.shortening
        if not isinstance(case, Case):
            return
        if case.track.serves:
            self.worth.learn(ex, case.keys)
        looked = case.looking
        there = looked is not None and looked.done() and not looked.cancelled() and looked.exception() is None
        if looked is not None and there and (uses := looked.result()):
            tokens: dict[str, int] = {}
            for use in uses:
                tokens[use.rule] = tokens.get(use.rule, 0) + use.tokens
            said = ", ".join(f"{rule} would save {saved} tokens" for rule, saved in tokens.items())
            ex.decide("compress", "observed", said)
        if ex.call is None or ex.call.answer is None:
            return
        case.count.sent += sum(use.tokens for use in ex.uses)
        if self.shadows is None:
            return
        verdict = case.verdict
        audits = verdict is not None and verdict.audit and case.short
        # By one coin, whatever form the client got: else some requests would speak for a step more often than others.
        explores = self.randomness.uniform() < self.shadow_share and self.shadows.may(ex)
        if audits or explores:
            self.spawn(self._compare(ex, case, audits=audits, explores=explores))

    async def _compare(self, ex: Exchange, case: Case, *, audits: bool, explores: bool) -> None:
        """Ask for what the client didn't get, and learn from the difference."""
        shadows, call = self.shadows, ex.call
        assert shadows is not None
        assert ex.body is not None
        if not shadows.comparable(ex):
            return  # an upstream in trouble isn't asked once more
        whole = None if case.short else call
        if audits and case.verdict is not None:
            whole = await shadows.ask(ex, ex.body, "")
            await self._learn(ex, case, case.verdict_at, case.verdict, whole, call)
        at, verdict = self._next(case)
        if not explores or not shadows.may(ex) or at >= len(case.track.forms):
            return
        form = case.track.forms[at]
        body = await asyncio.to_thread(self._in_form, ex, case.texts, form)
        if body is None:
            return
        if verdict is None:
            verdict = case.track.chain.decide(case.route, at, self.randomness.uniform(), may_audit=True)
        if verdict.action is Action.SERVE:
            return  # proved meanwhile: what is learnt from now on must be drawn by the verdict's own coin
        if whole is None:
            whole = await shadows.ask(ex, ex.body, "")
        await self._learn(ex, case, at, verdict, whole, await shadows.ask(ex, body, form.name))

    def _next(self, case: Case) -> tuple[int, Verdict | None]:
        """The step to learn about: that which was not served though it is proved, since nobody has looked for too
        long, with its verdict; else the first that isn't proved."""
        if case.verdict is not None and case.verdict.action is not Action.SERVE:
            return case.verdict_at, case.verdict
        return case.track.chain.proved(case.route), None

    async def _learn(self, ex: Exchange, case: Case, at: int, verdict: Verdict, whole: Any, short: Any) -> None:
        assert self.shadows is not None
        worse = await self.shadows.worse(ex, whole, short)
        if worse is not None:
            case.track.chain.learn(case.route, at, verdict, Label(worse))

    def _in_form(self, ex: Exchange, texts: Texts, form: Form) -> bytes | None:
        """The whole request in a form, as if all of it were new; None where the form changes nothing."""
        assert ex.body is not None
        turns = [turn for turn in texts.by_turn if turn not in texts.frozen]
        if texts.chars(turns) > _MOST_CHARS:
            return None
        made = decide(texts, turns, form, self._counter(ex.tenant, ex.model))
        if not rules_of(made):
            return None
        found = rewrite(ex.body, texts.payload, sent(texts, dict(zip(turns, made, strict=True)), tidy=self.tidy))
        return found.body if found.texts else None


def _read(ex: Exchange, marks: Sequence[Marks], named: bool) -> tuple[Texts, str]:
    """The texts that may be touched, and the route's name; where there are none only if it is asked for."""
    assert ex.payload is not None
    texts = Texts.of(ex.endpoint, ex.payload, marks)
    return texts, route_name(ex.endpoint, ex.payload, ex.model) if texts.by_turn or named else ""


def _rewritten(body: bytes, texts: Texts, decided: Mapping[int, Decision], tidy: bool) -> Rewritten:
    return rewrite(body, texts.payload, sent(texts, decided, tidy=tidy))
