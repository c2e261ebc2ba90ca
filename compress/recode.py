"""Recode: the shortest of the forms that rules know for a text, by real token count. Pure.

Rules of this file:
1. No form is used that wasn't decoded and found equal to what it replaces, and none that doesn't save tokens: fewer
   characters are not a gain.
   A form that saves next to nothing isn't worth reading differently.
2. Forms may stand on each other (a log without colour codes may still be factored): each step restores the text before
   it, so all of them restore the first.
3. The outcome is a text that no rule makes shorter by that much; recoding it again gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from farthing.compress.rule import Rule

__all__ = ["Recoded", "recode"]

_MOST_STEPS = 8
_LEAST_SHARE = 0.03


class Recoded(NamedTuple):
    """`rules`: the names of those applied, in their order; `saved`: the tokens that each one's step took off, so that
    these add up to all. Tokens are those of the text alone."""

    text: str
    rules: tuple[str, ...]
    tokens_before: int
    tokens_after: int
    saved: tuple[int, ...]


def recode(
    text: str, count: Callable[[str], int], rules: Sequence[Rule], least_share: float = _LEAST_SHARE
) -> Recoded | None:
    """The text in the form that takes the fewest tokens; None: it stays as it is.

    `count`: tokens of a text for the model that will read it. At each step the rule that saves most is applied, of
    equal ones the first; it must save `least_share` of the tokens. Cost: that of the rules, and of counting the text
    and each form once.
    """
    tokens_before: int | None = None
    tokens = 0
    applied: tuple[str, ...] = ()
    saved: tuple[int, ...] = ()
    for _ in range(_MOST_STEPS):
        best: tuple[int, str, str] | None = None
        for rule in rules:
            short = rule.encode(text)
            if short is None or short == text or not rule.restores(text, short):
                continue
            if tokens_before is None:
                tokens_before = tokens = count(text)
            after = count(short)
            if after < (tokens * (1 - least_share) if best is None else best[0]):
                best = after, short, rule.name
        if best is None:
            return Recoded(text, applied, tokens_before or 0, tokens, saved) if applied else None
        saved += (tokens - best[0],)
        tokens, text = best[0], best[1]
        applied += (best[2],)
    return None  # rules that undo each other never come to rest: the text is left alone
