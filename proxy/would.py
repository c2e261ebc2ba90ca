"""What a request would have read of its provider's prompt cache, of what a simulation saw in two worlds. Pure.

The ledger and a replay both ask here, so that a replay of the ledger's traffic comes to the ledger's amounts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from farthing.proxy.prompt_trail import Trail

__all__ = ["AS_BILLED", "Before", "Worth", "Would", "in_its_place", "moved", "placed", "unmarked"]

_ALIKE_TOKENS = 128
"""Two prompts that differ are cut at other places: a smaller difference of reads is none that the simulation sees."""
Worth = Callable[[int], int]
"""How many tokens a promise of so many is worth, by what was kept of earlier ones."""


class Would(NamedTuple):
    """`read`: tokens of the prompt as sent that the provider would have read; None: those that were billed.
    `read_whole`: of the original one, where another was sent; None: as many more as there were tokens more.
    `writes`: tokens that it would have written; None: what isn't read of what is cached. `hour`: for an hour.
    `trail`: of the prompt, where it was long enough to have one."""

    read: int | None = None
    read_whole: int | None = None
    charges_writes: bool = False
    trail: Trail | None = None
    writes: int | None = None
    hour: bool = False


AS_BILLED = Would()


class Before(NamedTuple):
    """Of a prompt that was shortened: tokens that were left out of turns which had been sent before, and the tokens of
    these turns as they were sent."""

    saved: int = 0
    sent: int = 0


def moved(cached: int, here: int, there: int, worth: Worth) -> int:
    """The reads of a prompt in another world than the one in which `cached` were billed: the simulation has `here`
    tokens for that one and `there` for the other."""
    if here == there:
        return cached
    apart = worth(abs(there - here))
    return min(cached + apart, max(cached, there)) if there > here else max(0, cached - apart)


def in_its_place(
    direct: int, sent: int, cached: int, tokens_in: int, before: Before, worth: Worth, *, same_model: bool
) -> Would:
    """Of a prompt in whose place another went upstream, or to another model.

    `direct`, `sent`: what the simulation has for either; `cached`, `tokens_in`: as billed for what was sent.
    """
    if sent and same_model:  # the provider itself has said what this prompt's promise was worth
        whole = max(direct * min(cached, sent) // sent, min(cached, direct))
    else:
        whole = worth(direct)
    return placed(whole, direct, sent, tokens_in, before, same_model=same_model)


def placed(whole: int, direct: int, sent: int, tokens_in: int, before: Before, *, same_model: bool) -> Would:
    """The same where the original prompt's reads are known."""
    alike = same_model and abs(_as_sent(direct, tokens_in, before) - sent) <= _ALIKE_TOKENS
    return Would(None if alike else _as_sent(whole, tokens_in, before), whole)


def unmarked(
    direct: int, sent: int, cached: int, tokens_in: int, before: Before, worth: Worth, *, same_model: bool
) -> Would:
    """Of a prompt that was marked by us: what it would have read with the client's own marks alone, or with none.

    As `in_its_place`, but never as billed: what was written or read is the marks' doing.
    """
    if sent and same_model:
        whole = max(direct * min(cached, sent) // sent, min(cached, direct))
    else:
        whole = worth(direct)
    return Would(_as_sent(whole, tokens_in, before), whole)


def _as_sent(read: int, tokens_in: int, before: Before) -> int:
    """Tokens of the original prompt's beginning, as tokens of the sent one's: what was left out of turns that had been
    sent before was left out of these."""
    long = before.saved + before.sent
    if long > 0 and before.sent > 0:
        inside = min(read, long)
        read = inside * before.sent // long + (read - inside)
    return max(0, min(read, tokens_in))
