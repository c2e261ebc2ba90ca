"""What a request cost, what it would have cost, and what saved the difference. Pure.

The prices of one request telescope:

    p0  asked-for model, original prompt, the provider-cache reads that it would have had
    p1  the same with the prompt as it was sent
    p2  the served model, at those tokens and reads
    p3  the serving attempt as billed
    p4  all attempts as billed

    baseline = p0        saved_compress     = p0 - p1
    cost     = p4        saved_route        = (p1 - p2) + (p3 - p4)
                         saved_prompt_cache = p2 - p3

Where the model asked for what had been left out, the answers in which it did so are billed too (`retrieved`). They are
compression's doing: what they cost is added to `cost` and taken from `saved_compress`.

Where a part of the answer was known (embeddings, item by item), p0 to p4 are of the part that was sent; what the whole
would have cost beyond p0 is added to `baseline` and is `saved_exact`.

So for every row `baseline - cost` is exactly the sum of the savings, in integers. Each p is rounded once.
The reads that a request would have had are handed in (`would_read`), from proxy/counterfactual.py; where they aren't,
they are those that it had, and p2 = p3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from farthing.proxy.exchange import Billed
from farthing.proxy.prices import RateCard, Rates
from farthing.proxy.usage import Usage, UsageSource

__all__ = [
    "UNKNOWN",
    "Money",
    "all_of",
    "as_asked",
    "as_original",
    "attribute_deferred",
    "attribute_failure",
    "attribute_hit",
    "attribute_joined",
    "attribute_upstream",
    "overhead_money",
]


class Money(NamedTuple):
    """A row's money in integer pico-dollars; all None where a price is unknown. `modelled`: something was estimated."""

    baseline: int | None = None
    cost: int | None = None
    overhead: int | None = None
    saved_exact: int | None = None
    saved_semantic: int | None = None
    saved_compress: int | None = None
    saved_route: int | None = None
    saved_prompt_cache: int | None = None
    price_source: str = ""
    modelled: bool = False


UNKNOWN = Money()
_NOTHING = Money(0, 0, 0, 0, 0, 0, 0, 0)


def attribute_upstream(
    card: RateCard,
    *,
    model_requested: str,
    model_served: str,
    usage: Usage | None,
    at_s: float,
    tokens_saved: int = 0,
    saved_before: int = 0,
    tokens_before: int = 0,
    would_read: int | None = None,
    would_read_whole: int | None = None,
    charges_writes: bool = False,
    would_write: int | None = None,
    for_an_hour: bool = False,
    other_attempts: Sequence[Billed] = (),
    retrieved: Sequence[Usage] = (),
    upstream: str = "",
    known: Usage | None = None,
) -> Money:
    """An answer that an upstream gave.

    `usage`: the serving attempt's, as billed. `tokens_saved`: original tokens less sent ones, negative where the prompt
    grew; the model might have answered the original at another length, so such a row is `modelled`. `would_read`: the
    tokens of the prompt as sent that the provider would have read from its cache, `would_read_whole`: of the original
    one, where another was sent. `charges_writes`: what it wouldn't have read of what it caches it would have written,
    at a price of its own; `would_write` tokens, where it was marked for the cache by us, `for_an_hour` or not.
    `other_attempts`: what else was billed for
    this request (a cascade's cheaper tries, failed attempts), each at its own model's price. `retrieved`: the answers
    before this one, in which the model only asked for what had been left out. `upstream`: who served, where others than
    the default one do. `known`: what the part would have used that wasn't sent, since its answer was stored.
    """
    if usage is None:
        return UNKNOWN
    there = card.at(upstream)
    same = there is card and same_model(model_requested, model_served)
    if same:
        of_all = rates_of_one(card, model_requested, model_served, at_s)
        asked = served = covering(of_all, usage)  # nothing was routed
    else:
        of_all = there.rates(model_served, at_s)
        asked, served = covering(card.rates(model_requested, at_s), usage), covering(of_all, usage)
    others, others_counted = all_of(card, other_attempts, at_s)
    asked_back = billed(of_all, retrieved)
    if asked is None or served is None or others is None or asked_back is None:
        return UNKNOWN
    estimated = usage.source is UsageSource.COUNTED or others_counted or not same
    if asked is served and not tokens_saved and would_read is None and not other_attempts and not retrieved:
        pico = served.pico(usage)  # nothing was done to it: all four prices are one
        return with_known(Money(pico, pico, 0, 0, 0, 0, 0, 0, served.source, estimated), asked, usage, known)
    told = partial(with_reads, charges_writes=charges_writes, writes=would_write, for_an_hour=for_an_hour)
    reads = usage if would_read is None else told(usage, would_read)
    original = as_original(reads, tokens_saved, saved_before, tokens_before) if tokens_saved else reads
    if would_read_whole is not None and tokens_saved:
        original = told(original, would_read_whole)
    p0, p1, p2, p3 = asked.pico(original), asked.pico(reads), served.pico(reads), served.pico(usage)
    p4 = p3 + others
    money = Money(
        baseline=p0,
        cost=p4 + asked_back,
        overhead=0,
        saved_exact=0,
        saved_semantic=0,
        saved_compress=p0 - p1 - asked_back,
        saved_route=(p1 - p2) + (p3 - p4),
        saved_prompt_cache=p2 - p3,
        price_source=served.source,
        modelled=estimated or tokens_saved != 0 or p2 != p3,
    )
    return with_known(money, asked, usage, known)


def attribute_deferred(
    card: RateCard,
    money: Money,
    *,
    model_requested: str,
    model_served: str,
    usage: Usage,
    at_s: float,
    tier: str,
    times: float,
    upstream: str = "",
) -> Money:
    """`money` of an answer at once, for one that came through the provider's batch API: what that saves is routing's.

    Billed at the rates of `tier`; where the prices don't know it, `times` what it would have cost, and `modelled`.
    `upstream`: who served (`attribute_upstream`).
    """
    if money.cost is None or money.baseline is None or money.saved_route is None:
        return UNKNOWN
    there = card.at(upstream)
    if there is card and same_model(model_requested, model_served):
        rates = rates_of_one(card, model_requested, model_served, at_s)
    else:
        rates = there.rates(model_served, at_s)
    own = covering(rates, usage._replace(tier=tier))
    cost = own.pico(usage) if own is not None else round(money.cost * times)
    return money._replace(
        cost=cost,
        saved_route=money.saved_route + money.cost - cost,
        modelled=money.modelled or own is None,
        price_source=money.price_source if own is None else own.source,
    )


def with_known(money: Money, asked: Rates, usage: Usage, known: Usage | None) -> Money:
    """`money` of the part of a request that was sent, and what the rest of it would have cost, which was known.

    Both would have been one request, at the rates `asked`: what is saved is the price of the whole less the part's.
    """
    if known is None:
        return money
    assert money.baseline is not None
    saved = asked.pico(usage._replace(fresh=usage.fresh + known.tokens_in)) - asked.pico(usage)
    modelled = money.modelled or known.source is UsageSource.COUNTED
    return money._replace(baseline=money.baseline + saved, saved_exact=saved, modelled=modelled)


def attribute_hit(
    card: RateCard,
    model: str,
    usage: Usage | None,
    *,
    semantic: bool,
    at_s: float,
    model_served: str = "",
    would_read: int | None = None,
    charges_writes: bool = False,
    would_write: int | None = None,
    shortened: bool = False,
) -> Money:
    """An answer from a cache: what the stored usage would cost today, of the model asked for, is saved.

    `model_served`: the model that wrote the answer; where it is a dated version of `model` the hit is priced as the
    miss was, so that the same answer never has two baselines. `would_read`: the tokens that the provider would have
    read from its own cache this time (`attribute_upstream`); None: as many as when the answer was written. `shortened`:
    the answer was written for a shorter prompt, and `usage` is what the whole one would have used (`as_asked`).
    """
    one = model_served if same_model(model, model_served) else model
    rates = covering(rates_of_one(card, model, one, at_s), usage) if usage is not None else None
    if rates is None or usage is None:
        return UNKNOWN
    if one is model and model_served != model and card.rates(model_served, at_s) is None:
        return UNKNOWN  # nobody knows what this answer cost, so nobody knows what reusing it saves
    modelled = semantic or shortened or usage.source is UsageSource.COUNTED
    pico = rates.pico(usage)
    if would_read is not None:
        stored, pico = (
            pico,
            rates.pico(with_reads(usage, would_read, charges_writes=charges_writes, writes=would_write)),
        )
        modelled = modelled or pico != stored
    exact, near = (0, pico) if semantic else (pico, 0)
    return Money(pico, 0, 0, exact, near, 0, 0, 0, rates.source, modelled)


def attribute_joined(
    card: RateCard,
    model: str,
    usage: Usage | None,
    *,
    at_s: float,
    model_served: str = "",
    would_read: int | None = None,
    charges_writes: bool = False,
    would_write: int | None = None,
    shortened: bool = False,
) -> Money:
    """An answer that was shared while it was under way; the one who started it carries the bill."""
    return attribute_hit(
        card,
        model,
        usage,
        semantic=False,
        at_s=at_s,
        model_served=model_served,
        would_read=would_read,
        charges_writes=charges_writes,
        would_write=would_write,
        shortened=shortened,
    )


def attribute_failure(
    card: RateCard,
    model: str,
    at_s: float,
    retrieved: Sequence[Usage] = (),
    other_attempts: Sequence[Billed] = (),
) -> Money:
    """A request for which nothing would have been billed, and nothing was but `retrieved` and `other_attempts`
    (`attribute_upstream`): compression's doing, and routing's."""
    rates = card.rates(model, at_s)
    if not retrieved and not other_attempts:
        return _NOTHING._replace(price_source=rates.source if rates else "")
    others, counted = all_of(card, other_attempts, at_s)
    asked_back = billed(rates, retrieved)
    if rates is None or others is None or asked_back is None:
        return UNKNOWN
    counted = counted or any(usage.source is UsageSource.COUNTED for usage in retrieved)
    return _NOTHING._replace(
        cost=asked_back + others,
        saved_compress=-asked_back,
        saved_route=-others,
        price_source=rates.source,
        modelled=counted,
    )


def overhead_money(
    card: RateCard, model: str, usage: Usage | None, at_s: float, upstream: str = "", others: Sequence[Billed] = ()
) -> Money:
    """What a call of farthing's own cost: overhead alone, as no client asked; unknown where usage or rates are.

    `upstream`, `others`: as `attribute_upstream` has them.
    """
    if usage is None:
        return _NOTHING._replace(overhead=None)
    rates = covering(card.at(upstream).rates(model, at_s), usage)
    besides, counted = all_of(card, others, at_s)
    if rates is None or besides is None:
        return _NOTHING._replace(overhead=None)
    modelled = counted or usage.source is UsageSource.COUNTED
    return _NOTHING._replace(overhead=rates.pico(usage) + besides, price_source=rates.source, modelled=modelled)


def covering(rates: Rates | None, usage: Usage) -> Rates | None:
    """The rates of the tier that answered, if they price all that was used."""
    return None if rates is None else rates.covering(usage)


def billed(rates: Rates | None, usages: Sequence[Usage]) -> int | None:
    """What several answers cost, each at its own tier's rates; None where one of them has no known price."""
    pico = 0
    for usage in usages:
        one = covering(rates, usage)
        if one is None:
            return None
        pico += one.pico(usage)
    return pico


@lru_cache(maxsize=512)
def same_model(asked: str, served: str) -> bool:
    """Whether the served name is the asked-for one or a dated version of it (gpt-4o -> gpt-4o-2024-08-06)."""
    if not served or asked == served:
        return True
    rest = served.removeprefix(asked)
    return rest != served and rest.startswith(("-", "@", ":")) and rest[1:].replace("-", "").isdigit()


def rates_of_one(card: RateCard, asked: str, served: str, at_s: float) -> Rates | None:
    """The rates of one model under two names, the alias asked for and the dated version that answered.

    A price that the operator declared for either name wins, the exact name first; else the dated version's, since that
    is what the provider bills (gpt-3.5-turbo-1106 costs twice as much as gpt-3.5-turbo).
    """
    if not served or served == asked or (card.owns(asked) and not card.owns(served)):
        return card.rates(asked, at_s)
    return card.rates(served, at_s) or card.rates(asked, at_s)


def with_reads(
    usage: Usage, cached: int, *, charges_writes: bool = False, writes: int | None = None, for_an_hour: bool = False
) -> Usage:
    """The same input with another share of it read from the provider's cache.

    `writes`: so many of the rest are written, `for_an_hour` or not; None: as many as the rule below says.

    Where writes are charged, what is cached of a prompt is the same whether it is read or written: what isn't read of
    it is written, for an hour as far as the answer wrote for an hour. Elsewhere it is fresh.
    """
    if writes is not None:
        whole = usage.fresh + usage.cached + usage.tokens_written
        cached = max(0, min(cached, whole))
        writes = max(0, min(writes, whole - cached))
        rest = whole - cached - writes
        return usage._replace(
            fresh=rest,
            cached=cached,
            cache_write=0 if for_an_hour else writes,
            cache_write_1h=writes if for_an_hour else 0,
        )
    if charges_writes:
        kept = usage.cached + usage.tokens_written
        cached = max(0, min(cached, kept))
        hour = min(usage.cache_write_1h, kept - cached)
        return usage._replace(cached=cached, cache_write=kept - cached - hour, cache_write_1h=hour)
    movable = usage.fresh + usage.cached
    cached = max(0, min(cached, movable))
    return usage._replace(cached=cached, fresh=movable - cached)


def as_asked(usage: Usage | None, tokens_saved: int) -> Usage | None:
    """What a request would have used that is answered from a cache, where the answer was written for a prompt that was
    shorter by `tokens_saved`. What it would have read is the simulation's to say, so that all of it is new here."""
    return usage if usage is None or not tokens_saved else as_original(usage, tokens_saved, 0, 0)


def as_original(usage: Usage, saved: int, saved_before: int, tokens_before: int) -> Usage:
    """What a request would have used whole, from what it used short: `saved` tokens more, never less than none.

    `saved_before` of them stand in turns that were sent before, `tokens_before` tokens as they were sent now: those
    would have been read from the provider's cache to the share that these were. The others are charged as what was new.
    """
    read = saved_before * min(usage.cached, tokens_before) // tokens_before if tokens_before > 0 else 0
    rest = saved - read
    longer = usage._replace(cached=usage.cached + read)
    if usage.cache_write:
        return longer._replace(cache_write=max(0, usage.cache_write + rest))
    if usage.cache_write_1h:
        return longer._replace(cache_write_1h=max(0, usage.cache_write_1h + rest))
    return longer._replace(fresh=max(0, usage.fresh + rest))


def all_of(card: RateCard, attempts: Sequence[Billed], at_s: float) -> tuple[int | None, bool]:
    """The price of all, each at its own model's rates there, whether one of them was counted; None: one is unknown."""
    total, counted = 0, False
    for model, usage, upstream in attempts:
        rates = covering(card.at(upstream).rates(model, at_s), usage)
        if rates is None:
            return None, counted
        total += rates.pico(usage)
        counted = counted or usage.source is UsageSource.COUNTED
    return total, counted
