"""Kinds of upstream: where their calls go, where their keys are shown, what they don't take."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from farthing.proxy.config import Config, ConfigFault, load
from farthing.proxy.exchange import Endpoint
from farthing.proxy.styles import STYLES, StyleName, base_of, credential_of, shown_as, suited, target_of


def test_every_name_has_a_style() -> None:
    assert set(STYLES) == set(get_args(StyleName))


@pytest.mark.parametrize(
    ("style", "url", "base"),
    [
        ("any", "https://h", "https://h/v1"),
        ("any", "https://h/v1/", "https://h/v1"),
        ("openai", "https://h/api/v3", "https://h/api/v3"),
        ("anthropic", "https://h", "https://h/v1"),
        ("azure", "https://h", "https://h"),
        ("azure", "https://h/openai/v1/", "https://h/openai/v1"),
        ("gemini", "https://h/v1beta/openai/", "https://h/v1beta/openai"),
    ],
)
def test_bases(style: StyleName, url: str, base: str) -> None:
    assert base_of(url, style) == base
    assert load(None, {}, {"upstream.style": style, "upstream.url": url}).upstream.url == base


@pytest.mark.parametrize(
    ("style", "base", "target", "model", "version", "path"),
    [
        ("openai", "/v1", "/v1/chat/completions", "m", "", "/v1/chat/completions"),
        ("anthropic", "/v1", "/v1/messages?beta=true", "m", "", "/v1/messages?beta=true"),
        ("gemini", "/v1beta/openai", "/v1/embeddings", "m", "", "/v1beta/openai/embeddings"),
        ("gemini", "", "/v1/models", "", "", "/v1beta/openai/models"),
        ("azure", "", "/v1/chat/completions", "m", "", "/openai/v1/chat/completions"),
        (
            "azure",
            "",
            "/v1/completions",
            "a b/c",
            "v",
            "/openai/deployments/a%20b%2Fc/completions?api-version=v",
        ),
        ("azure", "/openai/v1", "/v1/embeddings?x=1", "m", "v", "/openai/deployments/m/embeddings?x=1&api-version=v"),
        ("azure", "/gate/openai", "/v1/models", "", "v", "/gate/openai/models?api-version=v"),
    ],
)
def test_targets(style: StyleName, base: str, target: str, model: str, version: str, path: str) -> None:
    assert target_of(style, base, target, model, version) == path


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer sk-1"}, "sk-1"),
        ({"authorization": "bearer  sk-1 "}, "sk-1"),
        ({"authorization": "sk-1"}, "sk-1"),
        ({"authorization": "Basic dTpw"}, ""),
        ({"authorization": "Bearer"}, ""),
        ({"authorization": "Basic dTpw", "x-api-key": "k"}, "k"),
        ({"api-key": "k"}, "k"),
        ({"x-goog-api-key": "k"}, "k"),
        ({}, ""),
    ],
)
def test_a_clients_key_is_found(headers: dict[str, str], key: str) -> None:
    assert credential_of(headers) == key


@pytest.mark.parametrize(
    ("style", "key", "shown"),
    [
        ("openai", "k", ("Authorization", "Bearer k")),
        ("anthropic", "k", ("x-api-key", "k")),
        ("azure", "k", ("api-key", "k")),
        ("azure", "eyJ0.x.y", ("Authorization", "Bearer eyJ0.x.y")),
        ("anthropic", "sk-ant-oat01-x", ("Authorization", "Bearer sk-ant-oat01-x")),
        ("anthropic", "eyJ0.x.y", ("x-api-key", "eyJ0.x.y")),
    ],
)
def test_where_a_key_is_shown(style: StyleName, key: str, shown: tuple[str, str]) -> None:
    assert shown_as(style, key) == shown


@pytest.mark.parametrize(
    ("style", "body", "sent"),
    [
        ("openai", '{ "user": "u", "n": 1 }', '{ "user": "u", "n": 1 }'),
        ("gemini", '{ "model": "m", "user": "u", "metadata": {}, "n": 2.0 }', '{ "model": "m", "n": 2.0 }'),
        ("ollama", '{"max_completion_tokens": 5, "x": 1.50}', '{"max_tokens":5,"x": 1.50}'),
        ("ollama", '{"max_completion_tokens": 5, "max_tokens": 7}', '{"max_tokens": 7}'),
        ("gemini", "[", "["),
        ("gemini", "{", "{"),
    ],
)
def test_only_what_a_style_names_is_touched(style: StyleName, body: str, sent: str) -> None:
    found = suited(style, Endpoint.CHAT, body.encode()).decode()

    assert found.replace(" ", "") == sent.replace(" ", "")
    if sent.startswith("{") and len(sent) > 1:
        assert json.loads(found) == json.loads(sent)


def test_other_endpoints_are_left_alone() -> None:
    assert suited("gemini", Endpoint.EMBEDDINGS, b'{"user":"u"}') == b'{"user":"u"}'


@pytest.mark.parametrize(
    "flags",
    [
        {"upstream.style": "anthropik"},
        {"upstream.thinking": "much"},
        {"upstream.max_tokens_default": 0},
        {"upstream.api_version": "2024&x=1"},
    ],
)
def test_faults_are_refused_at_load(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigFault, match=next(iter(flags))):
        load(None, {}, flags)


def test_what_changes_an_answer_is_in_the_identity() -> None:
    def identity(**upstream: Any) -> str:
        return Config.model_validate({"upstream": {"url": "https://h/v1"} | upstream}).upstream.identity

    assert identity() == "https://h/v1"
    told = [{}, {"style": "anthropic"}, {"style": "openai"}, {"style": "anthropic", "thinking": "budget"}]
    told.append({"style": "anthropic", "max_tokens_default": 9})
    assert len({identity(**upstream) for upstream in told}) == len(told)
