"""No tenant ever sees another's answer: in no tier, by no header, alone or at once.

Random tenants send random requests from a small pool, so that nearly all of them could be answered with another's. The
upstream's answers name who asked. One proxy lives through all examples, so that what earlier ones left is there too.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.cache.store import Selector
from farthing.proxy.aliases import PRODUCTS
from tests.fakes.proxying import Proxied, proxied
from tests.fakes.valkey import running_valkey
from tests.security.marking import marking, owner_of, seen_by
from tests.wire.test_semantic import loaded

TENANTS: list[dict[str, str]] = [
    {"Authorization": "Bearer sk-one"},
    {"Authorization": "Bearer sk-two"},
    {"x-api-key": "sk-one"},
    {"api-key": "sk-one"},
    {"Authorization": "Bearer sk-one", "x-api-key": "sk-two"},
    {"Authorization": "Bearer sk-gateway", "Cookie": "session=1"},
    {"Authorization": "Bearer sk-gateway", "Cookie": "session=2"},
    {"Authorization": "Bearer sk-gateway", "X-Auth-Token": "one"},
    {"Authorization": "Bearer sk-gateway", "Ocp-Apim-Subscription-Key": "two"},
    {},
]
# What somebody might try to get into another's house with; all of it only narrows, inside the sender's own.
CONTROLS: list[dict[str, str]] = [
    {},
    {"x-farthing-scope": "shared"},
    {"x-farthing-user": "victim", "x-farthing-session": "victim"},
    {"x-farthing-tags": "tenant=victim"},
    {"x-farthing-tenant": "victim"},
    {"x-farthing-cache": "semantic"},
    {"x-farthing-cache": "exact"},
    {"x-farthing-off": "1"},
    {"x-farthing-ttl": "9999"},
    {"Cache-Control": "no-cache"},
    {"Cache-Control": "max-age=99999"},
    {"helicone-cache-enabled": "true", "helicone-cache-seed": "shared", "helicone-user-id": "victim"},
    {"x-portkey-cache-namespace": "shared", "x-portkey-virtual-key": "shared"},
    {"cf-aig-cache-key": "shared", "cf-aig-cache-ttl": "999"},
    {"x-bf-cache-key": "shared"},
    {"x-litellm-tags": "shared"},
    {"openai-organization": "org-victim"},
    {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-User": "victim"},
]
TEXTS = ["How do I reset my password?", "How can I reset my password?", "What is the capital of France?"]
MORE: list[dict[str, Any]] = [
    {},
    {"user": "victim"},
    {"prompt_cache_key": "shared"},
    {"metadata": {"user_id": "victim"}},
    {"cache": {"namespace": "shared", "ttl": 99}},
    {"caching": True},
]


@dataclass(frozen=True)
class Sent:
    """One request."""

    tenant: dict[str, str]
    controls: dict[str, str]
    endpoint: str
    body: dict[str, Any]


@st.composite
def bursts(draw: st.DrawFn) -> list[list[Sent]]:
    """Requests of a few tenants with few differences, some of them at once."""
    few = st.integers(2, 3)
    tenants = draw(st.lists(st.sampled_from(TENANTS), min_size=2, max_size=draw(few), unique_by=repr))
    controls = draw(st.lists(st.sampled_from(CONTROLS), min_size=1, max_size=draw(few)))
    more = draw(st.lists(st.sampled_from(MORE), min_size=1, max_size=2))
    texts = st.sampled_from(TEXTS)

    @st.composite
    def one(draw: st.DrawFn) -> Sent:
        endpoint = draw(st.sampled_from(["chat", "chat", "stream", "embeddings"]))
        body = {"model": "m"} | draw(st.sampled_from(more))
        if endpoint == "embeddings":
            body |= {"input": draw(st.lists(texts, min_size=1, max_size=3))}
        else:
            body |= {"messages": [{"role": "user", "content": draw(texts)}]}
            body |= {"stream": True} if endpoint == "stream" else {}
        return Sent(draw(st.sampled_from(tenants)), draw(st.sampled_from(controls)), endpoint, body)

    return draw(st.lists(st.lists(one(), min_size=1, max_size=8), min_size=1, max_size=4))


async def ask(proxy: Proxied, sent: Sent) -> tuple[str, str, set[str]]:
    """How it was answered, who asked, whom the answer names."""
    path = "/v1/embeddings" if sent.endpoint == "embeddings" else "/v1/chat/completions"
    headers = {**sent.tenant, **sent.controls, "Content-Type": "application/json"}
    request = proxy.client.build_request("POST", path, content=json.dumps(sent.body), headers=headers)
    if "Authorization" not in sent.tenant:
        del request.headers["Authorization"]
    answer = await proxy.client.send(request)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-farthing-cache"], owner_of(sent.tenant), seen_by(sent.endpoint, answer.content)


class World:
    """A proxy in a loop of its own, for as long as a test's examples need it."""

    def __init__(self, **config: Any) -> None:
        self._runner = asyncio.Runner()
        self._config = config
        self._stack = AsyncExitStack()
        self.tiers: set[str] = set()
        self.hits = 0  # of embeddings, whose items are stored one by one

    def __enter__(self) -> World:
        self._proxy = self._runner.run(self._stack.enter_async_context(self._opened()))
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Proxied]:
        with tempfile.TemporaryDirectory() as home:
            async with marking() as url, proxied(url, Path(home), **self._config) as proxy:
                if self._config.get("semantic__mode"):
                    await loaded(proxy)
                yield proxy

    def check(self, rounds: list[list[Sent]], *, afresh: bool) -> None:
        """Each round's requests go out at once; every answer names its asker and nobody else. `afresh`: nothing is
        stored when they begin, so that they meet in flights."""

        async def all_rounds() -> None:
            if afresh:
                await self._proxy.services.state.store.purge(Selector())
            for burst in rounds:
                answers = await asyncio.gather(*(ask(self._proxy, sent) for sent in burst))
                for endpoint, (how, asker, named) in zip((sent.endpoint for sent in burst), answers, strict=True):
                    assert named == {asker}, how
                    self.tiers.add(how)
                    self.hits += how == "hit-exact" and endpoint == "embeddings"

        self._runner.run(all_rounds())


SEMANTIC = {
    "semantic__mode": "serve", "semantic__unproven": True, "semantic__threshold": 0.8,
    "semantic__deadline_ms": 5000, "semantic__audit_daily_usd": 0,
}  # fmt: skip
WORLDS: dict[str, dict[str, Any]] = {
    "memory and SQLite": {},
    "little memory": {"store__memory_bytes": 0},
    "near-duplicates": SEMANTIC,
    "other gateways' words": {"compat__aliases": list(PRODUCTS), **SEMANTIC},
    "Valkey": {"store__url": "valkey", "store__deadline_ms": 5000},
}


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with running_valkey() as url:
        yield url


@pytest.mark.parametrize("name", WORLDS)
def test_nobody_sees_anybody_elses_answer(name: str, valkey: str) -> None:
    config = {key: valkey if value == "valkey" else value for key, value in WORLDS[name].items()}
    with World(**config) as world:

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(bursts(), st.booleans())
        def checked(rounds: list[list[Sent]], afresh: bool) -> None:
            world.check(rounds, afresh=afresh)

        checked()
        expected = {"miss", "joined", "hit-exact"}
        assert world.tiers >= expected | ({"hit-semantic"} if "semantic__mode" in config else set())
        assert world.hits > 0


async def test_a_credential_that_connection_keeps_from_the_upstream_still_says_who_asks(tmp_path: Path) -> None:
    """RFC 9110, 7.6.1 has it dropped; what came of it must not become everybody's who shows no credential."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hop by hop"}]}
    async with marking() as url, proxied(url, tmp_path) as proxy:
        hidden = {"Authorization": "Bearer sk-one", "Connection": "keep-alive, authorization"}
        first = await proxy.client.post("/v1/chat/completions", json=body, headers=hidden)
        how, _, named = await ask(proxy, Sent({}, {}, "chat", body))

    assert seen_by("chat", first.content) == named == {owner_of({})}
    assert how == "miss"
