"""Does it pay? Whether the shorter form of a request's new turns is the cheaper one, in exact money. Pure.

A turn is decided about once, when it first appears, and stays in its conversation in the form it was given then. So its
saving comes once at the rate of new tokens, and with each later turn at the rate of reads from the provider's cache,
the lowest that could be charged. Against it stand, in the order of `pays`:

1. Reads lost by changing what was sent before. Nothing does that as long as decisions are kept (decided.py).
2. Our own time, and the tokens of a retrieval tool that is offered for its sake.
3. The provider's least length. Below it nothing is cached: a prompt that falls under it by being shortened, or crosses
   it later for having been, is charged whole where the long one would have been read. The most that this can cost is
   subtracted: as many turns as the shorter conversation takes to make up for what it lacks.
4. The provider's step. Reads are cut to a multiple of it, so a shorter prompt may read less, by chance and each time
   anew. That is even on the average; what it may take by chance must be earned first (`_lost_to_rounding`).

docs/compression-money.md has the formulas.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from farthing.compress.provider_cache import Kind, ProviderCache
from farthing.proxy.prices import Rates
from farthing.proxy.usage import Usage

__all__ = ["LEAST_STEPS", "Pay", "PayFacts", "Seen", "pays"]

LEAST_STEPS = Fraction(2, 3)
_PICO_PER_USD = Decimal(10**12)


class Seen(NamedTuple):
    """What the last answer in this conversation reported: input tokens, those read from the cache, and how long ago."""

    tokens_in: int
    tokens_cached: int
    age_s: float


class PayFacts(NamedTuple):
    """One request, of which new turns might be shortened.

    `tokens_prompt`: all its input if they are not, earlier decisions replayed. `tokens_saved`: what the new ones would
    save, `tokens_saved_before`: what the earlier ones save in this request. `later_turns`: how many more requests this
    conversation is expected to bring. `growth_tokens`: what each of these adds at the least. `marked`: a cache mark
    stands behind the new turns, where caching is explicit. `seen`: None before a conversation's first answer.
    `tokens_changed`: from the first byte on that was sent otherwise before. `overhead_ms`: our own time for it,
    `usd_per_second`: what a second of it is worth. `tool_tokens`: of a retrieval tool that is offered only if this is
    done. `least_steps`: of the provider's steps that must be saved; see `_lost_to_rounding`.
    """

    rates: Rates | None
    cache: ProviderCache
    tokens_prompt: int
    tokens_saved: int
    tokens_saved_before: int = 0
    later_turns: Decimal = Decimal(0)
    growth_tokens: int = 32
    marked: bool = True
    seen: Seen | None = None
    tokens_changed: int = 0
    overhead_ms: float = 0.0
    usd_per_second: Decimal = Decimal(0)
    tool_tokens: int = 0
    least_steps: Fraction = LEAST_STEPS


class Pay(NamedTuple):
    """`predicted_pico`: what it saves over the conversation, in pico-dollars; negative where it costs."""

    worth: bool
    predicted_pico: int
    reason: str
    priced: bool = True

    @property
    def predicted_usd(self) -> Decimal:
        """The same in dollars."""
        return Decimal(self.predicted_pico).scaleb(-12)


def pays(facts: PayFacts) -> Pay:
    """Whether to shorten. Refuses where no price is known, since nobody could say."""
    rates, saved = facts.rates, facts.tokens_saved
    if rates is None:
        return Pay(False, 0, "no price is known", priced=False)
    if saved <= 0:
        return Pay(False, 0, "saves no tokens")
    cache = facts.cache
    caches = cache.kind is Kind.AUTOMATIC or (cache.kind is Kind.EXPLICIT and facts.marked)
    long, short = facts.tokens_prompt, facts.tokens_prompt - saved + facts.tool_tokens
    read = _read_now(facts) if caches else 0
    lost = min(facts.tokens_changed, read)
    net = _price(facts, rates, long, read, caches) - _price(facts, rates, short, read - lost, caches) - _time(facts)
    if caches and short < cache.minimum_tokens:
        net -= _lost_below_minimum(facts, rates, short)
        return Pay(net > 0, net, "pays" if net > 0 else "falls below the provider's minimum")
    net += int(facts.later_turns * (_again(rates, long, caches) - _again(rates, short, caches)))
    if net <= 0:
        return Pay(False, net, "loses reads" if lost else "costs more than it saves")
    if caches and cache.step_tokens > 1 and _lost_to_rounding(facts):
        return Pay(False, net, "no more than rounding may take")
    return Pay(True, net, "pays")


def _read_now(facts: PayFacts) -> int:
    """Tokens that this request would read at the most: while the provider keeps it, all that was sent the last time,
    where that was long enough to be written; else what was read then."""
    seen = facts.seen
    if seen is None or seen.age_s > facts.cache.ttl_s:
        return 0
    held = seen.tokens_in if seen.tokens_in >= facts.cache.minimum_tokens else seen.tokens_cached
    return max(0, min(facts.tokens_prompt - facts.tokens_saved, held))


def _price(facts: PayFacts, rates: Rates, tokens: int, read: int, caches: bool) -> int:
    """One sending of a prompt of which `read` tokens are cached and the rest is new, written where it can be."""
    if caches and tokens >= facts.cache.minimum_tokens:
        return rates.pico(Usage(cached=read, cache_write=tokens - read))
    return rates.pico(Usage(cached=read, fresh=tokens - read))


def _again(rates: Rates, tokens: int, caches: bool) -> int:
    """One more sending of the same prompt: the least that could be charged."""
    usage = Usage(cached=tokens) if caches else Usage(fresh=tokens)
    return min(rates.pico(usage), rates.pico(Usage(fresh=tokens)))


def _time(facts: PayFacts) -> int:
    """Our own time as money."""
    seconds = Decimal(repr(facts.overhead_ms)) / 1000
    return int((seconds * facts.usd_per_second * _PICO_PER_USD).to_integral_value())


def _lost_below_minimum(facts: PayFacts, rates: Rates, short: int) -> int:
    """The most that it can cost to be short of the provider's least length.

    The whole conversation is `lack` tokens ahead. It is cached from the turn on where it reaches the least length; the
    shortened one as many turns later as those tokens take to grow, and in each of these it is charged fresh for at most
    one token less than the least length, where the whole one would have been read.
    """
    lack = facts.tokens_saved + facts.tokens_saved_before
    least = facts.cache.minimum_tokens
    turns = -(-min(lack, least - short) // max(1, facts.growth_tokens))
    fresh, read = rates.pico(Usage(fresh=least - 1)), rates.pico(Usage(cached=least - 1 + lack))
    return turns * max(0, fresh - read)


def _lost_to_rounding(facts: PayFacts) -> bool:
    """Whether rounding might, by chance, take more than the conversation's savings.

    Reads are cut to a multiple of `step`. With D < step tokens saved, a later turn's cut takes D tokens less of the
    shorter prompt than of the longer, or step - D more, as the prompt's length happens to be: zero on the average, with
    the variance D (step - D), each time at the difference of fresh and read. After n turns D x fresh + n x D x read was
    saved; that exceeds z standard deviations of the rounding for every n if

        D / (step - D) >= z^2 (fresh - read)^2 / (4 x fresh x read)

    With reads at a tenth of the fresh rate, the lowest there is, and z = 1: D >= 2/3 step. With reads at half of it the
    same D stands for z = 4.
    """
    return facts.tokens_saved + facts.tokens_saved_before < facts.least_steps * facts.cache.step_tokens
