"""No tenant ever sees another's answer: in no tier, by no header, alone or at once.

Random tenants send random requests from a small pool, so that nearly all of them could be answered with another's. The
upstream's answers name who asked. One proxy, or two replicas, live through all examples, so that what earlier ones left
is there too.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farthing.cache.store import Selector
from farthing.cache.store_near import NearStore
from farthing.proxy.aliases import PRODUCTS
from tests.fakes.postgres import running_postgres
from tests.fakes.proxying import Proxied, proxied, quiet
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
    at: int = 0
    """The replica that it is sent to, where there are several."""

    @property
    def question(self) -> tuple[str, str, int]:
        """Who asks where, and what, however it is asked."""
        words = self.body.get("input") or [self.body["messages"][0]["content"]]
        return owner_of(self.tenant), " ".join(words), self.at


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
        at = draw(st.integers(0, 1))
        return Sent(draw(st.sampled_from(tenants)), draw(st.sampled_from(controls)), endpoint, body, at)

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
    """A proxy in a loop of its own, for as long as a test's examples need it; or several that share what they know."""

    def __init__(self, replicas: int = 1, **config: Any) -> None:
        self._runner = asyncio.Runner()
        self._replicas = replicas
        self._config = config
        self._stack = AsyncExitStack()
        self._asked: set[tuple[str, str, int]] = set()
        self.proxies: list[Proxied] = []
        self.tiers: set[str] = set()
        self.across = 0  # hits on what a tenant had asked at another replica, and never at this one

    def __enter__(self) -> World:
        self._runner.run(self._opened())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def _opened(self) -> None:
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        url = await self._stack.enter_async_context(marking())
        for number in range(self._replicas):
            state_dir = home / str(number)
            state_dir.mkdir()
            (state_dir / "secret").write_text(f"{'5a' * 32}\n")  # tenants are told apart alike
            proxy = await self._stack.enter_async_context(proxied(url, state_dir, **self._config))
            if self._config.get("semantic__mode"):
                await loaded(proxy)
            self.proxies.append(proxy)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """In the world's loop."""
        return self._runner.run(work)

    def check(self, rounds: list[list[Sent]], *, afresh: bool) -> None:
        """Each round's requests go out at once; every answer names its asker and nobody else. `afresh`: nothing is
        stored when they begin, so that they meet in flights."""

        async def all_rounds() -> None:
            if afresh:
                for proxy in self.proxies:
                    await proxy.services.state.store.purge(Selector())
                self._asked.clear()
            for burst in rounds if self._replicas == 1 else self._and_elsewhere(rounds):
                answers = await asyncio.gather(*(ask(self.proxies[sent.at % self._replicas], sent) for sent in burst))
                for sent, (how, asker, named) in zip(burst, answers, strict=True):
                    assert named == {asker}, how
                    self.tiers.add(how)
                    self.across += (
                        how == "hit-exact" and sent.endpoint != "embeddings" and sent.question not in self._asked
                    )
                self._asked |= {sent.question for sent in burst}
                if self._replicas > 1:
                    await exchanged(self.proxies)

        self.run(all_rounds())

    def _and_elsewhere(self, rounds: list[list[Sent]]) -> Iterator[list[Sent]]:
        """Each round, and then the same round with each request sent to the other replica."""
        for burst in rounds:
            yield burst
            yield [replace(sent, at=1 - sent.at) for sent in burst]


async def exchanged(proxies: Sequence[Proxied]) -> None:
    """The replicas tell each other now what they have put of near-duplicates, and not a quarter of a second later."""
    for proxy in (*proxies, *proxies):
        thread = proxy.services.thread
        assert thread is not None and (thread.shared is not None or len(proxies) == 1)
        if thread.shared is not None:
            await thread.shared.look(thread)


async def same_indexes(proxies: Sequence[Proxied], least: int) -> None:
    """Until all hold the same near-duplicates, so many at least."""
    async with asyncio.timeout(20):
        while True:
            await exchanged(proxies)
            threads = [proxy.services.thread for proxy in proxies]
            held = [await thread.run(lambda cache: cache.keys()) for thread in threads if thread is not None]
            if len(held[0]) >= least and len(set(held)) == 1:
                return
            await asyncio.sleep(0.02)


SEMANTIC = {
    "semantic__mode": "serve", "semantic__unproven": True, "semantic__threshold": 0.8,
    "semantic__deadline_ms": 5000, "semantic__audit_daily_usd": 0,
}  # fmt: skip
SHARED: dict[str, Any] = {"store__url": "valkey", "store__deadline_ms": 5000}
WORLDS: dict[str, dict[str, Any]] = {
    "memory and SQLite": {},
    "little memory": {"store__memory_bytes": 0},
    "near-duplicates": SEMANTIC,
    "other gateways' words": {"compat__aliases": list(PRODUCTS), **SEMANTIC},
    "vectors in PostgreSQL": {"semantic__index": "pgvector", "semantic__index_url": "postgres", **SEMANTIC},
    "Valkey": SHARED,
}


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with running_valkey() as url:
        yield url


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres() as server:
        yield server.url


@pytest.mark.parametrize("name", WORLDS)
def test_nobody_sees_anybody_elses_answer(name: str, valkey: str, request: pytest.FixtureRequest) -> None:
    config = {key: valkey if value == "valkey" else value for key, value in WORLDS[name].items()}
    if "semantic__index_url" in config:
        config["semantic__index_url"] = request.getfixturevalue("postgres")
    with World(**config) as world:

        @settings(
            max_examples=20 if "semantic__index_url" in config else 40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(bursts(), st.booleans())
        def checked(rounds: list[list[Sent]], afresh: bool) -> None:
            world.check(rounds, afresh=afresh)

        checked()
        assert world.tiers >= {"miss", "joined", "hit-exact"}
        assert world.run(vectors(world.proxies)) == ["miss", "hit-exact", "miss"]
        if "semantic__mode" in config:  # whether examples come to one hangs on how busy the machine is
            assert world.run(alike(world.proxies)) == ["miss", "miss", "hit-semantic"]


def test_nobody_sees_anybody_elses_answer_at_another_replica(valkey: str) -> None:
    """Two replicas, each with memory and an index of its own, over one server with answers and the replicas' log."""
    with World(2, **{**SHARED, **SEMANTIC, "store__url": valkey}) as world:
        assert all(isinstance(proxy.services.state.store, NearStore) for proxy in world.proxies)

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
        @given(bursts(), st.booleans())
        def checked(rounds: list[list[Sent]], afresh: bool) -> None:
            world.check(rounds, afresh=afresh)

        checked()
        assert world.tiers >= {"miss", "joined", "hit-exact", "hit-semantic"}
        assert world.across > 0
        assert world.run(vectors(world.proxies)) == ["miss", "hit-exact", "miss"]
        assert world.run(shared_by(world.proxies)) == ["miss", "hit-exact", "miss", "hit-semantic"]


async def tended(proxy: Proxied) -> None:
    """Until what was put is where it is looked for, which may be another server."""
    thread = proxy.services.thread
    assert thread is not None
    async with asyncio.timeout(20):
        while await thread.run(lambda cache: cache.restless):
            await asyncio.sleep(0.02)


async def alike(proxies: Sequence[Proxied]) -> list[str]:
    """What is like what was answered is a hit: for whoever asked that, and for nobody else."""
    await emptied(proxies)
    (proxy,) = proxies
    mine, theirs = TENANTS[:2]
    asked, near = ({"model": "m", "messages": [{"role": "user", "content": text}]} for text in TEXTS[:2])
    told = [await ask(proxy, Sent(mine, {}, "chat", asked))]
    await same_indexes(proxies, 1)
    await tended(proxy)
    told += [await ask(proxy, Sent(tenant, {}, "chat", near)) for tenant in (theirs, mine)]
    assert all(named == {asker} for _, asker, named in told)
    return [how for how, _, _ in told]


async def vectors(proxies: Sequence[Proxied]) -> list[str]:
    """Vectors, whose items are stored one by one, are a hit: for whoever asked for them, and for nobody else."""
    proxy = proxies[0]
    await proxy.services.state.store.purge(Selector())
    told = []
    for tenant in (TENANTS[0], TENANTS[0], TENANTS[1]):
        told.append(await ask(proxy, Sent(tenant, {}, "embeddings", {"model": "m", "input": TEXTS})))
        await quiet(proxy)  # how soon they are stored hangs on how busy the machine is
    assert all(named == {asker} for _, asker, named in told)
    return [how for how, _, _ in told]


async def emptied(proxies: Sequence[Proxied]) -> None:
    """Nobody has anything in any tier."""
    for proxy in proxies:
        await proxy.services.state.store.purge(Selector())
        assert proxy.services.thread is not None
        await proxy.services.thread.run(lambda cache: cache.forget_all())
    await same_indexes(proxies, 0)


async def shared_by(proxies: Sequence[Proxied]) -> list[str]:
    """What one replica has answered is there at the other: for whoever asked it, in every tier, and for nobody else."""
    one, other = proxies
    await emptied(proxies)
    mine, theirs = TENANTS[:2]
    asked, alike = ({"model": "m", "messages": [{"role": "user", "content": text}]} for text in TEXTS[:2])
    told = [await ask(one, Sent(mine, {}, "chat", asked))]
    await same_indexes(proxies, 1)
    told.append(await ask(other, Sent(mine, {}, "chat", asked)))
    told += [await ask(other, Sent(tenant, {}, "chat", alike)) for tenant in (theirs, mine)]
    assert all(named == {asker} for _, asker, named in told)
    return [how for how, _, _ in told]


async def test_a_credential_that_connection_keeps_from_the_upstream_still_says_who_asks(tmp_path: Path) -> None:
    """RFC 9110, 7.6.1 has it dropped; what came of it must not become everybody's who shows no credential."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hop by hop"}]}
    async with marking() as url, proxied(url, tmp_path) as proxy:
        hidden = {"Authorization": "Bearer sk-one", "Connection": "keep-alive, authorization"}
        first = await proxy.client.post("/v1/chat/completions", json=body, headers=hidden)
        how, _, named = await ask(proxy, Sent({}, {}, "chat", body))

    assert seen_by("chat", first.content) == named == {owner_of({})}
    assert how == "miss"
