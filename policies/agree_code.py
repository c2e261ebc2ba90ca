"""Do two answers hold the same code? By its tokens; white space counts only as indentation. Pure.

Whether two programs do the same can't be known, so other code is Unsure, unless it is the same code with another
number, text, name or operator in one place.
"""

from __future__ import annotations

import re

from farthing.policies.opinion import Opinion, different, same, unsure

__all__ = ["blocks_of", "compare_code", "tokens_of_code"]

_BLOCK = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)^[ \t]*```[ \t]*$", re.S | re.M)
_TOKEN = re.compile(r"\"[^\"\n]*+\"|'[^'\n]*+'|\w++|[^\w\s]")
_FEW = 2


def compare_code(a: str, b: str) -> Opinion | None:
    """Two answers with code between fences; None where neither has any. Comments are part of it, words around aren't
    judged: the caller does that with `blocks_of`."""
    one, other = blocks_of(a)[0], blocks_of(b)[0]
    if not one and not other:
        return None
    if not one or not other:
        return unsure("code", "only one holds code")
    if len(one) != len(other):
        return unsure("code", "another number of code blocks")
    mine, theirs = ([tokens_of_code(block) for block in blocks] for blocks in (one, other))
    if mine == theirs:
        return same("code", "equal but for white space")
    if [len(tokens) for tokens in mine] == [len(tokens) for tokens in theirs]:
        apart = {(x, y) for xs, ys in zip(mine, theirs, strict=True) for x, y in zip(xs, ys, strict=True) if x != y}
        # A variable renamed throughout is one pair of words; anything else is another meaning.
        renamed = all(x[:1].isalpha() and y[:1].isalpha() for x, y in apart)
        if len(apart) <= _FEW and not renamed:
            return different("code", "a number, text or operator differs")
    return unsure("code", "the code differs")


def blocks_of(text: str) -> tuple[list[str], str]:
    """The code between fences, and the text without it. Linear in the text."""
    blocks = [match[2] for match in _BLOCK.finditer(text)]
    return blocks, _BLOCK.sub(" ", text) if blocks else text


def tokens_of_code(code: str) -> list[str]:
    """The tokens of a block, with the depth of each line's indentation in between: '>2' is the second level."""
    depths: list[int] = []
    found: list[str] = []
    for line in code.expandtabs(4).splitlines():
        tokens = _TOKEN.findall(line)
        if not tokens:
            continue
        indent = len(line) - len(line.lstrip())
        while depths and depths[-1] > indent:
            depths.pop()
        if not depths or depths[-1] < indent:
            depths.append(indent)
        found.append(f">{len(depths)}")
        found += tokens
    return found
