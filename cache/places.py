"""Where a request stands once its route's common parts are known; and the entries that were put down before they were.

Rules of this file:
1. What is common goes into the wall whole, and only what varies is matched (cache/template.py).
2. Nothing is forgiven for being common: what must never be matched is refused wherever in the text it stands.
3. The first texts with a common part can't know that they have one. Their entries wait, and are put behind the wall
   when enough others have shown what they share.
4. All but `refusal` lives on the event loop; what waits and what is remembered is bounded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from farthing.cache.key import Place
from farthing.cache.template import LEAST_CHARS, Parts, Templates, wall_of
from farthing.cache.unmatchable import unmatchable, unmatchable_around

__all__ = ["Placed", "Places", "Settled"]

_WAITING = 256
_WAITING_CHARS = 2**21
_MOST_MOVED = 8
_JUDGED = 1_024


@dataclass(frozen=True, slots=True)
class Settled:
    """A request's place, and the whole place and the parts that it was made of."""

    place: Place
    origin: Place
    parts: Parts


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry at its place. `worth_usd`: what a hit on it saves, None where unknown."""

    settled: Settled
    entry_key: str
    expires_s: float
    worth_usd: float | None = None


class Places:
    """See the module. `templates`: None where texts are always matched whole."""

    def __init__(self, templates: Templates | None) -> None:
        self._templates = templates
        self._waiting: OrderedDict[str, Placed] = OrderedDict()
        self._waiting_chars = 0
        self._judged: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def settle(self, place: Place, *, learn: bool = True) -> Settled:
        """Where this request is looked for. `place`: with the whole text. `learn`: False leaves no trace."""
        if self._templates is None:
            return Settled(place, place, Parts("", place.text, ""))
        parts = self._templates.divide(place.route, place.text, learn=learn)
        return Settled(place, place, parts) if parts.whole else _divided(place, parts)

    def refusal(self, settled: Settled) -> str:
        """Why the request must not be matched, '' where it may: a millisecond for each 1,000 characters. Any thread."""
        parts = settled.parts
        return unmatchable(parts.varying) or ("" if parts.whole else self._around(settled.place.scope, parts))

    def wait(self, placed: Placed) -> None:
        """An entry was put down. Where much of its text varies, more of it may turn out to be common."""
        self._drop(placed.entry_key)
        if self._templates is None or len(placed.settled.parts.varying) <= LEAST_CHARS:
            return
        self._waiting[placed.entry_key] = placed
        self._waiting_chars += len(placed.settled.origin.text)
        while len(self._waiting) > _WAITING or self._waiting_chars > _WAITING_CHARS:
            self._drop(next(iter(self._waiting)))

    def forget(self, entry_keys: Iterable[str]) -> None:
        """These answers are gone."""
        for key in entry_keys:
            self._drop(key)

    def _drop(self, entry_key: str) -> None:
        gone = self._waiting.pop(entry_key, None)
        if gone is not None:
            self._waiting_chars -= len(gone.settled.origin.text)

    def called(self, settled: Settled) -> Sequence[Placed]:
        """What waits in this request's scope and shares its prefix and suffix, at its new place behind that wall."""
        if settled.parts.whole:
            return ()
        found = list(islice((one for one in self._waiting.values() if _belongs(one.settled, settled)), _MOST_MOVED))
        moved = [replace(one, settled=_divided(one.settled.origin, settled.parts)) for one in found]
        for one in moved:
            self.wait(one)
        return moved

    def _around(self, wall: str, parts: Parts) -> str:
        """Why what stands around the varying part forbids matching; read once for each wall while it is remembered."""
        with self._lock:
            found = self._judged.pop(wall, None)
        if found is None:
            found = unmatchable_around(parts.prefix) or unmatchable_around(parts.suffix)
        with self._lock:
            self._judged[wall] = found
            if len(self._judged) > _JUDGED:
                self._judged.popitem(last=False)
        return found


def _belongs(one: Settled, wall: Settled) -> bool:
    """Whether an entry shares all that is common behind `wall`, and more than its own place takes for common."""
    text, mine, theirs = one.origin.text, one.parts, wall.parts
    return (
        one.origin.scope == wall.origin.scope
        and len(mine.prefix) <= len(theirs.prefix)
        and len(mine.suffix) <= len(theirs.suffix)
        and len(mine.varying) > len(text) - len(theirs.prefix) - len(theirs.suffix) > 0
        and text.startswith(theirs.prefix)
        and text.endswith(theirs.suffix)
    )


def _divided(origin: Place, by: Parts) -> Settled:
    """A whole place divided by this prefix and suffix; they are the text's own.

    Its route gathers evidence of its own: scores of parts are other scores than those of whole texts.
    """
    varying = origin.text[len(by.prefix) : len(origin.text) - len(by.suffix)]
    parts = Parts(by.prefix, varying, by.suffix)
    route = f"{origin.route} parts"
    place = replace(origin, scope=wall_of(origin.scope, parts), route=route, text=varying, divided=True)
    return Settled(place, origin, parts)
