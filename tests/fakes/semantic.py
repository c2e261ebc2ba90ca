"""What a fixed threshold would serve, for tests of the index and not of the policy."""

from __future__ import annotations

from farthing.cache.semantic import SemanticCache

__all__ = ["served"]


def served(cache: SemanticCache, scope: str, text: str, now_s: float, threshold: float) -> str | None:
    """The best candidate's key, if its score is at least the threshold; noted as used."""
    found = cache.lookup(scope, "r", text, now_s)
    if found.entry_key is None or not found.score >= threshold:
        return None
    cache.used(found.entry_key)
    return found.entry_key
