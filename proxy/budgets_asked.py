"""Whom a request asks and on whose account: resolved once, so that every limit looks at the same model. Pure.

Rules of this file:
1. A name counts as what it leads to. Where the request's way ignores a name, so does this: only what the route stage
   (or the one that keeps requests for later) made of it is looked at, never the header.
2. Accounts and rates of models, and lengths of answers, go by the model that the client asks: that of the variant that
   it names, else its body's. What is reserved goes by who will be asked, whoever chose it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from farthing.policies.bucket import Rate, Take
from farthing.policies.budget import Who, short
from farthing.policies.reserve import bounds_of, count
from farthing.policies.variant import Variant
from farthing.proxy.exchange import Exchange
from farthing.proxy.jsontext import members

__all__ = ["asked_of", "largest_said", "model_asked", "takes_of", "who_asks", "with_params"]


def who_asks(ex: Exchange) -> Who:
    """Whom the request is charged to: told by its credential, but for the tags, which the client may set."""
    caller, model = ex.caller, model_asked(ex)
    if caller is None:
        return Who(ex.credential, ex.tenant, model, ex.controls.tags)
    # A key of the configuration is one tenant, whatever else is shown beside it: that would make it another credential.
    tenant = caller.tenant_name or (caller.key_name if caller.key is None else "") or ex.tenant
    return Who(caller.key_name or ex.credential, tenant, model, ex.controls.tags)


def model_asked(ex: Exchange) -> str:
    """The model that the client asks for, by whatever name; '': none that can be read. Known once its way is found."""
    named: Variant | None = ex.variant if ex.plan is None else ex.plan.named
    return ex.model if named is None else named.model


def asked_of(ex: Exchange) -> Variant | None:
    """Who will be asked, as far as that is known before it is; None: the model in the body."""
    variant: Variant | None = ex.variant
    if variant is None and ex.plan is not None:
        variant = ex.plan.named
    return variant


def largest_said(ex: Exchange) -> Mapping[str, Any] | None:
    """The request as it was read; of what it says twice of how much may be answered the largest, for it depends on the
    reader which of them counts."""
    payload: Mapping[str, Any] | None = ex.payload
    if payload is None or ex.exact is not None or ex.body is None:
        return payload
    try:
        names = bounds_of(ex.endpoint)
        said = [(one.key, orjson.loads(ex.body[one.start : one.end])) for one in members(ex.body) if one.key in names]
    except ValueError:
        return payload
    return dict(payload) | {name: max((of for key, of in said if key == name), key=count) for name, _ in said}


def with_params(variant: Variant, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The request as that variant is asked it."""
    return {name: orjson.loads(value) for name, value in variant.params} | dict(payload)


def takes_of(rates: Sequence[Rate], who: Who, tokens: int) -> tuple[Take, ...]:
    """What the request takes out of which buckets."""
    return tuple(
        Take(f"{rate.name}.{rate.unit}|{short(subject)}", 1 if rate.unit == "requests" else tokens, rate, subject)
        for rate in rates
        for subject in rate.subject.named(who)
    )
