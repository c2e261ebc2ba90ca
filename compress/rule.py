"""What a recoding rule is: one way to write a text shorter so that the equal value can be read back. Pure."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Rule"]


class Rule(Protocol):
    """One rule, without state. Both methods take any str, lone surrogates included, and never raise.

    `name`: the word for the ledger. `loss`: '' where the short text decodes to the equal value; else what is lost, in
    words. What "equal" means for its kind of text, the rule's own file says.
    """

    @property
    def name(self) -> str: ...

    @property
    def loss(self) -> str: ...

    def encode(self, text: str) -> str | None:
        """The shorter form; None: not this rule's kind of text, or nothing to be gained. Its own output gives None."""
        ...

    def restores(self, text: str, short: str) -> bool:
        """Whether `short`, decoded without any knowledge of `text`, is equal to it."""
        ...
