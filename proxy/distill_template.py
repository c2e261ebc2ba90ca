"""What requests of one kind have in common: everything but the last user message's text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from multidict import CIMultiDict

from farthing.cache.key import Scope, neighbourhood
from farthing.proxy.exchange import Controls, Endpoint

__all__ = ["Divided", "divided"]


class Divided(NamedTuple):
    """`template`: 32 hex digits over the endpoint and the body without `text`, the last user message's."""

    template: str
    text: str


def divided(endpoint: Endpoint, body: Mapping[str, Any]) -> Divided | str:
    """The request in two; or, where it has no such form, why.

    System prompt, earlier turns, model, parameters, tools and schema are the template's; who asks, and whether the
    answer is streamed, are not.
    """
    place = neighbourhood(Scope("", endpoint, "", "", CIMultiDict(), Controls()), dict(body))
    return place if isinstance(place, str) else Divided(place.scope, place.text)
