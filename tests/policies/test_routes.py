"""Which route a request takes, and whom it asks."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.cascade import ASKED, Allowance, after_failure, course
from farthing.policies.choose import Choice, Standing, choose, conversation, stickiness
from farthing.policies.fallback import CLASSES, of_answer, of_fault
from farthing.policies.routes import Conditions, Facts, Route, RouteTable, facts_of, never_matched
from farthing.policies.variant import Needs, Variant, put_in, unfit
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.exchange import Endpoint

NAMES = ("a", "b", "c", "d")
VARIANTS = st.builds(
    Variant,
    name=st.sampled_from(NAMES),
    model=st.sampled_from(["m", "n"]),
    upstream=st.sampled_from(["default", "other"]),
    context_tokens=st.sampled_from([0, 100, 10_000]),
    tools=st.booleans(),
    images=st.booleans(),
    json_mode=st.booleans(),
    quality=st.none() | st.floats(0, 1),
)
NEEDS = st.builds(
    Needs,
    tokens_in=st.integers(0, 20_000),
    tokens_out=st.integers(0, 5_000),
    tools=st.booleans(),
    images=st.booleans(),
    json=st.booleans(),
)
STANDINGS = st.builds(
    Standing,
    usd=st.none() | st.floats(0, 10),
    p50_s=st.none() | st.floats(0, 10),
    failed_s=st.none() | st.floats(0, 100),
    warm=st.booleans(),
)
MODELS = st.text("ab*?", max_size=4)
CONDITIONS = st.builds(
    Conditions,
    model=MODELS,
    tag=st.sampled_from(["", "t=*", "t=x"]),
    tenant=st.sampled_from(["", "aa", "aab"]),
    endpoint=st.sampled_from(["", "chat", "embeddings"]),
    min_tokens_in=st.sampled_from([0, 10]),
    max_tokens_in=st.sampled_from([0, 10, 50]),
    tools=st.none() | st.booleans(),
    images=st.none() | st.booleans(),
)
FACTS = st.builds(
    Facts,
    model=st.text("ab", max_size=4),
    endpoint=st.sampled_from(["chat", "messages", "embeddings"]),
    needs=NEEDS,
    tags=st.sampled_from([(), ("t=x",), ("t=y", "u=z")]),
    tenant=st.sampled_from(["aabb", "aaab", "b"]),
    stateful=st.just(False),
)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    variants = tuple(draw(st.lists(VARIANTS, min_size=1, max_size=4, unique_by=lambda one: one.name)))
    return Route(
        name="r",
        conditions=Conditions(),
        strategy=draw(st.sampled_from(["fixed", "weighted", "cheapest", "fastest", "balanced", "cascade"])),
        variants=variants,
        serves=True,
        weights=tuple(draw(st.lists(st.floats(0, 5), min_size=len(variants), max_size=len(variants)))),
        min_quality=draw(st.sampled_from([0.0, 0.5])),
        usd_per_s=draw(st.sampled_from([0.0, 0.01])),
        fallbacks=tuple(draw(st.lists(VARIANTS, max_size=3))),
        on=frozenset(draw(st.sets(st.sampled_from(sorted(CLASSES))))),
    )


UNIT = st.floats(0, 1, exclude_max=True)


@given(routes(), NEEDS, st.fixed_dictionaries(dict.fromkeys(NAMES, STANDINGS)), UNIT, UNIT)
def test_every_choice_is_total_and_only_of_variants_that_fit(
    route: Route, needs: Needs, known: dict[str, Standing], sticky: float, chance: float
) -> None:
    found = choose(route, needs, lambda variant: known[variant.name], sticky, chance)

    assert found == choose(route, needs, lambda variant: known[variant.name], sticky, chance)
    assert set(found.order) <= set(route.variants)
    assert all(not unfit(variant, needs) for variant in found.order)
    assert all((variant.quality or 0) >= route.min_quality for variant in found.order)
    fitting = [one for one in route.variants if not unfit(one, needs) and (one.quality or 0) >= route.min_quality > 0]
    if route.strategy in ("fixed", "weighted", "cascade", "fastest") and fitting:
        assert found.order


@given(routes(), NEEDS, st.fixed_dictionaries(dict.fromkeys(NAMES, STANDINGS)), UNIT)
def test_the_cheapest_that_fits_is_the_least_of_those_whose_price_is_known(
    route: Route, needs: Needs, known: dict[str, Standing], chance: float
) -> None:
    cheapest = Route("r", Conditions(), "cheapest", route.variants)
    found = choose(cheapest, needs, lambda variant: known[variant.name], 0.0, chance)
    prices = [usd for one in route.variants if not unfit(one, needs) and (usd := known[one.name].usd) is not None]

    assert [known[one.name].usd for one in found.order] == ([min(prices)] if prices else [])


@given(routes(), NEEDS, st.booleans(), st.sampled_from(["m", "n", "z"]), st.data())
def test_every_chain_ends_with_the_asked_for_model_and_asks_nobody_twice(
    route: Route, needs: Needs, stream: bool, model: str, data: st.DataObject
) -> None:
    order = tuple(data.draw(st.lists(st.sampled_from(route.variants), max_size=3, unique=True)))
    way = course(route, order, needs, model, stream=stream)

    assert ASKED in way.chain
    assert len(set(way.chain)) == len(way.chain)
    asked, place = 0, 0
    while (nxt := after_failure(way.chain, place, data.draw(st.sampled_from(["", *CLASSES])), route.on)) is not None:
        assert nxt > place
        place, asked = nxt, asked + 1
    assert ASKED in way.chain[: place + 1]


@pytest.mark.parametrize("stream", [False, True])
def test_a_student_answers_streams_too_and_is_never_asked_for_its_teacher(stream: bool) -> None:
    pupil, cheap, big = Variant("p", "student/p", student="p"), Variant("c", "mini"), Variant("b", "big")
    route = Route("r", Conditions(), "cascade", (pupil, cheap, big))
    way = course(route, route.variants, Needs(), "m", stream=stream)
    alone = course(route, (pupil,), Needs(), "m", stream=stream)

    assert way.tries == ((pupil,) if stream else (pupil, cheap)) and way.chain == (big, ASKED)
    assert way.passed_over == ((cheap,) if stream else ())
    assert alone.tries == (pupil,) and alone.chain == (ASKED,)


@given(st.lists(CONDITIONS, max_size=4), FACTS)
def test_a_route_that_is_refused_would_indeed_never_have_got_a_request(listed: list[Conditions], facts: Facts) -> None:
    for later, earlier in never_matched(listed):
        assert max(earlier) < later
        assert not listed[later].holds(facts) or any(listed[one].holds(facts) for one in earlier)


@pytest.mark.parametrize(
    ("above", "below", "covered"),
    [
        ([{"tools": True}, {"tools": False}], {}, True),
        ([{"tools": True, "images": True}, {"tools": False}], {}, False),
        ([{"tools": True, "images": True}, {"tools": False}, {"images": False}], {}, True),
        ([{"max_tokens_in": 9}, {"min_tokens_in": 10}], {"tools": True}, True),
        ([{"max_tokens_in": 9}, {"min_tokens_in": 11}], {}, False),
        ([{"max_tokens_in": 9}, {"min_tokens_in": 10, "max_tokens_in": 20}], {"max_tokens_in": 15}, True),
        ([{"endpoint": one} for one in ("chat", "completions", "messages", "responses")], {}, True),
        ([{"endpoint": one} for one in ("chat", "completions", "messages")], {}, False),
        ([{}], {"endpoint": "embeddings"}, False),
        ([{"tools": True, "model": "a*"}, {"tools": False, "model": "b*"}], {"model": "a1"}, False),
    ],
)
def test_routes_that_together_take_all(above: list[dict[str, Any]], below: dict[str, Any], covered: bool) -> None:
    listed = [Conditions(**one) for one in (*above, below)]
    assert any(later == len(above) for later, _ in never_matched(listed)) is covered


@pytest.mark.parametrize(
    ("earlier", "later", "covers"),
    [
        ("gpt-4o*", "gpt-4o-mini", True),
        ("gpt-4o*", "gpt-4*", False),
        ("*", "gpt-?", True),
        ("gpt-?", "gpt-*", False),
        ("a*c", "a*bc", True),
        ("", "x", True),
        ("x", "", False),
        ("gpt-[45]", "gpt-4", True),
    ],
)
def test_patterns_that_take_all(earlier: str, later: str, covers: bool) -> None:
    assert bool(never_matched([Conditions(model=earlier), Conditions(model=later)])) is covers


@given(st.lists(CONDITIONS, max_size=5), st.lists(FACTS, max_size=5))
def test_the_table_takes_the_first_whose_conditions_hold(listed: list[Conditions], asked: list[Facts]) -> None:
    table = RouteTable([Route(str(place), conditions, "fixed", ()) for place, conditions in enumerate(listed)])
    for facts in asked:
        expected = next((route for route in table.routes if route.conditions.holds(facts)), None)
        assert table.match(facts) is expected


@given(MODELS, st.text("ab", max_size=4))
def test_a_models_pattern_is_the_shells(pattern: str, model: str) -> None:
    facts = Facts(model, "chat", Needs())
    assert Conditions(model=pattern).holds(facts) == (not pattern or fnmatchcase(model, pattern))


@pytest.mark.parametrize(
    ("lacks", "needs", "why"),
    [
        ({"tools": False}, Needs(tools=True), "no tools"),
        ({"images": False}, Needs(images=True), "no images"),
        ({"json_mode": False}, Needs(json=True), "no JSON mode"),
        ({"logprobs": False}, Needs(logprobs=True), "no log-probabilities"),
        ({"audio": False}, Needs(audio=True), "no audio"),
        ({"files": False}, Needs(files=True), "no files"),
        ({"hosted_tools": False}, Needs(hosted=True), "no hosted tools"),
        ({"context_tokens": 10}, Needs(9), "too long"),
    ],
)
def test_what_a_variant_lacks_keeps_the_request_from_it(lacks: dict[str, Any], needs: Needs, why: str) -> None:
    assert unfit(Variant("a", "m", **lacks), needs) == why
    assert unfit(Variant("a", "m", **lacks), Needs()) == unfit(Variant("a", "m"), needs) == ""


def test_the_first_route_that_fits_is_taken_and_what_is_stateful_takes_none() -> None:
    listed = (("x", "b*"), ("y", "a*"), ("z", ""))
    table = RouteTable([Route(name, Conditions(model=model), "fixed", ()) for name, model in listed])
    assert [getattr(table.match(Facts(model, "chat", Needs())), "name", "") for model in ("ab", "b", "c")] == [
        "y",
        "x",
        "z",
    ]
    assert table.match(Facts("ab", "responses", Needs(), stateful=True)) is None
    assert table.match(Facts("ab", "embeddings", Needs())) is None


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}


def parts(kind: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": kind} | more]}]}


SHOWN = {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "y"}}]}


@pytest.mark.parametrize(
    ("payload", "endpoint", "expected"),
    [
        (CHAT, Endpoint.CHAT, Needs(tokens_in=101)),
        (CHAT | {"max_tokens": 9}, Endpoint.CHAT, Needs(tokens_in=101, tokens_out=9)),
        ({"model": "m", "messages": [SHOWN]}, Endpoint.CHAT, Needs(tokens_in=766, images=True)),
        ({"model": "m", "input": "x" * 8}, Endpoint.RESPONSES, Needs(tokens_in=3)),
        ({"model": "m", "prompt": ["abcd", "efgh"]}, Endpoint.COMPLETIONS, Needs(tokens_in=3)),
        ({"model": "m", "system": [{"type": "text", "text": "x" * 40}], "messages": []}, Endpoint.MESSAGES, Needs(11)),
        (CHAT | {"response_format": {"type": "json_object"}}, Endpoint.CHAT, Needs(tokens_in=101, json=True)),
        (CHAT | {"logprobs": True}, Endpoint.CHAT, Needs(tokens_in=101, logprobs=True)),
        (parts("input_audio"), Endpoint.CHAT, Needs(1, audio=True)),
        (CHAT | {"modalities": ["text", "audio"]}, Endpoint.CHAT, Needs(101, audio=True)),
        (CHAT | {"modalities": ["text"]}, Endpoint.CHAT, Needs(101)),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, Endpoint.CHAT, Needs(1, audio=True)),
        (parts("file"), Endpoint.CHAT, Needs(15_001, files=True)),
        (parts("document"), Endpoint.MESSAGES, Needs(15_001, files=True)),
        ({"input": parts("input_file")["messages"]}, Endpoint.RESPONSES, Needs(15_001, files=True)),
        (parts("tool_result", content=[{"type": "image"}]), Endpoint.MESSAGES, Needs(766, images=True)),
        (
            {"input": [{"type": "function_call_output", "output": [{"type": "input_file"}]}]},
            Endpoint.RESPONSES,
            Needs(15_001, files=True),
        ),
        (CHAT | {"web_search_options": {}}, Endpoint.CHAT, Needs(101, hosted=True)),
        (CHAT | {"tools": [{"type": "web_search"}]}, Endpoint.RESPONSES, Needs(7, tools=True, hosted=True)),
        (
            CHAT | {"tools": [{"type": "web_search_20250305", "name": "s"}]},
            Endpoint.MESSAGES,
            Needs(112, tools=True, hosted=True),
        ),
        (CHAT | {"tools": [{"type": "function"}]}, Endpoint.CHAT, Needs(106, tools=True)),
        (CHAT | {"tools": [{"name": "f"}]}, Endpoint.MESSAGES, Needs(104, tools=True)),
        ({"model": "m", "messages": [None, 3, {"content": [7]}], "max_tokens": "x"}, Endpoint.CHAT, Needs(1)),
    ],
)
def test_what_a_request_needs(payload: dict[str, Any], endpoint: Endpoint, expected: Needs) -> None:
    assert facts_of(endpoint, payload, (), "", never_chained=False).needs == expected


NAMED = st.sampled_from(["role", "content", "type", "text", "tool_calls"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMED, inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["model", "messages", "input", "prompt", "tools", "text", "system"]), JSON),
       st.sampled_from(Endpoint))  # fmt: skip
def test_facts_are_found_of_any_body(payload: dict[str, Any], endpoint: Endpoint) -> None:
    assert facts_of(endpoint, payload, (), "", never_chained=True).needs.tokens_in >= 1


@given(
    st.dictionaries(st.text(max_size=4) | st.just("model"), st.integers(-9, 9) | st.text(max_size=5), max_size=5),
    VARIANTS,
)
def test_what_is_put_in_changes_the_model_and_adds_what_isnt_set(payload: dict[str, Any], variant: Variant) -> None:
    asked = Variant(variant.name, variant.model, params=(("top_p", b"0.5"), ("x", b'{"y":1}')))
    body = orjson.dumps(payload)

    assert orjson.loads(put_in(body, asked)) == {"top_p": 0.5, "x": {"y": 1}} | payload | {"model": variant.model}
    if payload.get("model") == variant.model:
        assert put_in(body, variant) == body


def test_a_conversation_stays_with_its_variant_and_shares_are_those_of_the_weights() -> None:
    two = (Variant("a", "m"), Variant("b", "m"))
    route = Route("r", Conditions(), "weighted", two, weights=(3.0, 1.0))
    taken = []
    for number in range(400):
        turns = [{"role": "system", "content": "s"}, {"role": "user", "content": f"q{number}"}]
        first = stickiness("t", {"messages": turns}, "r")
        later = stickiness("t", {"messages": [*turns, {"role": "assistant", "content": "x"}, turns[1]]}, "r")
        assert first == later
        assert conversation("t", {"messages": turns}, "r") == conversation("t", {"messages": [*turns, turns[0]]}, "r")
        taken.append(choose(route, Needs(), lambda _: Standing(), first, 0.0).order[0].name)
    assert 270 <= taken.count("a") <= 330


@given(st.lists(st.text(), max_size=4))
def test_conversations_that_begin_otherwise_or_are_anothers_have_other_numbers(said: list[str]) -> None:
    turns = [{"role": "system", "content": "s"}, *({"role": "assistant", "content": text} for text in said)]
    parts = {"role": "user", "content": [{"type": "text", "text": "q"}]}
    begun: list[tuple[str, dict[str, object], str]] = [
        ("t", {"messages": [*turns, {"role": "user", "content": "q"}]}, "r"),
        ("t", {"messages": [*turns, parts]}, "r"),
        ("t", {"messages": [*turns, {"role": "user", "content": "p"}]}, "r"),
        ("u", {"messages": [*turns, {"role": "user", "content": "q"}]}, "r"),
        ("t", {"messages": [*turns, {"role": "user", "content": "q"}]}, "s"),
        ("t", {"input": "q"}, "r"),
        ("t", {"prompt": None}, "r"),
    ]
    for number in (conversation, stickiness):
        assert len({number(*one) for one in begun}) == len(begun)


def test_the_fastest_leaves_out_what_just_failed_and_looks_at_what_isnt_known() -> None:
    three = tuple(Variant(name, "m") for name in "abc")
    known = {"a": Standing(p50_s=0.1, failed_s=1.0), "b": Standing(p50_s=0.5), "c": Standing()}
    route = Route("r", Conditions(), "fastest", three)
    chosen = [choose(route, Needs(), lambda one: known[one.name], 0.0, chance).order[0].name for chance in (0.01, 0.9)]
    assert chosen == ["c", "b"]
    balanced = Route("r", Conditions(), "balanced", three[:2], usd_per_s=1.0)
    priced = {"a": Standing(0.5, 0.4), "b": Standing(0.1, 0.9)}
    assert choose(balanced, Needs(), lambda one: priced[one.name], 0.0, 0.9).order[0].name == "a"


def test_a_choice_of_none_says_why() -> None:
    route = Route("r", Conditions(), "fixed", (Variant("a", "m", context_tokens=10, quality=0.4),))
    assert choose(route, Needs(tokens_in=9), lambda _: Standing(), 0, 0) == Choice((), "a too long")
    strict = Route("r", Conditions(), "fixed", route.variants, min_quality=0.5)
    assert choose(strict, Needs(), lambda _: Standing(), 0, 0) == Choice((), "a not good enough")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, b"", "429"),
        (500, b"", "5xx"),
        (504, b"", "timeout"),
        (408, b"", "timeout"),
        (400, b'{"error":{"code":"context_length_exceeded"}}', "context"),
        (400, b"the request exceeds the available context size", "context"),
        (413, b'{"error":{"message":"prompt is too long: 9 tokens > 8 maximum"}}', "context"),
        (400, b'{"error":{"message":"bad field"}}', ""),
        (401, b"context length", ""),
    ],
)
def test_classes_of_answers(status: int, body: bytes, expected: str) -> None:
    assert of_answer(status, body) == expected


def test_classes_of_faults() -> None:
    faults = [("connect", 502), ("head", 504), ("head", 502), ("connect", 504), ("down", 503), ("busy", 429)]
    assert [of_fault(UpstreamFault("", phase=phase, status=status)) for phase, status in faults] == [
        "connect", "timeout", "reset", "connect", "connect", "429",
    ]  # fmt: skip


@given(st.lists(st.booleans(), max_size=300))
def test_second_calls_stay_within_their_share(wants: list[bool]) -> None:
    allowance, taken = Allowance(0.05), 0
    for number, wanted in enumerate(wants, 1):
        allowance.earn()
        taken += wanted and allowance.take()
        assert taken <= 1 + 0.05 * number + 1e-9
