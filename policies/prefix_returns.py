"""How soon and how often a prompt's prefix comes again, and whether the provider then had it. No clock, no IO.

A *return* of a prefix is the next request that begins with it. What is asked of it is the chance that this happens
within each of some windows. Of a prefix that has been seen, its own returns tell; of a new one, those of its kinds,
from a general one (a conversation's end at some depth) to a special one (the same, behind one system prompt). All are
counts; what is believed of the more general weighs as much as four of them, and the most general begins with a cautious
guess.

Rules of this file:
1. An arrival of a prefix tells about the one before it. A kind is counted when the window has passed, whether or not
   there was a return: who counted returns when they come, and their absence later, would find too many.
2. Memory is bounded: what was longest not used goes first. No text is kept, only hashes.
3. What was counted long ago weighs less: from 64 on, half of it is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

__all__ = ["FIRST_GUESS", "Kinds", "Returns", "Seen"]

Kinds = tuple[Hashable, ...]
"""What a prefix is one of, the most general first."""

FIRST_GUESS = 0.2
"""The chance that is believed of what nothing is known of: just too little for a write at 1.25 times the price."""
_WEIGHT = 4.0
_MOST_COUNTED = 64
_MOST_KINDS = 4_096
_KEPT_WEIGHT = 2.0


@dataclass(slots=True)
class Seen:
    """A prefix, or a kind. `hits`: returns within each window, of `trials`. `last_s`: when it came last. `warm_s`:
    until when the provider should have it, `warm_tokens`: how long it is by the provider's count (0: never told).
    `promised`, `kept`: how often it should have been read, and was."""

    hits: list[int]
    trials: int = 0
    last_s: float | None = None
    warm_s: float = 0.0
    warm_tokens: int = 0
    promised: float = 0.0
    kept: float = 0.0
    waiting: list[_Arrival] = field(default_factory=list)

    def count(self, gap_s: float, windows_s: Sequence[float]) -> None:
        """One arrival more, and after how long the next one came."""
        if self.trials >= _MOST_COUNTED:
            self.trials //= 2
            self.hits = [hit // 2 for hit in self.hits]
        self.trials += 1
        for number, window_s in enumerate(windows_s):
            self.hits[number] += gap_s <= window_s


@dataclass(slots=True)
class _Arrival:
    """One that its kind will be told of. `gap_s`: until the next; infinite while there is none."""

    kinds: Kinds
    at_s: float
    gap_s: float = float("inf")


class Returns:
    """What is known of prefixes. `windows_s`: ascending. `most`: prefixes that are held, about 400 bytes each."""

    def __init__(self, windows_s: Sequence[float], most: int = 32_768) -> None:
        self.windows_s = tuple(windows_s)
        self._most = most
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self._kinds: OrderedDict[Hashable, list[Seen]] = OrderedDict()
        self._due: list[deque[_Arrival]] = [deque() for _ in self.windows_s]

    def __len__(self) -> int:
        return len(self._seen)

    def get(self, key: int) -> Seen | None:
        """What is known of a prefix."""
        return self._seen.get(key)

    def arrive(self, keys: Sequence[int], kinds: Sequence[Kinds], at_s: float) -> None:
        """A request with these prefixes comes. `kinds`: of each; none: nothing is to be learnt of this one.

        Cost: about a microsecond a prefix.
        """
        self._pass(at_s)
        for key, those in zip(keys, kinds, strict=True):
            seen = self._seen.get(key)
            if seen is None:
                seen = self._seen[key] = Seen([0] * len(self.windows_s))
                if len(self._seen) > self._most:
                    self._seen.popitem(last=False)
            else:
                self._seen.move_to_end(key)
            if seen.last_s is not None:
                gap_s = max(0.0, at_s - seen.last_s)
                seen.count(gap_s, self.windows_s)
                for arrival in seen.waiting:
                    arrival.gap_s = gap_s
            seen.waiting = []
            seen.last_s = at_s
            if those:
                arrival = _Arrival(those, at_s)
                seen.waiting = [arrival]
                for due in self._due:
                    due.append(arrival)
                    if len(due) > self._most:
                        due.popleft()  # too many at once: this one tells its kind nothing

    def chances(self, key: int, kinds: Kinds) -> tuple[float, ...]:
        """That the prefix returns within each window, and the provider still has it then."""
        known = [groups for kind in kinds if (groups := self._kinds.get(kind)) is not None]
        seen = self._seen.get(key)
        found = []
        for number in range(len(self.windows_s)):
            chance = FIRST_GUESS
            for groups in known:
                group = groups[number]
                chance = (group.hits[number] + _WEIGHT * chance) / (group.trials + _WEIGHT)
            if seen is not None and seen.trials:
                chance = (seen.hits[number] + _WEIGHT * chance) / (seen.trials + _WEIGHT)
            found.append(chance * (1.0 if seen is None else share_kept(seen)))
        return tuple(found)

    def trials(self, kinds: Kinds, window: int) -> int:
        """How many arrivals of the best known of these kinds the chance within that window stands on."""
        return max((groups[window].trials for kind in kinds if (groups := self._kinds.get(kind))), default=0)

    def warm(self, key: int, until_s: float, tokens: int = 0) -> None:
        """The provider has it now."""
        seen = self._seen.get(key)
        if seen is not None:
            seen.warm_s = max(seen.warm_s, until_s)
            seen.warm_tokens = tokens or seen.warm_tokens

    def read(self, key: int, *, well: bool) -> None:
        """It should have been read from the provider's cache, and was, or wasn't: then it isn't there any more."""
        seen = self._seen.get(key)
        if seen is None:
            return
        if seen.promised >= _MOST_COUNTED:
            seen.promised, seen.kept = seen.promised / 2, seen.kept / 2
        seen.promised += 1
        if well:
            seen.kept += 1
        else:
            seen.warm_s = 0.0

    def _pass(self, now_s: float) -> None:
        """Tell kinds of the arrivals whose window has passed."""
        for number, (due, window_s) in enumerate(zip(self._due, self.windows_s, strict=True)):
            while due and due[0].at_s + window_s < now_s:
                arrival = due.popleft()
                for kind in arrival.kinds:
                    groups = self._kinds.get(kind)
                    if groups is None:
                        groups = self._kinds[kind] = [Seen([0] * len(self.windows_s)) for _ in self.windows_s]
                        if len(self._kinds) > _MOST_KINDS:
                            self._kinds.popitem(last=False)
                    else:
                        self._kinds.move_to_end(kind)
                    groups[number].count(arrival.gap_s, self.windows_s)


def share_kept(seen: Seen) -> float:
    """How often the provider had what it should have; everything, before anything is known."""
    return (seen.kept + _KEPT_WEIGHT) / (seen.promised + _KEPT_WEIGHT)
