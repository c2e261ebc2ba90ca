"""Which replica has most of a prompt in its KV cache already, and whether going there is worth the wait. Pure.

What a replica holds is not asked but reckoned: a prompt that was sent there is there, as the chain of hashes of its
blocks (proxy/prompt_trail.py), until so many others were that it is forgotten. A chain's key stands for the block and
all before it, so that a set of keys is a tree of prefixes.

The choice is the least work: the characters that the replica would have to evaluate, those that it has been given and
has not evaluated yet, and a constant for each request under way there, which is decoding. So a full cache draws until
its replica is busier than the saving is worth, and without any saving it is balancing by load.

Sources: llm-d, "Prefix-cache aware routing", approximate (hash chains of blocks, an LRU index for each server); NVIDIA
Dynamo, "Routing concepts" (prefill that is still to be done plus decoding load, the least wins); SGLang's router,
policy `cache_aware`, which instead changes over to the shortest queue where loads are uneven.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["MOST_BLOCKS", "NO_PREFIX", "UNDER_WAY_CHARS", "Held", "Prefix", "Work", "least_work"]

MOST_BLOCKS = 16_384
"""What is remembered of one replica: 8 million characters or 2 million tokens, at 120 bytes of memory each."""

UNDER_WAY_CHARS = 1_024
"""What a request under way weighs: two blocks, 256 tokens. The small model of bench/affinity.py reads so much in the
time in which it writes 50 to 100 tokens. A judgement, not tuned: engines that batch write more meanwhile."""


class Prefix(NamedTuple):
    """A prompt as the chain of its prefixes. `keys`: one for each, `ends`: their lengths in characters, ascending."""

    keys: Sequence[int] = ()
    ends: Sequence[int] = ()

    @property
    def chars(self) -> int:
        """The whole prompt's length."""
        return self.ends[-1] if self.ends else 0


NO_PREFIX = Prefix()


class Held:
    """What one replica's cache is reckoned to hold: at most `most_blocks` keys, the longest unused ones go first."""

    __slots__ = ("_keys", "_most")

    def __init__(self, most_blocks: int = MOST_BLOCKS) -> None:
        self._keys: OrderedDict[int, None] = OrderedDict()
        self._most = most_blocks

    def __len__(self) -> int:
        return len(self._keys)

    def chars(self, prefix: Prefix) -> int:
        """How long the prompt's longest prefix in it is. Cost: the logarithm of the prompt's length.

        A key is never there without those before it: `note` uses them later than it, so that it is forgotten first.
        """
        known: int = bisect_left(prefix.keys, True, key=lambda key: key not in self._keys)
        return prefix.ends[known - 1] if known else 0

    def note(self, prefix: Prefix) -> None:
        """The prompt is sent there. Cost: linear in its length."""
        keys = self._keys
        for key in reversed(prefix.keys[: self._most]):
            keys[key] = None
            keys.move_to_end(key)
        while len(keys) > self._most:
            keys.popitem(last=False)

    def forget(self) -> None:
        """The replica has failed; its cache may be gone."""
        self._keys.clear()


class Work(NamedTuple):
    """What a replica has to do, if it gets the request. `new_chars`: of this prompt to be evaluated; `waiting_chars`:
    of others; `in_flight`: requests under way; `held_blocks`: what is reckoned to be in its cache."""

    new_chars: int
    waiting_chars: int
    in_flight: int
    held_blocks: int

    @property
    def chars(self) -> int:
        """All of it, in characters of prompt."""
        return self.new_chars + self.waiting_chars + UNDER_WAY_CHARS * self.in_flight


def least_work(works: Sequence[Work], chance: float) -> int:
    """The one with the least to do; of equals the one that holds least, and of such one by chance. Raises: none."""
    count, start = len(works), int(chance * len(works))
    turned: list[int] = [(start + step) % count for step in range(count)]
    return min(turned, key=lambda at: (works[at].chars, works[at].held_blocks))
