"""What is watched of texts: languages by script and words, what was asked, what an answer is like."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.features import LANGUAGES, answered, asked, confidence, language


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("How do I reset the password of my account?", "en"),
        ("Wie kann ich das Passwort für mein Konto zurücksetzen?", "de"),
        ("Comment est-ce que je peux changer le mot de passe de mon compte ?", "fr"),
        ("¿Cómo puedo cambiar la contraseña de mi cuenta?", "es"),
        ("Как мне сменить пароль?", "cyrillic"),
        ("如何重置我的密码？", "chinese"),
        ("パスワードを変更する方法を教えてください", "japanese"),
        ("비밀번호를 어떻게 바꾸나요?", "korean"),
        ("كيف أغير كلمة المرور؟", "arabic"),
        ("मैं अपना पासवर्ड कैसे बदलूँ?", "devanagari"),
        ("Πώς αλλάζω τον κωδικό;", "greek"),
        ("12 + 30 = ?", "none"),
        ("", "none"),
        ("xyzzy plugh", "latin"),
        ("ⴰⵣⵓⵍ", "other"),
    ],
)
def test_language(text: str, name: str) -> None:
    assert language(text) == name


@given(st.text())
def test_every_text_has_a_language(text: str) -> None:
    assert language(text) in LANGUAGES


USER = {"role": "user", "content": "What is the weather?"}


@pytest.mark.parametrize(
    ("payload", "tools", "wants_json", "turns", "name"),
    [
        ({"messages": [USER]}, False, False, 1, "en"),
        ({"messages": [USER], "tools": [{}], "response_format": {"type": "json_object"}}, True, True, 1, "en"),
        ({"messages": [USER, {"role": "assistant", "content": "Sonnig und warm."}]}, False, False, 2, "en"),
        ({"input": "Was ist das für ein Wetter?", "text": {"format": {"type": "json_schema"}}}, False, True, 1, "de"),
        ({"prompt": ["What is this?"], "functions": [{}]}, True, False, 1, "en"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}]}, False, False, 1, "en"),
        ({"messages": 3, "response_format": "json"}, False, False, 1, "none"),
        ({}, False, False, 1, "none"),
    ],
)
def test_what_was_asked(payload: dict[str, Any], tools: bool, wants_json: bool, turns: int, name: str) -> None:
    found = asked(payload)
    assert (found.tools, found.wants_json, found.turns, found.language) == (tools, wants_json, turns, name)


def chat(text: str | None, finish: str = "stop", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish, **more}]}).encode()


@pytest.mark.parametrize(
    ("body", "wants_json", "what"),
    [
        (chat("Paris."), False, set()),
        (chat("I'm sorry, but I can't help with that."), False, {"refused"}),
        (chat("I'm sorry, but I can't help with that."), True, {"refused"}),  # not a fault of the format
        (chat(""), False, {"empty"}),
        (chat(None), True, {"empty", "broken_json"}),
        (chat("It was the best of", "length"), True, {"cut"}),
        (chat('{"a": 1}'), True, set()),
        (chat('Here you are: {"a": 1}'), True, {"broken_json"}),
        (
            b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
            False,
            set(),
        ),
    ],
)
def test_what_an_answer_is_like(body: bytes, wants_json: bool, what: set[str]) -> None:
    found = answered(body, wants_json=wants_json)
    assert found is not None
    assert {name for name in ("refused", "empty", "cut", "broken_json") if getattr(found, name)} == what


@given(st.binary())
def test_no_bytes_raise(body: bytes) -> None:
    answered(body, wants_json=True)
    confidence(body)


def test_confidence_is_the_geometric_mean() -> None:
    tokens = [{"logprob": math.log(0.9)}, {"logprob": math.log(0.4)}]
    assert confidence(chat("a b", logprobs={"content": tokens})) == pytest.approx(0.6)
    assert confidence(chat("a b")) is None
    assert confidence(chat("a b", logprobs={"content": [{"logprob": "x"}]})) is None
    assert confidence(chat("a b", logprobs={"content": [], "logprob": 1})) is None
