"""What requests of a replay would have read of their provider's prompt cache, under one configuration.

Three worlds: each request sent by its client (*direct*), what goes upstream here (*sent*), and what had gone upstream
when the trace was recorded (*then*). The recorded usage says what was read in the last one. In a log of no proxy that
is the direct one, so its baseline is its bill; in a trace of farthing's, replayed under its own configuration, it is
the sent one, and then everything is as the ledger has it (proxy/counterfactual.py).
"""

from __future__ import annotations

from functools import partial

from farthing.proxy.attribute import attribute_hit, with_reads
from farthing.proxy.exchange import CacheStatus
from farthing.proxy.prices import RateCard
from farthing.proxy.provider_reads import BOTH, ProviderReads, World
from farthing.proxy.replay_facts import Fact
from farthing.proxy.replay_prompt import Prompt
from farthing.proxy.usage import Usage, UsageSource
from farthing.proxy.would import AS_BILLED, Before, Would, in_its_place, moved, placed

__all__ = ["LaneReads", "row_usage"]


class LaneReads:
    """The simulation of one lane. Only successful requests are told, each once. Cost: 0.1 microseconds for each 512
    characters of a prompt and world."""

    def __init__(self) -> None:
        self._now, self._then = ProviderReads(), ProviderReads()

    def free(self, fact: Fact, prompt: Prompt, usage: Usage, at_s: float, ready_s: float) -> Would:
        """Of a request for which nothing is sent. `usage`: of the answer that it gets; `ready_s`: when that begins."""
        trail, own, then = prompt.whole, _own_bill(fact), 0
        if own is not None:
            then, usage, ready_s = self._recorded(fact, prompt, own, at_s), own, _ready_s(fact, at_s)
        if usage.tokens_in < trail.cache.minimum_tokens:
            return AS_BILLED
        (direct,) = self._now.arrive(trail, usage, at_s, ready_s, (World.DIRECT,))
        worth = partial(self._now.worth, fact.model)
        told = own is not None and own.source is UsageSource.UPSTREAM
        read = moved(usage.cached, then, direct, worth) if told else worth(direct)
        return Would(read, None, trail.cache.charges_writes)

    def sent(
        self, fact: Fact, prompt: Prompt, usage: Usage, at_s: float, *, saved: int | None, before: Before
    ) -> tuple[Usage, Would]:
        """Of a request that goes upstream: what it would use here, and what it would have read without us.

        `usage`: as recorded, in the length in which it is sent here. `saved`: tokens that tidying it saves; None: it
        isn't tidied here.
        """
        cached, ready_s, charges = usage.cached, _ready_s(fact, at_s), prompt.whole.cache.charges_writes
        own = _own_bill(fact)
        then = 0 if own is None else self._recorded(fact, prompt, own, at_s)
        if saved is None or not prompt.tidies:
            saved = None
            direct, sent = self._now.arrive(prompt.whole, usage, at_s, ready_s, BOTH)
        else:
            whole = usage._replace(fresh=max(0, usage.fresh + saved))
            (direct,) = self._now.arrive(prompt.whole, whole, at_s, ready_s, (World.DIRECT,))
            short = prompt.short
            sent = 0 if short is None else self._now.arrive(short, usage, at_s, ready_s, (World.SENT,))[0]
        if own is not None and own.source is not UsageSource.UPSTREAM:
            return usage, AS_BILLED
        worth = partial(self._now.worth, fact.model)
        here = moved(cached, then, sent, worth) if own is not None else worth(sent)
        if here != cached:
            usage = with_reads(usage, here, charges_writes=charges)
        if saved is None:
            read = moved(cached, then, direct, worth) if own is not None else worth(direct)
            return usage, AS_BILLED if read == here else Would(read, None, charges)
        if not direct:
            return usage, AS_BILLED
        if own is not None and not prompt.was_short:
            would = placed(moved(cached, then, direct, worth), direct, sent, usage.tokens_in, before, same_model=True)
        else:
            would = in_its_place(direct, sent, usage.cached, usage.tokens_in, before, worth, same_model=True)
        return usage, would._replace(charges_writes=charges)

    def _recorded(self, fact: Fact, prompt: Prompt, usage: Usage, at_s: float) -> int:
        """What the recorded request had been promised, which is held against what it was billed with."""
        trail = prompt.short if prompt.was_short else prompt.whole
        if trail is None:
            return 0
        (then,) = self._then.arrive(trail, usage, at_s, _ready_s(fact, at_s), (World.SENT,))
        self._now.note(fact.model, then, usage)
        return then


def row_usage(fact: Fact, card: RateCard) -> Usage | None:
    """What a row of a ledger used, or would have used, reads of the provider's cache included.

    A hit's row has no counts of such reads, but what the hit was worth with them. Where today's card doesn't come near
    that amount, whoever changed the prices since, its usage stays as it is.
    """
    usage, before = fact.usage, fact.before
    if usage is None or before is None or before.money.baseline is None or _own_bill(fact) is not None:
        return usage
    most, least = (
        attribute_hit(
            card,
            fact.model,
            usage,
            semantic=False,
            at_s=fact.ts or 0.0,
            model_served=fact.model_served,
            would_read=read,
        ).baseline
        for read in (0, usage.tokens_in)
    )
    if most is None or least is None or not least <= before.money.baseline < most:
        return usage
    return with_reads(usage, usage.tokens_in * (most - before.money.baseline) // (most - least))


def _own_bill(fact: Fact) -> Usage | None:
    """The recorded usage where it is the request's own bill; None where it is that of an answer which it shared."""
    fetched = fact.before is None or fact.before.cache in (CacheStatus.MISS, CacheStatus.BYPASS)
    return fact.usage if fetched else None


def _ready_s(fact: Fact, at_s: float) -> float:
    return at_s + (fact.first_s or 0.0)
