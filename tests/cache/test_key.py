"""Identity: what must make another key does, and what can't change the answer doesn't."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from farthing.cache.key import NOT_IN_KEY, Scope, canonical, digest_of, key_of, neighbourhood
from farthing.proxy.exchange import Controls, Endpoint
from farthing.proxy.wire import is_plain, read_body

BASE: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}],
    "temperature": 0.5,
}


def scope(**changes: Any) -> Scope:
    parts: dict[str, Any] = {
        "tenant": "t",
        "endpoint": Endpoint.CHAT,
        "target": "/v1/chat/completions",
        "upstream": "http://u/v1",
        "headers": {},
        "controls": Controls(),
    }
    parts |= changes
    return Scope(**(parts | {"headers": CIMultiDict(parts["headers"])}))


def key(body: bytes | dict[str, Any], **changes: Any) -> str:
    read = read_body(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert not isinstance(read, str)
    assert read.exact is not None, read.problem
    where = scope(**changes)
    return key_of(where.material(), digest_of(read.exact, where.endpoint))


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": "other"},
        {"endpoint": Endpoint.COMPLETIONS},
        {"target": "/v1/chat/completions?api-version=2"},
        {"upstream": "http://v/v1"},
        {"headers": {"OpenAI-Organization": "org"}},
        {"headers": {"anthropic-beta": "x"}},
        {"controls": Controls(scope="n")},
        {"controls": Controls(route="cheap")},
        {"lossy": "recode"},
    ],
)
def test_everything_round_the_body_is_in_the_key(changes: dict[str, Any]) -> None:
    assert key(BASE, **changes) != key(BASE)


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
)
_TURNS = st.lists(st.fixed_dictionaries({"role": st.text(max_size=4), "content": st.text(max_size=8)}), max_size=3)


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=6), _SCALARS, max_size=6), _TURNS)
def test_the_short_way_to_the_canonical_form_gives_the_same_bytes(
    fields: dict[str, Any], turns: list[dict[str, str]]
) -> None:
    """Plain bodies are sorted by the encoder; as decimals the same numbers take the long way."""
    text = json.dumps(fields | {"messages": turns, "n": 1})
    long = json.loads(text, parse_float=Decimal, parse_int=Decimal)

    assert canonical(json.loads(text)) == canonical(long)


def test_other_headers_are_not() -> None:
    assert key(BASE, headers={"User-Agent": "x", "x-stainless-retry-count": "1"}) == key(BASE)


@pytest.mark.parametrize(
    "field", ["n", "seed", "logprobs", "tools", "response_format", "modalities", "service_tier", "num_ctx", "brand_new"]
)
def test_any_field_makes_another_key_known_or_not(field: str) -> None:
    assert key(BASE | {field: 1}) != key(BASE)
    assert key(BASE | {field: 1}) != key(BASE | {field: 2})
    assert key(BASE | {field: None}) != key(BASE)


@pytest.mark.parametrize("field", sorted(NOT_IN_KEY))
def test_the_deny_list_is_not_in_the_key(field: str) -> None:
    assert key(BASE | {field: "anything"}) == key(BASE)


def test_a_denied_name_inside_a_message_still_counts() -> None:
    other = BASE | {"messages": [{"role": "user", "content": "hello", "user": "x"}]}

    assert key(other) != key(BASE | {"messages": [{"role": "user", "content": "hello"}]})


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (b'{"model":"m","temperature":1}', b'{"model":"m","temperature":1.0}', True),
        (b'{"model":"m","temperature":1}', b'{"model":"m","temperature":1e0}', True),
        (b'{"model":"m","temperature":0.1}', b'{"model":"m","temperature":0.10}', True),
        (b'{"model":"m","temperature":0}', b'{"model":"m","temperature":-0.0}', True),
        (b'{"model":"m","temperature":0.1}', b'{"model":"m","temperature":0.10000000000000000001}', False),
        (b'{"model":"m","seed":9007199254740993}', b'{"model":"m","seed":9007199254740992}', False),
        (b'{"model":"m","seed":123456789012345678901234567890}', b'{"model":"m","seed":123456789012345678901234567891}',
         False),
        (b'{"model":"m","seed":1e400}', b'{"model":"m","seed":1e401}', False),
        (b'{"model":"m","seed":100000000000000000000}', b'{"model":"m","seed":1e20}', True),
        (b'{"model":"m","x":1}', b'{"model":"m","x":"1"}', False),
        (b'{"model":"m","x":true}', b'{"model":"m","x":1}', False),
        (b'{"model":"m","x":null}', b'{"model":"m","x":0}', False),
        (b'{"model":"m","x":"caf\xc3\xa9"}', b'{"model":"m","x":"caf\\u00e9"}', True),
        (b'{"model":"m","x":"a b"}', b'{"model":"m","x":"a  b"}', False),
        (b'{ "model" : "m" , "x" : [ 1 , 2 ] }', b'{"x":[1,2],"model":"m"}', True),
        (b'{"model":"m","x":[1,2]}', b'{"model":"m","x":[2,1]}', False),
    ],
)  # fmt: skip
def test_numbers_strings_and_white_space(left: bytes, right: bytes, same: bool) -> None:
    assert (key(left) == key(right)) is same


def test_key_order_counts_inside_tools_and_schemas_and_unknown_fields_only() -> None:
    def tools(*names: str) -> dict[str, Any]:
        schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
        return BASE | {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}

    def image(*names: str) -> dict[str, Any]:
        values = {"url": "data:image/png;base64,AA", "detail": "low"}
        part = {"type": "image_url", "image_url": {name: values[name] for name in names}}
        return BASE | {"messages": [{"role": "user", "content": [part]}]}

    assert key(tools("a", "b")) != key(tools("b", "a"))
    assert key(BASE | {"x": {"a": 1, "b": 2}}) != key(BASE | {"x": {"b": 2, "a": 1}})
    assert key(image("url", "detail")) == key(image("detail", "url"))
    assert key(BASE | {"messages": [{"content": "hello", "role": "user"}]}) == key(
        BASE | {"messages": [{"role": "user", "content": "hello"}]}
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5),
                                                               inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


GAP = st.sampled_from(["", " ", "\n\t", "  "])


@given(st.dictionaries(st.sampled_from(["model", "messages", "x", "input", "tools"]), JSON, min_size=1))
def test_the_fast_and_the_exact_reading_give_one_key(body: dict[str, Any]) -> None:
    """Compact bytes take the fast path; the same value with a name that is an escape takes the exact one."""
    compact = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    spaced = json.dumps(body, indent=1).encode()
    escaped = re.sub(
        r'"(model|messages|x|input|tools)"', lambda name: f'"\\u{ord(name[1][0]):04x}{name[1][1:]}"', spaced.decode()
    )

    assert key(compact) == key(spaced) == key(escaped.encode())


NUMBERS = ["0.7", "0.70", "1", "1.0", "1.00", "1e0", "10E-1", "-0", "0", "1e-7", "1e-07", "0.1",
           "0.10000000000000000001", "1e22", "1e+22", "123456789012345678901", "18446744073709551615", "9.5",
           "1e400"]  # fmt: skip
SPELT = st.recursive(
    st.sampled_from(
        [*NUMBERS, "null", "true", '"a"', '" a  b "', '"1.0"', '", 1.00"', '"\\" :"', '"\\u0061"', '"é \\n"']
    ),
    lambda inner: (
        st.builds(lambda gap, items: f"[{gap}" + f",{gap}".join(items) + "]", GAP, st.lists(inner, max_size=3))
        | st.builds(
            lambda gap, pairs: f"{{{gap}" + f",{gap}".join(f'"{name}"{gap}:{gap}{item}' for name, item in pairs) + "}",
            GAP,
            st.lists(st.tuples(st.sampled_from(["a", "b", "a b", "ab", "\\u0061", "messages"]), inner), max_size=3),
        )
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.sampled_from(["model", "messages", "x", "mo del"]), SPELT), max_size=4), GAP)
def test_however_it_is_spelt_a_body_has_the_key_of_its_exact_reading(pairs: list[tuple[str, str]], gap: str) -> None:
    """Of texts with any white space, doubled names and numbers of any spelling: a decoder that keeps all of it."""
    body = f"{{{gap}" + f",{gap}".join(f'"{name}":{gap}{item}' for name, item in pairs) + "}"
    doubled = False

    def once(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal doubled
        doubled = doubled or len(dict(found)) != len(found)
        return dict(found)

    exact = json.loads(body, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=once)
    read = read_body(body.encode())

    assert not isinstance(read, str) or doubled
    if not isinstance(read, str):
        assert (read.exact is None) is doubled
    if not doubled and not isinstance(read, str) and read.exact is not None:
        assert canonical(read.exact, plain=read.plain) == canonical(read.exact) == canonical(exact)


@pytest.mark.parametrize(
    "written", [json.dumps, partial(json.dumps, indent=2), partial(json.dumps, separators=(",", ":"))]
)
@pytest.mark.parametrize("number", [0.7, 1.0, 0, 2**63, 0.1, -2.5])
def test_what_python_writes_is_read_once(written: Callable[[Any], str], number: float) -> None:
    said = [{"role": "user", "content": 'two  lines:\n "a": 1, [b]'}]
    read = read_body(written(BASE | {"messages": said, "temperature": number}).encode())

    assert not isinstance(read, str)
    assert read.plain
    assert read.exact is read.payload  # the exact reading takes three times as long


@given(JSON, JSON)
def test_different_values_have_different_canonical_forms(left: Any, right: Any) -> None:
    def plain(value: Any) -> Any:
        return json.loads(json.dumps(value), parse_float=Decimal, parse_int=Decimal)

    def typed(value: Any) -> str:  # True is not 1, but 1.0 is
        if isinstance(value, dict):
            return "{" + ",".join(f"{name!r}:{typed(item)}" for name, item in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(typed, value)) + "]"
        return str(value.normalize() + 0) if isinstance(value, Decimal) else repr(value)

    same = typed(plain(left)) == typed(plain(right))

    assert (canonical({"x": left}) == canonical({"x": right})) is same


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"model":"m","model":"n"}', "duplicate keys"),
        (b'{"model":"m","x":{"a":1,"a":1}}', "duplicate keys"),
        (b'{"model":"m","x":"\\ud800"}', None),
        (b'{"model":"m","x":NaN}', None),
        (b"{", None),
        (b"[1]", None),
        (b"\xff\xfe", None),
        (b"[" * 5000 + b"]" * 5000, None),
        (b'{"a":' * 900 + b"1" + b"}" * 900, None),
        (b"", None),
    ],
)
def test_what_has_no_canonical_form_is_not_understood(body: bytes, problem: str | None) -> None:
    read = read_body(body)
    if isinstance(read, str):
        assert problem is None
    elif problem is not None:
        assert read.exact is None
        assert read.problem == problem


def test_a_deep_but_readable_body_never_raises() -> None:
    body = b'{"model":"m","x":' + b"[" * 300 + b"]" * 300 + b"}"
    read = read_body(body)

    assert (
        isinstance(read, str) or read.exact is None or key_of(scope().material(), digest_of(read.exact, Endpoint.CHAT))
    )


class TestNeighbourhood:
    def place(self, body: dict[str, Any], **changes: Any) -> tuple[str, str] | str:
        found = neighbourhood(scope(**changes), body)
        return found if isinstance(found, str) else (found.scope, found.text)

    def test_only_the_last_user_text_may_differ(self) -> None:
        def ask(text: str, system: str = "s", **more: Any) -> dict[str, Any]:
            turns = [{"role": "system", "content": system}, {"role": "user", "content": text}]
            return BASE | {"messages": turns} | more

        here, text = self.place(ask("a"))

        assert text == "a"
        assert self.place(ask("b"))[0] == here
        assert self.place(ask("a", system="other"))[0] != here
        assert self.place(ask("a", tools=[]))[0] != here
        assert self.place(ask("a"), tenant="u")[0] != here
        assert self.place(ask("a", temperature=0.1))[0] != here

    def test_a_route_is_all_that_conversations_share(self) -> None:
        def route(*turns: tuple[str, str], **more: Any) -> str:
            messages = [{"role": role, "content": text} for role, text in turns]
            found = neighbourhood(scope(), BASE | {"messages": messages} | more)
            assert not isinstance(found, str)
            return found.route

        first = route(("system", "s"), ("user", "a"))
        assert first.startswith("m ")
        assert route(("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "b")) == first
        assert route(("system", "t"), ("user", "a")) != first
        assert route(("system", "s"), ("user", "a"), model="n") != first
        assert route(("system", "s"), ("user", "a"), tools=[]) != first

    def test_earlier_turns_count(self) -> None:
        turns = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "y"},
            {"role": "user", "content": "z"},
        ]
        other = [{"role": "user", "content": "X"}, *turns[1:]]

        assert self.place(BASE | {"messages": turns})[0] != self.place(BASE | {"messages": other})[0]

    def test_an_image_beside_the_text_counts(self) -> None:
        def look(url: str) -> dict[str, Any]:
            parts = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": url}}]
            return BASE | {"messages": [{"role": "user", "content": parts}]}

        assert self.place(look("data:,a"))[1] == "what?"
        assert self.place(look("data:,a"))[0] != self.place(look("data:,b"))[0]

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [{"role": "tool", "content": "x", "tool_call_id": "1"}],
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            [{"role": "user"}],
            ["x"],
            None,
        ],
    )
    def test_what_has_no_last_text_says_so(self, messages: Any) -> None:
        assert isinstance(self.place(BASE | {"messages": messages}), str)

    def test_content_as_text_and_as_one_part_are_kept_apart_from_none(self) -> None:
        whole = self.place(BASE | {"messages": [{"role": "user", "content": "a"}]})
        part = self.place(BASE | {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]})

        assert whole[0] != part[0]


def test_the_key_is_128_bits_of_hex() -> None:
    assert len(bytes.fromhex(key(BASE))) == 16
    assert orjson.loads(canonical(BASE))["model"] == "m"


SAID = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["user", "tool", "x", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "tool_call_id"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["messages", "input", "model", "n"]), SAID))
def test_what_is_plain_has_the_same_key_the_short_way(payload: dict[str, Any]) -> None:
    plain = is_plain(payload)
    for endpoint in (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.EMBEDDINGS):
        assert canonical(payload, endpoint, plain=plain) == canonical(payload, endpoint)


@given(st.lists(st.tuples(st.sampled_from(["user", "system", "assistant"]), st.text(max_size=5)), max_size=4))
def test_messages_of_role_and_text_are_plain(said: list[tuple[str, str]]) -> None:
    payload = BASE | {"messages": [{"role": role, "content": text} for role, text in said]}
    assert is_plain(payload)
    assert canonical(payload, plain=True) == canonical(payload)
