"""Whether a prefix that is about to be forgotten is worth being read once more only to be kept. Pure.

The re-read costs `read` of the prefix's ordinary price. It earns where the next request comes after the first life and
within the second: then that one reads instead of writing, `write - read` less. Whether nothing came within the first
life is known by then, so the chance is that of the second alone.
"""

from __future__ import annotations

__all__ = ["gain_of_keeping"]


def gain_of_keeping(tokens: int, chance: float, chance_twice: float, read: float, write: float) -> float:
    """What one re-read is expected to save, in tokens at the ordinary price; negative where it costs more.

    `chance`, `chance_twice`: of a return within one life, and within two. `read`, `write`: as shares of the price.
    """
    if chance >= 1:
        return -tokens * read
    later = max(0.0, chance_twice - chance) / (1 - chance)
    return tokens * (later * (write - read) - read)
