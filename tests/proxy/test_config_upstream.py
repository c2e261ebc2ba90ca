"""The section [upstream]: several addresses, several keys, and what can't be meant."""

from __future__ import annotations

from typing import Any

import pytest

from farthing.proxy.config import load
from farthing.proxy.errors import ConfigFault
from tests.fakes.proxying import PRICES


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"replicas": ["http://a/v1"], "url": "http://b/v1"}, "url and replicas are both given"),
        ({"replicas": ["http://a", "http://a/v1"]}, "the same address stands there twice"),
        ({"replicas": ["ftp://a"]}, "must begin with http"),
        ({"replicas": ["http://127.0.0.1:8080"]}, "is farthing itself"),
        ({"api_keys": ["k", "k"]}, "the same key stands there twice"),
        ({"api_keys": [""]}, "an empty key"),
        ({"api_keys": ["k"], "api_key": "j"}, "not both"),
        ({"health_path": "health"}, "upstream.health_path"),
        ({"balance": "random"}, "upstream.balance"),
        ({"breaker_fails": 3}, "breaker_failures"),
    ],
)
def test_a_configuration_that_can_not_be_meant_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigFault, match=said):
        load(None, {}, {f"upstream.{name}": value for name, value in settings.items()})


def test_the_first_replica_stands_for_all_whatever_the_environment_says() -> None:
    config = load(
        None, {"OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, {"upstream.replicas": ["http://a", "http://b"]}
    )

    assert (config.upstream.url, config.upstream.bases) == ("http://a/v1", ("http://a/v1", "http://b/v1"))


def test_keys_of_a_pool_make_no_open_relay() -> None:
    with pytest.raises(ConfigFault, match="spend that key"):
        load(None, {}, {"upstream.api_keys": ["a", "b"], "server.host": "0.0.0.0", "prices": PRICES})
