"""Near-duplicates for the load: families of prompts that ask one thing in several words, each told apart by a number.

Two of one family may have each other's answers; two families never, however alike their words are: the pump of another
number has another filter. Pure.
"""

from __future__ import annotations

import re

__all__ = ["FORMS", "WORDS", "family", "member"]

FORMS = (
    (
        "How do I replace the filter of pump {number}?",
        "How can I replace the filter of pump {number}?",
        "How should I replace the filter in pump {number}?",
    ),
    (
        "What is the warranty period of the boiler {number}?",
        "What is the warranty period for boiler {number}?",
    ),
    (
        "Explain how to descale a coffee machine of type {number}.",
        "Please explain how to descale a coffee machine of type {number}.",
    ),
    (
        "How do I open the battery cover of radio {number}?",
        "How can I open the battery cover of radio {number}?",
    ),
)
WORDS = (b"replace the filter", b"warranty period", b"descale a coffee", b"battery cover")
"""What of the prompts is found where they lie in the open."""

_NUMBER = re.compile(r"\d+")


def member(number: int, form: int) -> str:
    """A prompt of the family of this number; `form`: which one, any integer."""
    forms = FORMS[number % len(FORMS)]
    return forms[form % len(forms)].format(number=number)


def family(prompt: str) -> frozenset[str]:
    """The prompts whose answers are right for this one: itself, and those that ask the same."""
    found = _NUMBER.search(prompt)
    if found is not None:
        all_of_it = {one.format(number=found[0]) for one in FORMS[int(found[0]) % len(FORMS)]}
        if prompt in all_of_it:
            return frozenset(all_of_it)
    return frozenset({prompt})
