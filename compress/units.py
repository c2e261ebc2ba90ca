"""Text in units that a selection may keep or leave out: rows, lines, sentences. Pure.

Rules of this file:
1. The units of a text, joined, are the text, whatever it is.
2. A unit is never split further. Code, diffs and markup have one unit: they are left alone as a whole.
3. `needs` says what a unit can't be read without: a row its header, a stack frame its error, a list item its lead-in,
   a sentence that begins with 'he' or 'this' the sentence before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

__all__ = ["Kind", "Scalar", "Unit", "Units"]

Kind = Literal["rows", "documents", "table", "lines", "prose", "code", "diff", "markup", "object", "short", "long"]
Role = Literal["fixed", "head", "item"]
Scalar = str | int | float | bool | None


class Unit(NamedTuple):
    """A piece of the text with the white space and the separator that follow it.

    `role`: `fixed` is always kept; a `head` names a passage and is kept with any of its items; an `item` is chosen.
    `passage`: number of the passage, array or table it belongs to. `needs`: indices of units that must come along.
    `wants`: indices of units that help to read it, kept along where there is room. `fields`: a row's values by name.
    """

    text: str
    role: Role
    passage: int = 0
    needs: tuple[int, ...] = ()
    wants: tuple[int, ...] = ()
    fields: Mapping[str, Scalar] | None = None


class Units(NamedTuple):
    """`noun`: what the items are called in a notice to the model."""

    kind: Kind
    noun: str
    units: tuple[Unit, ...]

    @property
    def is_prose(self) -> bool:
        """Whether the units are language rather than records: sentences, or whole documents."""
        return self.kind in ("prose", "documents")
