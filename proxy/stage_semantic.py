"""The semantic cache's place in the pipeline: a near-duplicate in the same scope may answer, where that is proved.

A route that may not serve yet is looked up while the upstream works, so that a miss waits for nothing; the fresh answer
is then compared with the candidate's, which is evidence for free. A route that serves is looked up before the upstream,
within a deadline; late means miss. Some of its hits are audited after they were served; an entry that an audit shows to
have answered wrongly is found no more.

Where there is a second stage (proxy/second_stage.py), a candidate of doubtful score is put to it first, within a
deadline of its own, and the policy is given the combined score.

Rules of this file: what decides is the policy (policies/reuse.py) and what compares is policies/agree.py; here they are
brought together with the index, the store and the upstream. Every comparison is learnt with the verdict it was made
under, and with no other.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from farthing.cache.entry import Entry
from farthing.cache.key import Place, neighbourhood
from farthing.cache.places import Placed, Places, Settled
from farthing.cache.second_opinion import Band, combined
from farthing.cache.semantic_thread import SemanticThread
from farthing.cache.stage_exact import OFF_LOOP_BYTES, Renderer, scope_of, served, too_old, unfit
from farthing.cache.store import Store
from farthing.cache.unmatchable import UNLESS_DIVIDED, unmatchable_turn
from farthing.cache.walls import Parts, Walls, parts_of
from farthing.policies.opinion import Agreement, Opinion
from farthing.policies.reuse import Action, Candidate, Label, Policy, RouteKey, Source, Verdict
from farthing.proxy.audit import Auditor
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.exchange import GO_ON, CacheStatus, Call, Endpoint, Exchange, LocalReply, Quiet
from farthing.proxy.exchange import Verdict as StageVerdict
from farthing.proxy.implicit_rows import Nearest
from farthing.proxy.lately import Lately, Sighting
from farthing.proxy.opinions import opinion_on
from farthing.proxy.second_stage import Said, SecondStage
from farthing.proxy.text import normalise
from farthing.proxy.watching import Watching

if TYPE_CHECKING:
    from farthing.cache.semantic import Found

__all__ = ["Case", "SemanticStage", "tool_result"]

log = structlog.get_logger("farthing.semantic")

Moving = Collection[asyncio.Task[Any]]

_RATEABLE = 10_000
_MOST_COMPARED_BYTES = 2**20
_MOST_TOLD_APART_BYTES = 2**20  # what is longer would hold the event loop for what only explains a miss
# Reading more than this takes milliseconds, so it leaves the event loop.
_LONG_CHARS = 2_000
# Comparing costs more than looking up; below this score no threshold is ever proved.
_WORTH_COMPARING = 0.3


@dataclass(frozen=True, slots=True)
class Case:
    """One candidate of one request, and what the policy said of it. `entry`: its answer as it was then."""

    route: RouteKey
    candidate: Candidate
    verdict: Verdict
    entry: Entry | None = None
    sighting: Sighting | None = None


@dataclass(slots=True)
class SemanticStage(Quiet):
    """`unproven`: the operator's word that a fixed threshold serves. `worth_usd`: what a hit on an entry saves.
    `semantic_until_s`: until when near-duplicates may be answered with it, in seconds since the epoch."""

    thread: SemanticThread | None
    store: Store
    upstream_url: str
    reuse: Policy
    unproven: bool
    deadline_s: float
    band: Band
    judge_deadline_s: float
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    clock: Clock
    randomness: Randomness
    renderer: Renderer
    places: Places
    auditor: Auditor | None = None
    second: SecondStage | None = None
    watch: Watching | None = None
    audited: Callable[[str, bool], None] = lambda exchange_id, wrong: None
    worth_usd: Callable[[Entry], float | None] = lambda entry: None
    semantic_until_s: Callable[[Entry], float] = lambda entry: entry.expires_s
    served_cases: OrderedDict[str, Case] = field(default_factory=OrderedDict)
    lately: Lately = field(default_factory=Lately)
    walls: Walls = field(default_factory=Walls)
    nearest: Nearest = field(default_factory=Nearest)
    name: str = field(default="semantic", init=False)
    hard: bool = field(default=False, init=False)

    @property
    def idle(self) -> bool:
        """See Stage: the cache is off."""
        return self.thread is None

    def on_request(self, ex: Exchange) -> StageVerdict | Awaitable[StageVerdict]:
        """Answer from a neighbour where that is allowed; otherwise look without making anybody wait."""
        if self.thread is None or not ex.may_semantic or not ex.key or ex.exact is None:
            return GO_ON
        if turn := tool_result(ex.payload, ex.endpoint):
            ex.decide(self.name, "passed by", turn)
            return GO_ON
        return self._seek(ex, self.thread, ex.exact)

    async def _seek(self, ex: Exchange, thread: SemanticThread, exact: dict[str, Any]) -> StageVerdict:
        scope = scope_of(ex, self.upstream_url)
        huge = len(ex.body or b"") > OFF_LOOP_BYTES
        place = await asyncio.to_thread(neighbourhood, scope, exact) if huge else neighbourhood(scope, exact)
        if isinstance(place, str):
            ex.decide(self.name, "passed by", place)
            return GO_ON
        settled = self.places.settle(place)
        aside = len(place.text) > _LONG_CHARS or thread.loading  # until then it may not be ready to be quick
        refusal = await asyncio.to_thread(self.places.refusal, settled) if aside else self.places.refusal(settled)
        place = settled.place
        if not refusal or refusal in UNLESS_DIVIDED:
            ex.place = settled
        if refusal:
            ex.decide(self.name, "passed by", refusal)
            return GO_ON
        if not thread.ready:
            ex.decide(self.name, "passed by", "busy or not loaded yet")
            return GO_ON
        moving = [self._put(thread, one) for one in self.places.called(settled)]
        if not self.reuse.serves(RouteKey(ex.tenant, place.route)):
            ex.looking = self.spawn(self._look(ex, thread, place, moving))
            return GO_ON
        what, limit_s = "look-up", self.deadline_s
        try:
            async with asyncio.timeout(limit_s):
                near = await self._find(ex, thread, place, moving)
            what, limit_s = "judgement", self.judge_deadline_s
            async with asyncio.timeout(limit_s):
                await self._weigh(ex, place, near)
        except TimeoutError:
            ex.decide(self.name, "late", f"{what}: no answer within {limit_s * 1000:.0f} ms")
            return GO_ON
        return await self._reply(ex, ex.case) or GO_ON

    def on_end(self, ex: Exchange) -> None:
        """The upstream has answered: compare its answer with the candidate's, when nobody waits."""
        call = ex.call
        if ex.variant is not None and ex.variant.student:
            return  # a student's answer says nothing of the candidate's
        if call is not None and call.served is None and (ex.case is not None or ex.looking is not None):
            self.spawn(self._learn_from_miss(ex, call))

    def learn(self, ex: Exchange, entry: Entry) -> None:
        """A new answer is in the store: let its prompt be found."""
        if self.thread is None or ex.place is None or not self.thread.ready:
            return
        if (parts := _parts(ex)) is not None:
            self.walls.note(ex.tenant, ex.place.origin.text, parts, ex.key)
        if self.reuse.entries == "misses":
            self._add(ex.place, entry)
        else:
            self.spawn(self._add_where_none_is_near(ex, ex.place, entry))

    async def _add_where_none_is_near(self, ex: Exchange, settled: Settled, entry: Entry) -> None:
        """Where there was a candidate, the comparison with it decides."""
        if ex.looking is not None and not ex.looking.done():
            await asyncio.wait([ex.looking])
        if ex.case is None:
            self._add(settled, entry)

    async def forget(self, entry_keys: Iterable[str]) -> int:
        """These answers are gone from the store; how many of them could be found by near-duplicates."""
        keys = tuple(entry_keys)
        self.places.forget(keys)
        self.lately.forget(keys)
        if self.thread is None or not self.thread.loaded or not keys:
            return 0  # what an index that isn't loaded yet holds of them is forgotten when it is found
        return await self.thread.run(lambda cache: cache.remove(keys))

    @property
    def audits_usd(self) -> float:
        """What audits have cost today, in dollars."""
        return 0.0 if self.auditor is None else self.auditor.errands.spent.read(self.clock.now_s()) * 1e-12

    def remembers(self, exchange_id: str) -> bool:
        """Whether that hit can still be rated here."""
        return exchange_id in self.served_cases

    def rate(self, exchange_id: str, *, wrong: bool) -> str | None:
        """Somebody's word on a served hit: its entry's key, None where that hit is not known (any more)."""
        case = self.served_cases.pop(exchange_id, None)
        if case is None:
            return None
        self.reuse.learn(case.route, case.candidate, case.verdict, Label(float(wrong), Source.RATING))
        return case.candidate.entry_key

    async def _look(self, ex: Exchange, thread: SemanticThread, place: Place, moving: Moving) -> None:
        """Find the best candidate and ask the policy; what comes of it stands in `ex.case`."""
        await self._weigh(ex, place, await self._find(ex, thread, place, moving))

    async def _find(
        self, ex: Exchange, thread: SemanticThread, place: Place, moving: Moving
    ) -> tuple[Found, Entry] | None:
        """The best candidate by the first stage's score, and its answer.

        `moving`: entries on their way behind this request's wall.
        """
        if moving:
            await asyncio.wait(moving)
        now_s = self.clock.now_s()
        self.lately.pulse.looked(RouteKey(ex.tenant, place.route), now_s)
        found = await thread.lookup(place.scope, place.route, place.text, now_s)
        if self.watch is not None and self.watch.wants_vector():
            self.spawn(self._show(self.watch, thread, place))
        ex.similarity = found.similarity
        if found.entry_key is None or found.similarity is None:
            apart = self._apart(ex) if found.verdict == "empty scope" else ()
            ex.decide(self.name, "looked", f"{found.verdict}: {', '.join(apart)}" if apart else found.verdict)
            return None
        entry, lacking = await self._entry(ex, found.entry_key)
        if entry is None:
            ex.decide(self.name, "looked", lacking)
            return None
        return found, entry

    def _apart(self, ex: Exchange) -> tuple[str, ...]:
        """Which parts keep it from the nearest that is stored."""
        if ex.place is None or (parts := _parts(ex)) is None:
            return ()
        return self.walls.differing(ex.tenant, ex.place.origin.text, parts, ex.key)

    async def _show(self, watch: Watching, thread: SemanticThread, place: Place) -> None:
        """The vector of a text that was just looked up, so that it is known already."""
        vector = await thread.run(lambda cache: cache.vector(place.scope, place.text))
        if vector is not None:
            watch.topic(vector)

    async def _weigh(self, ex: Exchange, place: Place, near: tuple[Found, Entry] | None) -> None:
        """Ask the second stage where the score is doubtful, then the policy."""
        if near is None:
            return
        found, entry = near
        score, said = min(max(found.score, 0.0), 1.0), Said(None)
        if self.second is not None and self.band.holds(score):
            said = await self.second.ask(ex, normalise(place.text), found.text)
            if said.probability is None:
                ex.decide(self.name, "not judged", f"score {score:.3f}; {said.reason}")
                return
            score = combined(score, said.probability, self.band)
            if self.watch is not None:
                self.watch.judged(said.probability)
        candidate = Candidate(entry.key, score, found.similarity or 0.0)
        route = RouteKey(ex.tenant, place.route)
        may_audit = self.auditor is not None and self.auditor.errands.may(ex.model)
        verdict = self.reuse.decide(route, candidate, self.randomness.uniform(), may_audit=may_audit)
        sighting = Sighting(ex.id, self.clock.now_s(), route, place.text, ex.key, candidate, verdict)
        self.lately.found(sighting)
        self.nearest.note(ex.id, entry.key)
        ex.case, ex.p_wrong = Case(route, candidate, verdict, entry, sighting), verdict.wrong
        judged = "" if said.probability is None else f", judged {said.probability:.2f}"
        ex.decide(self.name, verdict.action.value, f"score {score:.3f}{judged}; {verdict.reason}")

    async def _reply(self, ex: Exchange, case: Case | None) -> LocalReply | None:
        if case is None or case.verdict.action is not Action.SERVE or case.entry is None:
            return None
        entry = case.entry
        proof = "unproven" if self.unproven or case.verdict.bound is None else "proved"
        reply = await served(ex, entry, self.renderer, self.clock, self.randomness)
        if reply is None or reply.served is None:
            return None
        reply.served.reuse, reply.served.bound = proof, case.verdict.bound
        ex.cache, ex.cache_reason = CacheStatus.HIT_SEMANTIC, proof
        if case.sighting is not None:
            self.lately.served(case.sighting)
        self.served_cases[ex.id] = replace(case, entry=None, sighting=None)
        if len(self.served_cases) > _RATEABLE:
            self.served_cases.popitem(last=False)
        if self.thread is not None:
            self.spawn(self.thread.run(lambda cache: cache.used(entry.key)))
        if case.verdict.audit and self.auditor is not None and not ex.controls.only_if_cached:
            self.spawn(self._audit(ex, case, entry))
        return reply

    async def _entry(self, ex: Exchange, key: str) -> tuple[Entry | None, str]:
        """A candidate's answer, if it is this client's to see; else why it is none.

        It is kept with the case: by the time that a fresh answer is there to be compared, the store may hold that one
        under the same key.
        """
        if key == ex.key:
            return None, "its own earlier answer"
        now_s = self.clock.now_s()
        entry = await self.store.get(key, now_s)
        if entry is None or entry.scope != ex.tenant or entry.endpoint != ex.endpoint:
            await self.forget([key])
            return None, "its answer is gone"
        if too_old(ex, entry, now_s):
            return None, "older than max-age"
        return entry, ""

    async def _learn_from_miss(self, ex: Exchange, call: Call) -> None:
        if ex.looking is not None and not ex.looking.done():
            await asyncio.wait([ex.looking])
        case = ex.case
        if case is None or not (case.verdict.weight or case.verdict.pool_weight):
            return
        if case.candidate.score >= _WORTH_COMPARING and case.entry is not None:
            await self._compare(ex, case, case.entry, call)

    async def _audit(self, ex: Exchange, case: Case, entry: Entry) -> None:
        assert self.auditor is not None
        opinion = await self._compare(ex, case, entry, await self.auditor.ask(ex))
        if opinion is not None:
            self.audited(ex.id, bool(opinion.wrong))
        if opinion is not None and opinion.agreement is Agreement.DIFFERENT:
            await self._found_no_more(case, entry.key)
            log.info("an audit found an answer wrong; its entry is found no more", id=ex.id, entry=entry.key)

    async def _found_no_more(self, case: Case, key: str) -> None:
        """For its own question the answer may be right, so the exact cache keeps it, and the screen what was wrong."""
        thread, one, now_s = self.thread, case.sighting, self.clock.now_s()
        self.places.forget([key])
        if thread is None:
            return
        if one is not None:
            name, text, cosine = case.route.name, one.text, case.candidate.cosine
            one.against = await thread.run(lambda cache: cache.against(key, name, text, cosine, now_s))
        await thread.run(lambda cache: cache.remove([key]))

    async def _compare(self, ex: Exchange, case: Case, entry: Entry, call: Call) -> Opinion | None:
        """Learn whether the candidate's answer says what the fresh one says. In doubt it doesn't."""
        if unfit(call, ex.endpoint, _MOST_COMPARED_BYTES) or call.answer is None or self.thread is None:
            return None  # an upstream's bad hour says nothing about the candidate
        fresh_answer = call.answer
        opinion = await self.thread.run(lambda cache: opinion_on(entry.body, fresh_answer, cache.embed))
        self.reuse.learn(case.route, case.candidate, case.verdict, Label(float(opinion.wrong)))
        if self.watch is not None:
            self.watch.compared(case.candidate.score, wrong=bool(opinion.wrong))
        if case.sighting is not None:
            self.lately.judged(case.sighting, wrong=opinion.wrong)
        if opinion.wrong and self.reuse.entries == "wrong" and ex.place is not None and ex.key:
            fresh = await self.store.get(ex.key, self.clock.now_s())
            if fresh is not None:
                self._add(ex.place, fresh)
        return opinion

    def _add(self, settled: Settled, entry: Entry) -> None:
        thread = self.thread
        if thread is None:
            return
        until_s = min(entry.expires_s, self.semantic_until_s(entry))
        if until_s <= self.clock.now_s():
            return
        placed = Placed(settled, entry.key, until_s, self.worth_usd(entry))
        self.places.wait(placed)
        self._put(thread, placed)

    def _put(self, thread: SemanticThread, one: Placed) -> asyncio.Task[Any]:
        """Let an entry be found at its place, and nowhere else."""
        place = one.settled.place
        return self.spawn(
            thread.run(
                lambda cache: cache.add(
                    place.scope, place.text, one.entry_key, one.expires_s, one.worth_usd, route=place.route
                )
            )
        )


def tool_result(payload: dict[str, Any] | None, endpoint: Endpoint) -> str:
    """'tool result' where the last turn is one: it is never matched. Images and audio may stand beside the text: the
    scope's wall holds them."""
    turns = (payload or {}).get("input" if endpoint is Endpoint.RESPONSES else "messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    turn = unmatchable_turn(last) if isinstance(last, dict) else ""
    return turn if turn == "tool result" else ""


def _parts(ex: Exchange) -> Parts | None:
    """What tells a request apart from others; None where it is too long for that."""
    if ex.exact is None or len(ex.body or b"") > _MOST_TOLD_APART_BYTES:
        return None
    return parts_of(ex.exact, ex.endpoint)
