"""Other gateways' headers and body fields as farthing's own controls: a table of them, and what no value may do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from farthing.proxy import wire
from farthing.proxy.aliases import ALIASES, PRODUCTS, UNSUPPORTED, duration_s, hear, prefixes_of, under
from farthing.proxy.aliases_body import take_out
from farthing.proxy.exchange import CacheMode, Controls
from farthing.proxy.header_facts import HeaderFacts

OFF, EXACT, SEMANTIC = CacheMode.OFF, CacheMode.EXACT, CacheMode.SEMANTIC


def tagged(*pairs: tuple[str, str]) -> Controls:
    return Controls(tags=tuple(sorted(pairs)))


TABLE: list[tuple[str, str, str, Controls]] = [
    ("litellm", "x-litellm-tags", "a, job:1", tagged(("tag", "a"), ("tag", "job:1"))),
    ("litellm", "x-litellm-end-user-id", "u1", Controls(user="u1")),
    ("litellm", "x-litellm-customer-id", "u1", Controls(user="u1")),
    ("litellm", "x-litellm-session-id", "s1", tagged(("session", "s1"))),
    ("litellm", "x-litellm-spend-logs-metadata", '{"team": "a", "n": 3}', tagged(("team", "a"), ("n", "3"))),
    ("helicone", "Helicone-Cache-Enabled", "true", Controls()),
    ("helicone", "Helicone-Cache-Enabled", "false", Controls(cache=OFF)),
    ("helicone", "Helicone-Cache-Seed", "user-123", Controls(scope="user-123")),
    ("helicone", "Helicone-User-Id", "u1", Controls(user="u1")),
    ("helicone", "Helicone-Session-Id", "s1", tagged(("session", "s1"))),
    ("helicone", "Helicone-Property-Feature", "faq", tagged(("feature", "faq"))),
    ("portkey", "x-portkey-config", '{"cache": {"mode": "simple", "max_age": 60}}', Controls(cache=EXACT, ttl_s=60)),
    ("portkey", "x-portkey-config", '{"cache": {"mode": "semantic"}}', Controls(cache=SEMANTIC)),
    ("portkey", "x-portkey-config", '{"cache": "simple", "retry": {"attempts": 2}}', Controls(cache=EXACT)),
    ("portkey", "x-portkey-config", '{"retry": {"attempts": 2}}', Controls()),
    ("portkey", "x-portkey-cache-force-refresh", "true", Controls(no_cache=True)),
    ("portkey", "x-portkey-cache-force-refresh", "false", Controls()),
    ("portkey", "x-portkey-cache-namespace", "n", Controls(scope="n")),
    ("portkey", "x-portkey-metadata", '{"_user": "u1", "env": "prod"}', Controls(user="u1", tags=(("env", "prod"),))),
    ("cloudflare", "cf-aig-skip-cache", "true", Controls(cache=OFF)),
    ("cloudflare", "cf-skip-cache", "true", Controls(cache=OFF)),
    ("cloudflare", "cf-aig-cache-ttl", "3600", Controls(ttl_s=3600)),
    ("cloudflare", "cf-aig-cache-key", "k", Controls(scope="k")),
    ("cloudflare", "cf-aig-metadata", '{"team": "AI", "test": true}', tagged(("team", "AI"), ("test", "true"))),
    ("bifrost", "x-bf-cache-key", "session-1", Controls(scope="session-1")),
    ("bifrost", "x-bf-cache-ttl", "1h30m", Controls(ttl_s=5400)),
    ("bifrost", "x-bf-cache-type", "direct", Controls(cache=EXACT)),
    ("bifrost", "x-bf-cache-type", "semantic", Controls(cache=SEMANTIC)),
    ("bifrost", "x-bf-cache-no-store", "true", Controls(ttl_s=0)),
    ("bifrost", "x-bf-session-id", "s1", tagged(("session", "s1"))),
    ("bifrost", "x-bf-dim-region", "eu", tagged(("region", "eu"))),
]


def read(product: str, *pairs: tuple[str, str]) -> tuple[Controls, list[tuple[str, str]]]:
    said, told = hear(pairs, (product,))
    return under(Controls(), said), [(decision.action, decision.reason) for decision in told]


@pytest.mark.parametrize(("product", "header", "value", "meant"), TABLE)
def test_a_header_says_what_the_table_says(product: str, header: str, value: str, meant: Controls) -> None:
    assert read(product, (header, value)) == (meant, [("read", header.lower())])
    assert read(next(other for other in PRODUCTS if other != product), (header, value)) == (Controls(), [])


def test_every_line_of_the_table_is_tried() -> None:
    tried = {header.lower() for _, header, *_ in TABLE}

    assert [
        alias.header for alias in ALIASES if not any(name.startswith(alias.header.rstrip("*")) for name in tried)
    ] == []


@pytest.mark.parametrize(
    ("product", "header", "value", "why"),
    [
        ("cloudflare", "cf-aig-cache-ttl", "soon", "not a number of seconds"),
        ("cloudflare", "cf-aig-cache-ttl", "-1", "not a number of seconds"),
        ("cloudflare", "cf-aig-cache-ttl", "nan", "not a number of seconds"),
        ("cloudflare", "cf-aig-cache-ttl", "1e99", "not a number of seconds"),
        ("cloudflare", "cf-aig-skip-cache", "maybe", "neither true nor false"),
        ("cloudflare", "cf-aig-metadata", "{", "not JSON"),
        ("cloudflare", "cf-aig-metadata", "[1]", "not a JSON object"),
        ("cloudflare", "cf-aig-metadata", '{"a": {"b": 1}}', "'a' is no plain value"),
        ("bifrost", "x-bf-cache-ttl", "5 parsecs", "not a number of seconds"),
        ("bifrost", "x-bf-cache-type", "both", "neither direct nor semantic"),
        ("portkey", "x-portkey-config", "pc-my-config-1", "a saved configuration can't be looked up from here"),
        ("portkey", "x-portkey-config", '{"cache": {"mode": "magic"}}', "cache.mode is neither simple nor semantic"),
        ("portkey", "x-portkey-config", '{"cache": 5}', "its cache is neither a word nor an object"),
        ("helicone", "helicone-user-id", "u" * 300, "longer than 256 characters, or no text"),
        ("helicone", "helicone-property-", "x", "a tag needs a name, and at most 256 characters of text"),
    ],
)
def test_what_cannot_be_read_is_left_out_and_told(product: str, header: str, value: str, why: str) -> None:
    assert read(product, (header, value)) == (Controls(), [("ignored", f"{header}: {why}")])


@pytest.mark.parametrize("header", UNSUPPORTED)
def test_what_does_nothing_here_is_told_with_its_reason(header: str) -> None:
    product = next(name for name in PRODUCTS if header.startswith(prefixes_of((name,))))

    assert read(product, (header, "3")) == (Controls(), [("ignored", f"{header}: {UNSUPPORTED[header]}")])


def test_farthings_own_words_win() -> None:
    own = Controls(cache=EXACT, ttl_s=5, scope="mine", user="me", tags=(("team", "a"),))
    said, _ = hear(
        [
            ("cf-aig-skip-cache", "true"), ("cf-aig-cache-ttl", "60"), ("cf-aig-cache-key", "k"),
            ("cf-aig-metadata", '{"team": "b", "env": "prod"}'), ("x-portkey-metadata", '{"_user": "you"}'),
        ],
        PRODUCTS,
    )  # fmt: skip

    assert under(own, said) == replace(own, tags=(("env", "prod"), ("team", "a")))


def test_a_namespace_is_never_lost_for_its_looks() -> None:
    """Left out it would let answers cross from one namespace to another."""
    strange = ["k" * 300, "k" * 301, "a\x07b", "\udcff"]
    scopes = [read("bifrost", ("x-bf-cache-key", value))[0].scope for value in strange]

    assert len(set(scopes)) == 4
    assert all(scope.startswith("sha256-") and len(scope) < 100 for scope in scopes)
    both = under(Controls(), hear([("x-bf-cache-key", "a"), ("helicone-cache-seed", "b")], PRODUCTS)[0])
    assert both.scope == "a b"


def test_tags_have_a_bound() -> None:
    controls, told = read("litellm", ("x-litellm-tags", ",".join(f"t{i}" for i in range(20))))

    assert len(controls.tags) == 16
    assert told == [("ignored", "x-litellm-tags: more than 16 tags")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("2h30m", 9000), ("300", 300), ("1.5s", 2), ("500ms", 1), ("0", 0)],
)
def test_durations_as_go_writes_them(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@given(
    st.lists(
        st.tuples(
            st.sampled_from([alias.header.replace("*", "n") for alias in ALIASES] + list(UNSUPPORTED)), st.text()
        ),
        max_size=8,
    )
)
def test_no_value_is_ever_refused(pairs: list[tuple[str, str]]) -> None:
    said, told = hear(pairs, PRODUCTS)
    controls = under(Controls(), said)

    assert all(decision.action in ("read", "ignored") for decision in told)
    assert controls.ttl_s is None or controls.ttl_s >= 0
    assert len(controls.scope) <= 256 and len(controls.tags) <= 16


def test_their_headers_stay_here_and_make_no_tenant() -> None:
    """`cf-aig-cache-key` and session ids have names like credentials'; their products' own keys are some."""
    pairs = (("Authorization", "Bearer a"), ("cf-aig-cache-key", "k"), ("Helicone-Session-Id", "s"), ("X-Trace", "t"))
    off, on = HeaderFacts(pairs), HeaderFacts(pairs, PRODUCTS)

    assert on.credential == "authorization:Bearer a"
    assert "cf-aig-cache-key:k" in off.credential
    assert on.sent(frozenset(), ()).text == "Authorization: Bearer a\r\nX-Trace: t\r\n"
    assert off.sent(frozenset(), ()).text == wire.lines_of(pairs)
    keyed = HeaderFacts((("Helicone-Auth", "Bearer h"), ("x-portkey-api-key", "p")), PRODUCTS)
    assert "helicone-auth:Bearer h" in keyed.credential and "x-portkey-api-key:p" in keyed.credential
    assert keyed.sent(frozenset(), ()).text == ""


def test_a_repeat_must_have_the_same_words() -> None:
    names = (b"x-trace", b"cf-aig-skip-cache", b"Helicone-Property-A")

    assert wire.telling(names) == ()
    assert wire.telling(names, prefixes_of(("cloudflare",))) == (1,)
    assert wire.telling(names, prefixes_of(PRODUCTS)) == (1, 2)


def test_off_is_as_if_there_were_none() -> None:
    headers = CIMultiDictProxy(CIMultiDict([("cf-aig-skip-cache", "true"), ("x-farthing-user", "u")]))

    assert HeaderFacts(tuple(headers.items())).controls() == wire.controls(headers)


# -- the body


def taken(body: str, *products: str) -> tuple[str, Controls, list[tuple[str, str]]]:
    payload = json.loads(body)
    found = take_out(body.encode(), payload, products or ("litellm",))
    if found is None:
        return body, Controls(), []
    assert json.loads(found.body) == found.of(payload)
    told = [(decision.action, decision.reason) for decision in found.told]
    return found.body.decode(), under(Controls(), found.said), told


@pytest.mark.parametrize(
    ("cache", "meant"),
    [
        ({}, Controls()),
        ({"ttl": 300}, Controls(ttl_s=300)),
        ({"s-maxage": 600}, Controls(max_age_s=600)),
        ({"s-max-age": 600}, Controls(max_age_s=600)),
        ({"no-cache": True}, Controls(no_cache=True)),
        ({"no-store": True}, Controls(ttl_s=0)),
        ({"no-store": True, "ttl": 300}, Controls(ttl_s=0)),
        ({"no-cache": False, "no-store": None}, Controls()),
        ({"namespace": "n"}, Controls(scope="n")),
        ({"use-cache": True}, Controls()),
        ({"use-cache": False}, Controls(cache=OFF)),
    ],
)
def test_litellms_cache_object(cache: dict[str, Any], meant: Controls) -> None:
    body = f'{{"model": "m", "cache": {json.dumps(cache)} , "n":1.0}}'

    assert taken(body) == ('{"model": "m", "n":1.0}', meant, [("read", "body.cache")])
    assert taken(body, "helicone") == (body, Controls(), [])


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ('{"cache":{}}', "{}"),
        ('{ "cache" : {} }', "{  }"),
        ('{"cache":{},"model":"m"}', '{"model":"m"}'),
        ('{"model":"m","cache":{}}', '{"model":"m"}'),
        ('{"tags":["a"],"cache":{},"model":"m"}', '{"model":"m"}'),
        ('{"model":"m","tags":["a"],"x":1,"cache":{}}', '{"model":"m","x":1}'),
        ('{"a":1,"tags":["a"],"cache":{} }', '{"a":1 }'),
        ('{"metadata":{"tags":["a"]},"model":"m"}', '{"model":"m"}'),
        ('{"metadata":{"x": "1", "tags":["a"]},"model":"m"}', '{"metadata":{"x": "1"},"model":"m"}'),
        ('{"model":"m","metadata":{"tags":["a"], "x":"é"},"cache":{}}', '{"model":"m","metadata":{"x":"é"}}'),
    ],
)
def test_what_is_taken_out_leaves_every_other_byte(body: str, left: str) -> None:
    assert taken(body)[0] == left


def test_what_has_another_form_is_somebody_elses_and_stays() -> None:
    body = '{"cache": true, "tags": "a", "metadata": {"tags": "a,b"}, "model": "m"}'

    assert taken(body) == (body, Controls(), [])


def test_unreadable_members_are_told() -> None:
    _, controls, told = taken('{"cache": {"ttl": "soon", "type": "x", "namespace": 5, "no-cache": "maybe"}}')

    assert controls == Controls()
    assert told == [
        ("read", "body.cache"),
        ("ignored", "cache.ttl: not a number of seconds"),
        ("ignored", "cache.type: not known"),
        ("ignored", "cache.namespace: no text"),
        ("ignored", "cache.no-cache: neither true nor false"),
    ]


def test_the_bodys_user_is_read_and_stays() -> None:
    body = '{"user": "u1", "model": "m"}'

    assert taken(body) == (body, Controls(user="u1"), [])
    assert taken(body, "portkey") == (body, Controls(user="u1"), [])
    assert taken(body, "cloudflare") == (body, Controls(), [])
