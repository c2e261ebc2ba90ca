"""Which calls surely cost nothing."""

from __future__ import annotations

import pytest

from farthing.policies.free import surely_free


@pytest.mark.parametrize(
    ("method", "path", "free"),
    [
        ("GET", "/v1/models", True),
        ("DELETE", "/v1/files/f-1", True),
        ("POST", "/v1/files", True),
        ("POST", "/v1/uploads", True),
        ("POST", "/v1/uploads/u_1/parts", True),
        ("POST", "/v1/batches/b-1/cancel", True),
        ("POST", "/v1/messages/count_tokens", True),
        ("POST", "/v1/batches", False),
        ("POST", "/v1/moderations", False),
        ("POST", "/v1/chat/completions", False),
        ("POST", "/v1/files/", False),
        ("POST", "/v1/files\n", False),
        ("POST", "/v1/files/../chat/completions", False),
        ("POST", "/v1/uploads/..%2f..%2fchat/parts", False),
        ("POST", "/v1//files", False),
        ("PUT", "/v1/files", False),
        ("get", "/v1/models", False),
    ],
)
def test_only_what_is_surely_free(method: str, path: str, free: bool) -> None:
    assert surely_free(method, path) is free
