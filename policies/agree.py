"""When are two answers the same? A chain of comparators by kind of answer; the first that knows the kind decides. Pure.

The semantic cache's evidence, compression and evaluation all ask here. Rules of this file:
1. A refusal is never the same as an answer, and an answer cut at its length limit is judged only as far as it goes.
2. In doubt Unsure: what uses an opinion counts Unsure as the bound demands it, never as Same.
3. Each comparator's own error is measured (`agree_measured`, made by bench/comparators.py), so that a bound can add it.
"""

from __future__ import annotations

import re
from collections.abc import Set

from farthing.policies.agree_code import blocks_of, compare_code
from farthing.policies.agree_json import compare_calls, compare_json
from farthing.policies.agree_prose import compare_prose, sentences
from farthing.policies.agree_short import compare_labels, compare_numbers, compare_polarity
from farthing.policies.answer import Answer, read
from farthing.policies.opinion import Agreement, Embed, Opinion, different, same, unsure

__all__ = ["agree", "agree_bytes", "refuses"]

# A cut answer that is the beginning of the other must be most of it: 'Yes' is the beginning of many answers.
_CUT_SHARE = 0.5
_REFUSAL = re.compile(
    r"(?:i(?:'m| am) (?:very |really |so )?sorry[,.]? (?:but )?|(?:my )?apologies[,.]? (?:but )?|sorry[,.]? (?:but )?|"
    r"unfortunately,? |as an? (?:ai|language model|large language model|assistant)\b[^.]{0,60}, ?)*"
    r"(?:i(?:'m| am) (?:not able|unable|not allowed|not permitted|not comfortable)\b|"
    r"i (?:must|have to) decline\b|i (?:do not|don't) feel comfortable\b|"
    r"i (?:can(?:'t|not| not)|could(?:n't| not)|won't|will not) (?:be able to )?(?:help|assist|answer|comply|provide|"
    r"fulfil|discuss|share|give|access|create|generate|write|do (?:that|this)|engage|support|offer|advise|continue)|"
    r"i do(?:n't| not) (?:have (?:access|the ability|information|enough)|know)\b|"
    r"(?:this|that|your) (?:request|content|question) (?:violates|goes against|is not something i))",
    re.I,
)


def agree_bytes(a: bytes, b: bytes, embed: Embed | None = None, labels: Set[str] = frozenset()) -> Opinion:
    """`agree` over two answers as a cache holds them, whole or as the stream's bytes; several choices (`n`) pairwise,
    and the worst opinion counts. Never raises for any bytes."""
    ones, others = read(a), read(b)
    if ones is None or others is None:
        return same("bytes", "equal bytes") if a == b else unsure("bytes", "not an answer that is understood")
    if len(ones) != len(others):
        return different("bytes", "another number of choices")
    worst = (Agreement.SAME, Agreement.UNSURE, Agreement.DIFFERENT)
    found = [agree(one, other, embed, labels) for one, other in zip(ones, others, strict=True)]
    return max(found, key=lambda opinion: worst.index(opinion.agreement))


def agree(a: Answer, b: Answer, embed: Embed | None = None, labels: Set[str] = frozenset()) -> Opinion:
    """Whether two answers to one question say the same.

    `embed`: for longer text; without it rewordings are Unsure. `labels`: the closed set of answers, where one is known.
    Cost: `embed` is called at most twice, with at most 240 sentences and with words; all else is linear in the texts,
    but for the product of their numbers of sentences.
    """
    return (
        _by_bytes(a, b)
        or _by_refusal(a, b)
        or _by_end(a, b)
        or _by_calls(a, b, embed)
        or compare_json(a.text, b.text)
        or _by_code(a.text, b.text, embed)
        or compare_numbers(a.text, b.text)
        or compare_polarity(a.text, b.text)
        or compare_labels(a.text, b.text, labels)
        or compare_prose(a.text, b.text, embed)
    )


def refuses(answer: Answer) -> bool:
    """Whether it declines to answer: said so by the API, or by its first words (English)."""
    if answer.refusal.strip() or answer.finish == "refusal":
        return True
    first = next(iter(sentences(answer.text[:1000])), "")
    return not answer.calls and _REFUSAL.match(first[:400]) is not None


def _by_bytes(a: Answer, b: Answer) -> Opinion | None:
    return same("bytes", "equal") if a == b and not a.other else None


def _by_refusal(a: Answer, b: Answer) -> Opinion | None:
    one, other = refuses(a), refuses(b)
    if one != other:
        return different("refusal", "one refuses")
    return unsure("refusal", "both refuse, in other words") if one else None


def _by_end(a: Answer, b: Answer) -> Opinion | None:
    """What isn't only text and calls, and what was cut."""
    if a.other or b.other:
        return unsure("end", "something besides text and tool calls")
    cut = [(one, other) for one, other in ((a, b), (b, a)) if one.finish == "length"]
    if not cut:
        return None
    for one, other in cut:
        short, whole = one.text.rstrip(), other.text
        at_word = not whole[len(short) : len(short) + 1].isalnum()
        most = len(short) >= max(1, _CUT_SHARE * len(whole))
        if most and at_word and whole.startswith(short) and not (a.calls or b.calls):
            return same("end", "cut, and equal as far as it goes")
    return unsure("end", "cut at the length limit")


def _by_calls(a: Answer, b: Answer, embed: Embed | None) -> Opinion | None:
    if not a.calls and not b.calls:
        return None
    if not a.calls or not b.calls:
        return different("calls", "only one calls a tool")
    found = compare_calls(a.calls, b.calls)
    if found.agreement is not Agreement.SAME or not a.text.strip() or not b.text.strip():
        return found
    return _beside(found, a.text, b.text, embed)


def _by_code(a: str, b: str, embed: Embed | None) -> Opinion | None:
    found = compare_code(a, b)
    if found is None or found.agreement is not Agreement.SAME:
        return found
    return _beside(found, blocks_of(a)[1], blocks_of(b)[1], embed)


def _beside(found: Opinion, a: str, b: str, embed: Embed | None) -> Opinion:
    """The opinion, unless the words beside code or calls stand against each other."""
    if not a.strip() or not b.strip() or a.strip() == b.strip():
        return found
    words = compare_prose(a, b, embed)
    return found if words.agreement is Agreement.SAME else unsure(found.by, f"words beside it: {words.reason}")
