"""What is found in texts and what is left alone, in bounded time."""

from __future__ import annotations

import json
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.clock import FakeClock, SystemClock
from farthing.proxy.redact import KINDS, Redactor, Unredacted, compiled

MARK = regex.compile(r"\[(\w+)-[0-9a-f]{8}\]")


def redactor(*own: tuple[str, str], secret: bytes = b"s" * 32, **more: Any) -> Redactor:
    return Redactor(KINDS, own, secret, SystemClock(), **more)


def found(text: str) -> str:
    """The text with the digests taken out of its marks."""
    cleaned: str = redactor().clean(text)[0]
    return MARK.sub(lambda match: f"[{match[1]}]", cleaned)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to ada@example.com, or Ada <ada.l+x@mail.example.co.uk>.", "write to [email], or Ada <[email]>."),
        ("Zoë: zoë@exämple.de", "Zoë: [email]"),
        ("It is ada@example.com. Or ada@mail.example.co.uk...", "It is [email]. Or [email]..."),
        ('{"to": "a.b@c.org"}', '{"to": "[email]"}'),
        ("call +49 170 1234567 or (030) 123-4567", "call [phone] or [phone]"),
        ("555-123-4567, +14155552671, 0044 20 7946 0958", "[phone], [phone], [phone]"),
        ("card 4111 1111 1111 1111 or 5500-0000-0000-0004", "card [card] or [card]"),
        ("378282246310005", "[card]"),
        ("key sk-proj-abcdefghijklmnop1234", "key [key]"),
        ("Authorization: Bearer abcdefghijklmnop1234==", "Authorization: [key]"),
        ("AKIAIOSFODNN7EXAMPLE ghp_" + "a1" * 18, "[key] [key]"),
        ("t=eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeKKF2Q;", "t=[key];"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[key]"),
        ("from 192.168.1.20 to 2001:db8::1", "from [ip] to [ip]"),
    ],
)
def test_what_is_found(text: str, left: str) -> None:
    assert found(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-26 10:30, 2026-11-26T10:30:00Z",
        "4111 1111 1111 1112 has a wrong check digit, 0000000000000000 is none",
        "1,000,000 and 3.14159265 and 1700000000000",
        "std::vector a::b 10:30:15 999.1.1.1 v1.2.3.4.5",
        "x@y task sk-1 bearer of news",
        "data:image/png;base64,ada@example.com",
        "short",
        "",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert found(text) == text


def test_equal_findings_stay_equal_others_differ_and_nobody_else_knows_the_digest() -> None:
    first, again, other = redactor().clean("ada@example.com", "ada@example.com", "bob@example.com")

    assert first == again != other
    assert redactor(secret=b"t" * 32).clean("ada@example.com")[0] not in (first, other)


def test_every_text_of_a_value_is_looked_through_and_counted() -> None:
    value = {"a@example.com": ["b@example.com", {"x": "10.0.0.1", "n": 4111111111111111, "t": True, "z": None}]}
    of = redactor()

    (cleaned,) = of.clean(value)

    (name,) = cleaned
    assert name.startswith("[email-")
    assert cleaned[name][0].startswith("[email-")
    assert cleaned[name][1] == {"x": cleaned[name][1]["x"], "n": 4111111111111111, "t": True, "z": None}
    assert of.found == {"email": 2, "ip": 1}
    assert value == {"a@example.com": ["b@example.com", {"x": "10.0.0.1", "n": 4111111111111111, "t": True, "z": None}]}


def test_own_patterns() -> None:
    (cleaned,) = redactor(("staff", "EMP-[0-9]{5}")).clean("ask EMP-12345")

    assert cleaned.startswith("ask [staff-")


@pytest.mark.parametrize("pattern", ["(", "a*", "x|", "[a-"])
def test_patterns_that_are_none_or_find_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="own"):
        compiled("own", pattern)


def test_no_kinds_leave_everything_alone() -> None:
    assert Redactor((), (), b"s", FakeClock()).clean("ada@example.com") == ["ada@example.com"]


def test_a_pattern_that_takes_too_long_gives_up_instead_of_the_text() -> None:
    of = redactor(("bad", "(x+x+)+y"), budget_s=0.05)

    with pytest.raises(Unredacted, match="bad"):
        of.clean("x" * 5000)


def test_a_text_beyond_the_bound_is_not_passed_on() -> None:
    with pytest.raises(Unredacted, match="4000001 characters"):
        redactor().clean("x" * 4_000_001)


@given(st.text(alphabet="ab1 .@:-+()[]sk", max_size=200))
def test_cleaning_twice_finds_nothing_new(text: str) -> None:
    of = redactor()
    (once,) = of.clean(text)

    assert of.clean(once) == [once]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    )
)
def test_the_shape_is_kept(value: Any) -> None:
    (cleaned,) = redactor().clean(value)

    assert MARK.sub("", json.dumps(cleaned)) is not None
    if not MARK.search(json.dumps(cleaned)):
        assert cleaned == value
