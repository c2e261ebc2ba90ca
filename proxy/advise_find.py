"""What an app's requests have in common, and what it costs: instructions said again and again, templates. Pure.

A system text that recurs exactly is one part. Where several different texts share a long beginning or end
(cache/template.py), that is a part: instructions with a date in them, a template round a user's question. Parts of one
request never overlap, so that their tokens may be added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from farthing.cache.template import Templates
from farthing.proxy.advise_requests import Asked, Path, in_body, replaced
from farthing.proxy.prices import Rates
from farthing.proxy.usage import Usage

__all__ = ["Costs", "Part", "Place", "costs_of", "find_parts", "with_draft"]

_LEAST_TEXTS = 4
_MOST_COUNTS = 1_000_000
# Of a recurring text that its shared beginning and end must cover, to be seen as a variant of one template.
_MOSTLY = 0.8


class Place(NamedTuple):
    """Where a part stands: the request's index, the text's path in its body, and characters in that text."""

    request: int
    path: Path
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Part:
    """A text that requests share. `kind`: for a person. Whole texts are parts without varying neighbours."""

    kind: str
    text: str
    places: tuple[Place, ...]

    @property
    def requests(self) -> tuple[int, ...]:
        """The indices of the requests that carry it, each once."""
        return tuple(dict.fromkeys(place.request for place in self.places))


class Costs(NamedTuple):
    """`tokens`: of the text once. `share`: of all input tokens of the file. Money: US dollars for 1,000 requests that
    carry it, when all is fresh and when all is read from the provider's cache; None where no price is known."""

    tokens: int
    requests: int
    share: float
    usd_fresh: float | None
    usd_cached: float | None


def find_parts(requests: Sequence[Asked], tell: Callable[[int], None] = lambda done: None) -> list[Part]:
    """The parts in the order in which they first appear. `tell`: is told how many requests were looked at."""
    texts = Counter(spot.text for asked in requests for spot in asked.spots if spot.spoken == "system")
    templates = Templates(_MOST_COUNTS, _LEAST_TEXTS)
    for asked in requests:
        for spot in asked.spots:
            templates.divide(spot.spoken, spot.text)
    groups: dict[tuple[str, str], list[Place]] = {}
    for index, asked in enumerate(requests):
        for spot in asked.spots:
            text = spot.text
            parts = templates.divide(spot.spoken, text, learn=False)
            shared = len(text) - len(parts.varying)
            if spot.spoken == "system" and texts[text] > 1 and shared < _MOSTLY * len(text):
                groups.setdefault(("system prompt", text), []).append(Place(index, spot.path, 0, len(text)))
                continue
            name = "system prompt" if spot.spoken == "system" else "user message"
            if parts.prefix:
                place = Place(index, spot.path, 0, len(parts.prefix))
                groups.setdefault((f"beginning of {name}s", parts.prefix), []).append(place)
            if parts.suffix:
                place = Place(index, spot.path, len(text) - len(parts.suffix), len(text))
                groups.setdefault((f"end of {name}s", parts.suffix), []).append(place)
        tell(index + 1)
    _gather(groups)
    return [Part(kind, text, tuple(places)) for (kind, text), places in groups.items()]


def costs_of(part: Part, tokens: int, all_tokens: int, rates: Rates | None) -> Costs:
    """What a part costs, of which each copy has `tokens`, in a file of `all_tokens` input tokens."""
    carried = len(part.requests)
    per_request = tokens * len(part.places) / carried
    thousand = round(per_request * 1000)
    return Costs(
        tokens,
        carried,
        tokens * len(part.places) / all_tokens if all_tokens else 0.0,
        None if rates is None else rates.pico(Usage(fresh=thousand)) / 1e12,
        None if rates is None else rates.pico(Usage(cached=thousand)) / 1e12,
    )


def with_draft(asked: Asked, places: Sequence[Place], draft: str) -> dict[str, object]:
    """A copy of the request's body with the draft in these places, which are its own."""
    body = dict(asked.body)
    for place in sorted(places, key=lambda place: -place.start):
        text = in_body(body, place.path)
        body = replaced(body, place.path, text[: place.start] + draft + text[place.end :])
    return body


def _gather(groups: dict[tuple[str, str], list[Place]]) -> None:
    """Puts beginnings and ends that few texts reach to the longest one that they contain: templates branch."""
    for (kind, text), places in sorted(groups.items(), key=lambda group: -len(group[0][1])):
        if kind == "system prompt" or len(places) >= _LEAST_TEXTS:
            continue
        begins = kind.startswith("beginning")
        inside = [
            other
            for sort, other in groups
            if sort == kind and len(other) < len(text) and (text.startswith(other) if begins else text.endswith(other))
        ]
        del groups[kind, text]
        if inside:
            longest = max(inside, key=len)
            groups[kind, longest] += [
                place._replace(end=place.start + len(longest))
                if begins
                else place._replace(start=place.end - len(longest))
                for place in places
            ]
