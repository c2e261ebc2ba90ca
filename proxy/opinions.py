"""Asks whether two answers say the same. What judges is imported with the first two, so never on the event loop."""

from __future__ import annotations

from farthing.policies.opinion import Embed, Opinion

__all__ = ["opinion_on"]


def opinion_on(a: bytes, b: bytes, embed: Embed | None = None) -> Opinion:
    """See policies.agree.agree_bytes. Blocks."""
    from farthing.policies.agree import agree_bytes

    return agree_bytes(a, b, embed)
