"""What every rule of recoding is: a name, a stated loss, an encoder, and a check by a real decoder."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Rule"]


class Rule(Protocol):
    """One way to write a text in fewer tokens. Pure and synchronous; never raises for any str.

    `name`: the ledger's word. `loss`: '' where `restores` compares the whole value, else what is lost, in words.
    """

    name: str
    loss: str

    def encode(self, text: str) -> str | None:
        """The text written shorter; None: not this rule's kind of text, or no gain to be had."""

    def restores(self, text: str, short: str) -> bool:
        """Whether `short` alone decodes to the value of `text`."""
