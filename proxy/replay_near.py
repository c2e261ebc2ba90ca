"""The semantic cache in a replay: the real places, index, scorer and policy, over recorded answers.

A route begins knowing nothing, as in a farthing that begins on the trace's first day: it observes, is proved by the
answers that the trace holds, serves, and is audited. Where the trace holds no answer nothing is learnt.

Whoever replays several configurations at once gives them one `Reader`: a text is embedded, and a pair of answers
compared, once for all of them, since all look at the same request at the same time.
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from farthing.cache.embedder import Embedder
from farthing.cache.places import Placed, Places, Settled
from farthing.cache.scorer import GuardScorer, VerifierScorer
from farthing.cache.semantic import SemanticCache
from farthing.cache.template import Templates
from farthing.cache.unmatchable import UNLESS_DIVIDED
from farthing.cache.vectors import Vectors
from farthing.cache.verifier import Verifier
from farthing.policies.agree import agree_bytes
from farthing.policies.opinion import Agreement, Opinion
from farthing.policies.reuse import Action, Candidate, Label, RouteKey, Verdict
from farthing.policies.spend import DayTotal
from farthing.proxy.config import Semantic
from farthing.proxy.reuse_state import new_policy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from farthing.proxy.replay_facts import Fact, Part
    from farthing.proxy.replay_lane import Kept, Lane

__all__ = ["NearLane", "NearMiss", "Once", "Reader"]

_REMEMBERED = 50_000
_OPINIONS = 20_000
_WORTH_COMPARING = 0.3  # as stage_semantic has it
_MOST_COMPARED_BYTES = 2**20


class Once:
    """An embedder that works out each text once, while it is remembered. See cache.embedder.Embedder."""

    def __init__(self, inner: Embedder, remembered: int = _REMEMBERED) -> None:
        self.name, self.dim, self.max_tokens, self.batch = inner.name, inner.dim, inner.max_tokens, inner.batch
        self._inner = inner
        self._vectors = Vectors(inner, remembered)
        self._counts: OrderedDict[str, int] = OrderedDict()

    def count(self, text: str) -> int:
        """See Embedder."""
        known = self._counts.get(text)
        if known is None:
            known = self._counts[text] = self._inner.count(text)
            if len(self._counts) > _REMEMBERED:
                self._counts.popitem(last=False)
        return known

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Embedder."""
        import numpy as np

        rows = self._vectors.all_of([("", text) for text in texts])  # nobody waits for it who could tell
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            raise ValueError("a text is longer than the model's window")
        return np.stack(found) if found else np.empty((0, self.dim), np.float32)


class Reader:
    """What configurations share: an embedder, the verifier, and opinions on pairs of answers."""

    def __init__(self, embedder: Embedder, verifier: Verifier) -> None:
        self.embedder, self.verifier = Once(embedder), verifier
        self._opinions: OrderedDict[bytes, Opinion] = OrderedDict()

    def compare(self, a: bytes, b: bytes) -> Opinion:
        """policies.agree, remembered."""
        key = hashlib.blake2b(a, digest_size=16).digest() + hashlib.blake2b(b, digest_size=16).digest()
        found = self._opinions.get(key)
        if found is None:
            found = self._opinions[key] = agree_bytes(a, b, self.embedder.embed)
            if len(self._opinions) > _OPINIONS:
                self._opinions.popitem(last=False)
        return found


@dataclass(frozen=True, slots=True)
class NearMiss:
    """What was found for one request: where it stands, and the candidate with its verdict where there was one.

    `serves`: the answer to be given; None: the request goes on.
    """

    settled: Settled
    route: RouteKey
    candidate: Candidate | None = None
    verdict: Verdict | None = None
    entry: Kept | None = None
    serves: Kept | None = None


class NearLane:
    """See the module. One for each lane."""

    def __init__(self, semantic: Semantic, reader: Reader, seed: int = 1) -> None:
        scorer = GuardScorer() if semantic.unproven else VerifierScorer(reader.verifier)
        self._reader = reader
        self._cache = SemanticCache.open(
            None, reader.embedder, max_entries=semantic.max_entries, max_bytes=semantic.max_bytes, scorer=scorer
        )
        self._policy = new_policy(semantic)
        self._places = Places(Templates() if semantic.templates else None)
        self._random = random.Random(seed)
        self._audits = DayTotal()
        self._audit_limit_pico = int(semantic.audit_daily_usd * 10**12)

    def look(self, lane: Lane, fact: Fact, part: Part, key: str, now_s: float) -> NearMiss | None:
        """The best candidate and the policy's verdict, as SemanticStage has them; None where it isn't looked for."""
        place = part.place
        if place is None or isinstance(place, str):
            return None
        settled = self._places.settle(place)
        refusal = self._places.refusal(settled)
        route = RouteKey(fact.tenant, settled.place.route)
        if refusal:
            return NearMiss(settled, route) if refusal in UNLESS_DIVIDED else None
        for one in self._places.called(settled):
            self._put(one)
        here = settled.place
        found = self._cache.lookup(here.scope, here.route, here.text, now_s)
        nothing = NearMiss(settled, route)
        if found.entry_key is None or found.similarity is None or found.entry_key == key:
            return nothing
        entry = lane.held(found.entry_key, now_s)
        if entry is None or entry.tenant != fact.tenant or entry.endpoint != fact.endpoint:
            self._forget(found.entry_key)
            return nothing
        candidate = Candidate(entry.key, min(max(found.score, 0.0), 1.0), found.similarity)
        serving = self._policy.serves(route)
        may_audit = lane.has_price(fact) and self._audits.read(now_s) < self._audit_limit_pico
        verdict = self._policy.decide(route, candidate, self._random.random(), may_audit=may_audit)
        serves = entry if serving and verdict.action is Action.SERVE else None
        return NearMiss(settled, route, candidate, verdict, entry, serves)

    def served(self, lane: Lane, fact: Fact, look: NearMiss, now_s: float) -> int:
        """A near-duplicate's answer was given: judge it by the recorded one. Its audit's price, in pico-dollars."""
        assert look.verdict is not None
        assert look.candidate is not None
        assert look.entry is not None
        self._cache.used(look.entry.key)
        opinion = self._opinion(look.entry, fact)
        if opinion is None:
            lane.tally.near_unknown += 1
        else:
            tags = ((f"tag:{name}", value) for name, value in fact.tags)
            lane.tally.judged(opinion.agreement, (("model", fact.model), ("endpoint", fact.endpoint._value_), *tags))
        if not look.verdict.audit:
            return 0
        pico = lane.audit_price(fact) or 0
        self._audits.add(pico, now_s)
        if opinion is not None:
            self._policy.learn(look.route, look.candidate, look.verdict, Label(float(opinion.wrong)))
            if opinion.agreement is Agreement.DIFFERENT:
                self._forget(look.entry.key)
        return pico

    def landed(self, lane: Lane, fact: Fact, look: NearMiss | None, kept: Kept | None) -> None:
        """The upstream has answered: compare its answer with the candidate's, and let the new one be found."""
        if look is None:
            return
        wrong = False
        if look.candidate is not None and look.verdict is not None and look.entry is not None:
            learns = look.verdict.weight or look.verdict.pool_weight
            if learns and look.candidate.score >= _WORTH_COMPARING and look.serves is None:
                opinion = self._opinion(look.entry, fact)
                if opinion is not None:
                    wrong = opinion.wrong
                    self._policy.learn(look.route, look.candidate, look.verdict, Label(float(wrong)))
        if kept is None or kept.near_until_s <= kept.stored_s:
            return
        if self._policy.entries == "misses" or wrong:
            placed = Placed(look.settled, kept.key, kept.near_until_s, _worth_usd(lane, fact))
            self._places.wait(placed)
            self._put(placed)

    def compare(self, a: bytes, b: bytes) -> Opinion:
        """Whether two answers say the same."""
        return self._reader.compare(a, b)

    def _opinion(self, entry: Kept, fact: Fact) -> Opinion | None:
        if entry.body is None or fact.answer is None or fact.unfit:
            return None
        if max(len(entry.body), len(fact.answer)) > _MOST_COMPARED_BYTES:
            return None
        return self.compare(entry.body, fact.answer)

    def _put(self, one: Placed) -> None:
        place = one.settled.place
        self._cache.add(place.scope, place.text, one.entry_key, one.expires_s, one.worth_usd, route=place.route)
        while self._cache.tend():
            pass

    def _forget(self, key: str) -> None:
        self._places.forget([key])
        self._cache.remove([key])


def _worth_usd(lane: Lane, fact: Fact) -> float | None:
    pico = lane.audit_price(fact)
    return None if pico is None else pico * 1e-12
