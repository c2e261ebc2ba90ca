"""Variants, routes and aliases in the configuration, and what is refused of them at load.

Rules of this file: a fault names the key's path; a route that could never get a request is a fault, since whoever wrote
it meant something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

import orjson
from pydantic import Field, model_validator

from farthing.policies.accept import Accept
from farthing.policies.fallback import DEFAULT_CLASSES, FailureClass
from farthing.policies.nearest import did_you_mean
from farthing.policies.overlap import overlapping
from farthing.policies.routes import Conditions, Route, Strategy, never_matched
from farthing.policies.variant import DEFAULT_UPSTREAM, STUDENT, Kind, Needs, Variant, unfit
from farthing.proxy.config_section import Section
from farthing.proxy.exchange import Endpoint
from farthing.proxy.styles import STYLES, StyleName

__all__ = [
    "STUDENT_NAME",
    "AcceptSection",
    "Misplaced",
    "RouteSection",
    "VariantSection",
    "check",
    "is_digest",
    "routes_of",
    "shared_unsaid",
    "target_of",
    "variants_of",
]

STUDENT_NAME = "^$|^[a-z0-9][a-z0-9._-]{0,63}$"
_STUDENT = "^$|^[a-z0-9][a-z0-9._-]{0,63}(@[0-9a-f]{16})?$"
_OURS = frozenset({"model", "messages", "input", "prompt", "stream", "stream_options", "tools", "n"})


class Misplaced(ValueError):
    """Faults of several keys. `faults`: (path, message) each."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {message}" for path, message in faults))
        self.faults = tuple(faults)


class VariantSection(Section):
    """One way to do a job. `params`: put into requests that don't set them; `quality`: measured, 0 to 1."""

    name: str = Field(min_length=1, max_length=256)
    upstream: str = DEFAULT_UPSTREAM
    model: str = ""
    student: str = Field("", pattern=_STUDENT, description="of `farthing distill train`; NAME@HASH: that very one")
    params: dict[str, Any] = Field(default_factory=dict)
    kind: Kind = "full"
    context_tokens: int = Field(0, ge=0, description="0: unknown, taken to be enough")
    tools: bool = True
    images: bool = True
    json_mode: bool = True
    logprobs: bool = True
    audio: bool = Field(True, description="is heard, and answered")
    files: bool = Field(True, description="documents, as PDFs, in a request")
    hosted_tools: bool = Field(True, description="the provider's own, as its search of the web")
    quality: float | None = Field(None, ge=0, le=1)
    quality_source: str = Field("", description="where the quality was measured")

    @property
    def student_name(self) -> str:
        """Its student's name, whichever of that name it is."""
        return self.student.partition("@")[0]

    @model_validator(mode="after")
    def _params_fit(self) -> VariantSection:
        if bool(self.model) == bool(self.student):
            raise ValueError("a variant is a model, or a student")
        if self.student and (self.params or self.upstream != DEFAULT_UPSTREAM):
            raise ValueError("a student has no upstream and no params: it answers in this process")
        for name, value in self.params.items():
            if name in _OURS:
                raise ValueError(f"params.{name} is the request's own")
            if not _is_json(value):
                raise ValueError(f"params.{name} is no value of JSON's")
        if self.quality is not None and not self.quality_source:
            raise ValueError("a quality needs quality_source: where it was measured")
        return self


class AcceptSection(Section):
    """What a cascade's cheaper answer must pass; see policies.accept.Accept."""

    json_valid: bool = Field(
        True, alias="json", description="valid JSON, by the request's schema, where JSON is asked for"
    )
    complete: bool = True
    refusals: bool = False
    min_chars: int = Field(1, ge=0)
    min_confidence: float | None = Field(None, gt=0, le=1)
    agree: int = Field(1, ge=1, le=9)
    judge: str = ""
    judge_max_tokens: int = Field(1, ge=0, le=100_000, description="of its reply; 0: not sent, nor a temperature")
    streams: Literal["pass", "hold"] = "pass"


class RouteSection(Section):
    """Which requests go to which variants. What a condition leaves out matches everything."""

    name: str = Field(min_length=1, max_length=256)
    mode: Literal["off", "observe", "prove", "serve"] = Field(
        "observe", description="prove: observes until its shadows prove max_worse, then serves"
    )
    model: str = ""
    tag: str = Field("", pattern="^$|^[^=]+=", description="NAME=VALUE")
    tenant: str = Field("", description="a scope, a tenant of virtual keys, or how the ledger's tenant begins")
    endpoint: Endpoint | Literal[""] = ""
    min_tokens_in: int = Field(0, ge=0)
    max_tokens_in: int = Field(0, ge=0, description="0: no limit")
    tools: bool | None = None
    images: bool | None = None
    strategy: Strategy = "fixed"
    after: tuple[str, ...] = Field(
        (), description="earlier routes that take the requests which this one shares with them"
    )
    variants: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = ()
    min_quality: float = Field(0.0, ge=0, le=1)
    usd_per_s: Decimal = Field(Decimal(0), ge=0, description="what a second is worth, for balanced")
    fallbacks: tuple[str, ...] = ()
    on: tuple[FailureClass, ...] = DEFAULT_CLASSES
    accept: AcceptSection = AcceptSection.model_construct()
    hedge_after_ms: float = Field(0.0, ge=0, description="0: never")
    hedge_share: float = Field(0.05, gt=0, le=0.5, description="of the route's requests, at most")
    max_worse: float | None = Field(
        None, gt=0, lt=1, description="of its answers, not the asked-for model's; beyond it observes. None: no bound"
    )

    @model_validator(mode="after")
    def _fits(self) -> RouteSection:
        if self.max_tokens_in and self.min_tokens_in > self.max_tokens_in:
            raise ValueError("min_tokens_in is more than max_tokens_in")
        if self.weights and (self.strategy != "weighted" or len(self.weights) != len(self.variants)):
            raise ValueError('weights are for strategy = "weighted", one for each variant')
        if self.strategy == "weighted" and not self.weights:
            raise ValueError('strategy = "weighted" needs weights')
        if any(not 0 <= weight < float("inf") for weight in self.weights) or (self.weights and not sum(self.weights)):
            raise ValueError("weights must be 0 or more, and not all 0")
        if self.strategy == "cascade" and len(self.variants) < 2:
            raise ValueError('strategy = "cascade" needs two variants or more, the cheapest first')
        if self.strategy == "cascade" and self.hedge_after_ms:
            raise ValueError("a cascade can't be hedged: it waits for whole answers anyway")
        if self.strategy == "fixed" and len(self.variants) > 1:
            raise ValueError('strategy = "fixed" has one variant; others are fallbacks')
        if self.strategy != "balanced" and self.usd_per_s:
            raise ValueError('usd_per_s is for strategy = "balanced"')
        if self.mode == "prove" and self.max_worse is None:
            raise ValueError('mode = "prove" needs max_worse: that is what is to be proved')
        if self.strategy != "cascade" and "accept" in self.model_fields_set:
            raise ValueError('accept is for strategy = "cascade"')
        return self

    def conditions(self) -> Conditions:
        """What it asks of a request, tenants by their configured words."""
        return Conditions(
            self.model, self.tag, self.tenant, self.endpoint, self.min_tokens_in, self.max_tokens_in, self.tools,
            self.images,
        )  # fmt: skip


def check(
    default: str,
    upstreams: Sequence[str],
    variants: Sequence[VariantSection],
    routes: Sequence[RouteSection],
    aliases: Mapping[str, str],
    scopes: Iterable[str],
    *,
    any_tenant: bool = False,
    styles: Mapping[str, StyleName] = MappingProxyType({}),
) -> None:
    """Raises Misplaced: unknown names, names that come twice, cycles, routes that never get a request.

    `default`: the name of `[upstream]`. `upstreams`: the names of `[[upstreams]]`. `scopes`: those of `auth.scopes`.
    `any_tenant`: virtual keys are asked for, whose tenants the configuration doesn't know. `styles`: of upstreams, by
    their names.
    """
    names = {variant.name for variant in variants}
    faults = [
        *_twice("upstreams", [DEFAULT_UPSTREAM, default, *upstreams], skip=2),
        *_twice("variants", [variant.name for variant in variants]),
        *_twice("routes", [route.name for route in routes]),
        *_unknown_upstreams(variants, {DEFAULT_UPSTREAM, default, *upstreams}),
        *_aliases(aliases, names),
    ]
    for place, name in enumerate(upstreams):
        if not name or {"/", "#"} & set(name):
            faults.append((f"upstreams.{place}.name", "must not be empty, nor hold / or #"))
    known = set(scopes)
    for place, route in enumerate(routes):
        faults += _unknown_variants(f"routes.{place}", route, names)
        faults += _students(f"routes.{place}", route, {one.name for one in variants if one.student})
        if route.tenant and route.tenant not in known and not any_tenant and not is_digest(route.tenant):
            message = (
                f"{route.tenant!r} is neither a scope of auth.scopes nor 8 hex digits or more of a ledger's tenant"
            )
            faults.append((f"routes.{place}.tenant", message + did_you_mean(route.tenant, sorted(known))))
        faults += _circles(f"routes.{place}", route)
        faults += _not_above(f"routes.{place}", route, [one.name for one in routes[:place]])
        if route.mode != "off" and route.model in names:
            message = f"never gets a request: one for {route.model!r} asks for the variant of that name; rename it"
            faults.append((f"routes.{place}.model", message))
        if route.mode != "off" and route.model in aliases:
            message = f"never gets a request: {route.model!r} is an alias; name what it stands for"
            faults.append((f"routes.{place}.model", message))
        faults += _never_accepted(f"routes.{place}", route, {one.name: one for one in variants}, styles)
        faults += _never_fits(f"routes.{place}", route, {one.name: one for one in variants})
        faults += _never_good_enough(f"routes.{place}", route, {one.name: one.quality for one in variants})
    alive = [(place, route) for place, route in enumerate(routes) if route.mode != "off"]
    for later, earlier in never_matched([route.conditions() for _, route in alive]):
        place, route = alive[later]
        above = " and ".join(repr(alive[one][1].name) for one in earlier)
        takes = "takes" if len(earlier) == 1 else "together take"
        message = (
            f"{route.name!r} never gets a request: {above}, above it, {takes} all that it would; put {route.name!r}"
            f" above, let {above} take less, or leave one of them out"
        )
        faults.append((f"routes.{place}", message))
    if faults:
        raise Misplaced(faults)


def shared_unsaid(routes: Sequence[RouteSection]) -> list[tuple[str, str]]:
    """(path, message) for each route that shares requests with earlier ones in part, and doesn't say so by `after`.

    Asked where somebody writes routes; what is stored and was allowed then goes on.
    """
    alive = [(place, route) for place, route in enumerate(routes) if route.mode != "off"]
    faults = []
    for later, earlier in overlapping([route.conditions() for _, route in alive]):
        place, route = alive[later]
        unsaid = [alive[one] for one in earlier if alive[one][1].name not in route.after]
        if unsaid:
            above = " and ".join(f"routes.{at} ({one.name!r})" for at, one in unsaid)
            names = ", ".join(repr(one.name) for _, one in unsaid)
            message = (
                f"{route.name!r} overlaps with {above}, above it: neither is narrower, so it isn't clear whose the"
                " requests of both are. Let them exclude each other, put the narrower one first, or say in"
                f" {route.name!r} that those above take them: after = [{names}]"
            )
            faults.append((f"routes.{place}", message))
    return faults


def variants_of(
    sections: Sequence[VariantSection],
    default: str = DEFAULT_UPSTREAM,
    identities: Mapping[str, str] = MappingProxyType({}),
    students: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Variant]:
    """The variants by name, as policies know them. `default`: the name of `[upstream]`. `identities`: of the others.

    `students`: the hashes of those that are there, by what sections call them.
    """
    return {
        one.name: Variant(
            name=one.name,
            model=one.model or f"{STUDENT}{one.student_name}",
            upstream=DEFAULT_UPSTREAM if one.upstream == default else one.upstream,
            params=tuple((name, orjson.dumps(value)) for name, value in one.params.items()),
            kind=one.kind,
            context_tokens=one.context_tokens,
            tools=one.tools,
            images=one.images,
            json_mode=one.json_mode,
            logprobs=one.logprobs,
            audio=one.audio,
            files=one.files,
            hosted_tools=one.hosted_tools,
            quality=one.quality,
            identity=students.get(one.student, "") if one.student else identities.get(one.upstream, ""),
            student=one.student_name,
        )
        for one in sections
    }


def routes_of(
    sections: Sequence[RouteSection], variants: Mapping[str, Variant], tenants: Mapping[str, str]
) -> tuple[Route, ...]:
    """The routes that are on. `tenants`: what the ledger calls the scopes of `auth.scopes`."""
    return tuple(_route(one, variants, tenants) for one in sections if one.mode != "off")


def _route(one: RouteSection, variants: Mapping[str, Variant], tenants: Mapping[str, str]) -> Route:
    used = [variants[name] for name in (*one.variants, *one.fallbacks)]
    conditions = one.model_copy(update={"tenant": tenants.get(one.tenant, one.tenant)}).conditions()
    what = [one.name, one.strategy, one.weights, one.min_quality, one.on, [variant.signature for variant in used]]
    checks = one.accept.model_dump(mode="json") if one.strategy == "cascade" else None
    if checks is not None and checks["judge_max_tokens"] == 1:
        del checks["judge_max_tokens"]  # it came later: what was stored and proved under a signature without it stays
    signature = hashlib.sha256(orjson.dumps([what, checks], default=str)).hexdigest()[:16]
    accept = one.accept
    return Route(
        name=one.name,
        conditions=conditions,
        strategy=one.strategy,
        variants=tuple(variants[name] for name in one.variants),
        serves=one.mode in ("prove", "serve"),
        weights=one.weights,
        min_quality=one.min_quality,
        usd_per_s=float(one.usd_per_s),
        fallbacks=tuple(variants[name] for name in one.fallbacks),
        on=frozenset(one.on),
        accept=Accept(
            accept.json_valid, accept.complete, accept.refusals, accept.min_chars, accept.min_confidence, accept.agree,
            accept.judge, accept.streams, accept.judge_max_tokens,
        ),
        hedge_after_s=one.hedge_after_ms / 1000,
        hedge_share=one.hedge_share,
        signature=signature,
        max_worse=one.max_worse,
        trusted=one.mode == "serve",
    )  # fmt: skip


def _not_above(path: str, route: RouteSection, above: Sequence[str]) -> list[tuple[str, str]]:
    return [
        (f"{path}.after", f"no route {name!r} is above it" + did_you_mean(name, sorted(above)))
        for name in route.after
        if name not in above
    ]


def target_of(aliases: Mapping[str, str], name: str) -> str:
    """What a name finally stands for; itself, where it is no alias. The aliases have no cycle."""
    while name in aliases:
        name = aliases[name]
    return name


def _twice(key: str, names: Sequence[str], skip: int = 0) -> Iterator[tuple[str, str]]:
    seen = set(names[:skip])
    for place, name in enumerate(names[skip:]):
        if name in seen:
            yield f"{key}.{place}.name", f"{name!r} is there already"
        seen.add(name)


def _unknown_upstreams(variants: Sequence[VariantSection], known: set[str]) -> Iterator[tuple[str, str]]:
    for place, variant in enumerate(variants):
        if variant.upstream not in known:
            message = f"there is no upstream {variant.upstream!r}"
            yield f"variants.{place}.upstream", message + did_you_mean(variant.upstream, sorted(known))


def _unknown_variants(path: str, route: RouteSection, known: set[str]) -> Iterator[tuple[str, str]]:
    named = [(f"{path}.variants.{place}", name) for place, name in enumerate(route.variants)]
    named += [(f"{path}.fallbacks.{place}", name) for place, name in enumerate(route.fallbacks)]
    named += [(f"{path}.accept.judge", route.accept.judge)] if route.accept.judge else []
    for where, name in named:
        if name not in known:
            yield where, f"there is no variant {name!r}" + did_you_mean(name, sorted(known))


def _students(path: str, route: RouteSection, students: set[str]) -> Iterator[tuple[str, str]]:
    """A student leaves to others what it isn't sure of: there has to be another, and it has to come first."""
    for place, name in enumerate(route.variants):
        if name in students and (route.strategy != "cascade" or place == len(route.variants) - 1):
            message = f'{name!r} is a student: it stands in a cascade (strategy = "cascade"), before its teacher'
            yield f"{path}.variants.{place}", message
    for place, name in enumerate(route.fallbacks):
        if name in students:
            yield f"{path}.fallbacks.{place}", f"{name!r} is a student, and no fallback: it abstains"
    if route.accept.judge in students:
        yield f"{path}.accept.judge", f"{route.accept.judge!r} is a student, and no judge"


def _circles(path: str, route: RouteSection) -> Iterator[tuple[str, str]]:
    """A variant that is asked again after it has failed: a fallback that leads back to where it came from."""
    for place, name in enumerate(route.variants):
        if name in route.variants[:place]:
            yield f"{path}.variants.{place}", f"{name!r} is there already"
    for place, name in enumerate(route.fallbacks):
        if name in route.fallbacks[:place] or (name in route.variants and route.strategy in ("fixed", "cascade")):
            yield f"{path}.fallbacks.{place}", f"a cycle: {name!r} has been asked by then"


def _aliases(aliases: Mapping[str, str], variants: set[str]) -> Iterator[tuple[str, str]]:
    told: set[str] = set()  # in a cycle that was told at another of its names
    for name, target in aliases.items():
        path = f'aliases."{name}"'
        if not name or not target:
            yield path, "an alias and what it stands for must not be empty"
        if name in variants:
            yield path, f"{name!r} is a variant already"
        chain = [name]
        while target in aliases and target not in chain:
            chain.append(target)
            target = aliases[target]
        if target == name and name not in told:
            told.update(chain)
            yield path, f"a cycle: {' -> '.join([*chain, target])}; let one of them stand for a model or a variant"


def _never_good_enough(
    path: str, route: RouteSection, qualities: Mapping[str, float | None]
) -> Iterator[tuple[str, str]]:
    """A route that asks for a quality that none of its variants was measured to have: it would route nothing."""
    known = [quality for name in route.variants if (quality := qualities.get(name)) is not None]
    if route.min_quality and max(known, default=-1.0) < route.min_quality and set(route.variants) <= qualities.keys():
        best = f"the best has {max(known):g}" if known else "none of them has a quality"
        yield f"{path}.min_quality", f"no variant of the route is measured to be so good: {best}"


def _never_accepted(
    path: str, route: RouteSection, known: Mapping[str, VariantSection], styles: Mapping[str, StyleName]
) -> Iterator[tuple[str, str]]:
    """A cascade's check that no answer of a variant can pass, or that asks the one who answered."""
    tried = [known[name] for name in route.variants[:-1] if name in known and not known[name].student]
    if route.accept.min_confidence is not None and route.endpoint is Endpoint.MESSAGES and tried:
        message = 'answers of endpoint = "messages" have no log-probabilities: none would pass. Leave it out, or'
        yield f"{path}.accept.min_confidence", f"{message} ask for other checks"
    for variant in tried:
        if route.accept.min_confidence is not None and not variant.logprobs:
            message = f"{variant.name!r} has no log-probabilities (logprobs = false): none of its answers would pass"
            yield f"{path}.accept.min_confidence", message
        elif route.accept.min_confidence is not None and STYLES[styles.get(variant.upstream, "any")].messages:
            message = (
                f"{variant.name!r} is at an upstream of style = {styles[variant.upstream]!r}, whose answers never have"
                " log-probabilities: none would pass. Leave min_confidence out, or ask a judge (accept.judge)"
            )
            yield f"{path}.accept.min_confidence", message
        if route.accept.judge == variant.name:
            yield f"{path}.accept.judge", f"{variant.name!r} would judge its own answers"


def _never_fits(path: str, route: RouteSection, known: Mapping[str, VariantSection]) -> Iterator[tuple[str, str]]:
    """A route whose conditions ask for what none of its variants can do: it would route nothing."""
    if not all(name in known for name in route.variants):
        return
    needs = Needs(route.min_tokens_in, tools=bool(route.tools), images=bool(route.images))
    reasons = {name: unfit(variant, needs) for name, variant in variants_of([known[n] for n in route.variants]).items()}
    if all(reasons.values()):
        told = "; ".join(f"{name!r}: {reason}" for name, reason in reasons.items())
        yield f"{path}.variants", f"none of them can serve what the route asks for: {told}"


def _is_json(value: Any) -> bool:
    """Whether it can stand in a request as it is: no date, no NaN."""
    try:
        return bool(orjson.loads(orjson.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def is_digest(text: str) -> bool:
    """Whether it looks like the beginning of a ledger's tenant."""
    return 8 <= len(text) <= 32 and all(digit in "0123456789abcdef" for digit in text)
