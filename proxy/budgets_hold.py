"""What a request holds while it is under way: money that is reserved, tokens that were taken, and how both end. Pure.

Rules of this file:
1. A request's attempts share what it holds. Each one's share is its own: it alone is taken back where that attempt
   wasn't billed, whatever others are under way.
2. In the end all attempts count that were billed, whichever of them served.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from farthing.policies.bucket import Take
from farthing.policies.budget import Want
from farthing.proxy.exchange import Exchange
from farthing.proxy.usage import Usage

__all__ = ["Hold", "Share", "counted", "shares", "tokens_of", "used"]


@dataclass(slots=True)
class Share:
    """What one attempt may cost, in pico-dollars, and how many tokens it may use."""

    pico: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Hold:
    """What one request reserved. `takes`: out of the buckets that count tokens; `tokens`: how many.

    `asked`: the model that the client asks, by whose name lengths of answers are learnt; '': the request's.
    `attempts`: what its attempts so far may cost and use together; `begun`: one was announced. `more`: what was
    reserved for those that `pico` doesn't cover, `tries`: how often that was tried, so that no two have one name.
    """

    name: str
    wants: tuple[Want, ...] = ()
    pico: int = 0
    reserved: bool = False
    takes: tuple[Take, ...] = ()
    tokens: int = 0
    asked: str = ""
    settled: bool = False
    attempts: Share = field(default_factory=Share)
    begun: bool = False
    more: list[Hold] = field(default_factory=list)
    tries: int = 0

    def begin_first(self) -> None:
        """The first attempt has begun without a word of its own: all that was reserved so far is its share."""
        if not self.begun:
            self.begin(Share(self.pico, self.tokens))

    def begin(self, share: Share) -> Share:
        """One attempt more. Returns what isn't held for it yet."""
        self.begun = True
        self.attempts.pico += share.pico
        self.attempts.tokens += share.tokens
        reserved = self.pico + sum(one.pico for one in self.more)
        return Share(max(0, self.attempts.pico - reserved), max(0, self.attempts.tokens - self.tokens))

    def take_back(self, share: Share) -> None:
        """That attempt wasn't made, or not billed: what is held for it is the next one's. Once."""
        self.attempts.pico -= share.pico
        self.attempts.tokens -= share.tokens
        share.pico = share.tokens = 0


def counted(hold: Hold) -> tuple[Take, ...]:
    """What it took out of buckets of tokens."""
    return tuple(take for take in hold.takes if take.rate.unit == "tokens")


def shares(hold: Hold, pico: int | None) -> list[tuple[Hold, int]]:
    """What each reservation of a request is settled with, so that in whatever order they end no account ever holds
    less than the request costs: each with as much as was reserved, the last one with the rest.

    `pico`: what it cost; None: nobody knows, and each is settled with what it held.
    """
    pieces = [hold, *hold.more]
    if pico is None:
        return [(one, one.pico) for one in pieces]
    found = []
    for one in pieces[:-1]:
        share = min(one.pico, pico)
        pico -= share
        found.append((one, share))
    return [*found, (pieces[-1], pico)]


def used(ex: Exchange, hold: Hold, usage: Usage | None, *, billed: bool) -> int:
    """Tokens of all attempts that were billed. `usage`: of the one that answers, if it was `billed`; where nobody knows
    it, that is all that was taken."""
    call = ex.call
    before = [] if call is None else [*call.earlier, *(one.usage for one in call.others)]
    tokens = sum(map(tokens_of, before))
    if not billed:
        return tokens
    return max(tokens, hold.tokens) if usage is None else tokens + tokens_of(usage)


def tokens_of(usage: Usage) -> int:
    """How many tokens, of prompt and answer."""
    return usage.tokens_in + usage.tokens_out
