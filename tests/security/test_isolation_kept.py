"""No tenant ever sees what farthing keeps of another: deferred requests, what was left out of prompts, decided forms.

As in test_isolation: random tenants, few differences, one proxy through all examples. What a deferred request's answer
says names who asked; a handle in a prompt names whose text was left out.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from farthing.compress.marker import handles
from tests.fakes.batches import BatchUpstream, Made, listening
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.security.marking import owner_of, seen_by
from tests.security.test_isolation import CONTROLS, TENANTS
from tests.wire.test_retrieval import ON, asked, blob

SLOWLY = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # what one example left is there for the next: no shrinking
)
# Two pairs of one Authorization, which is all that a batch's upstream sees.
DEFERRING = [
    {"Authorization": "Bearer sk-one"},
    {"Authorization": "Bearer sk-two"},
    {"Authorization": "Bearer sk-one", "x-api-key": "sk-two"},
    {"Authorization": "Bearer sk-gateway", "Cookie": "session=1"},
    {"Authorization": "Bearer sk-gateway", "Cookie": "session=2"},
]
HERE = "/farthing/api/deferred"
QUICK: dict[str, Any] = {"upstream__batch": True, "defer__flush_s": 0.02, "defer__poll_s": 0.01, "defer__min_s": 0}
NOTHING = "Nothing is kept under this handle."


class MarkingBatches(BatchUpstream):
    """A batch's answers say whose credential the batch was made with."""

    def __init__(self) -> None:
        super().__init__()
        self.polls = 1

    def _end(self, made: Made, status: str) -> None:
        self._whose = made.owner
        super()._end(made, status)

    def _run(self, line: dict[str, Any]) -> Any:
        answer = super()._run(line)
        answer["choices"][0]["message"]["content"] = f"owner-{_account({'Authorization': self._whose})}"
        return answer


def _account(tenant: dict[str, str]) -> str:
    return owner_of({"Authorization": tenant["Authorization"]})


class Kept:
    """A proxy in a loop of its own, as `World` is."""

    def __init__(self, upstream: AbstractAsyncContextManager[Any], **config: Any) -> None:
        self.runner = asyncio.Runner()
        self._upstream, self._config = upstream, config
        self._stack = AsyncExitStack()

    def __enter__(self) -> Kept:
        self.up, self.proxy = self.runner.run(self._stack.enter_async_context(self._opened()))
        return self

    def __exit__(self, *_: object) -> None:
        self.runner.run(self._stack.aclose())
        self.runner.close()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[Any, Proxied]]:
        with tempfile.TemporaryDirectory() as home:
            async with self._upstream as upstream, proxied(upstream.url, Path(home), **self._config) as proxy:
                yield upstream, proxy

    async def call(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> httpx.Response:
        request = self.proxy.client.build_request(method, path, json=body, headers=headers)
        if "Authorization" not in headers:
            del request.headers["Authorization"]
        return await self.proxy.client.send(request)


controls = st.sampled_from(CONTROLS)
texts = st.sampled_from(["What is the capital of France?", "How do I reset my password?"])
sent = st.tuples(st.sampled_from(DEFERRING), controls, texts)


def test_nobody_sees_or_cancels_anybody_elses_deferred_request() -> None:
    answered: set[tuple[str, str]] = set()  # who has had an answer to what
    owner: dict[str, dict[str, str]] = {}  # whose each deferred request is
    shown: dict[str, dict[str, str]] = {}  # all that it was sent with: some of it may narrow who may ask for it
    seen = {"own": 0, "others": 0, "hits": 0}

    with Kept(listening(MarkingBatches()), **QUICK) as world:

        async def ended(id: str) -> None:
            for _ in range(500):
                told = (await world.call("GET", f"{HERE}/{id}", shown[id])).json()
                if told["status"] in ("completed", "failed", "cancelled"):
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(told)

        async def asks(tenant: dict[str, str], more: dict[str, str], text: str, **defer: str) -> str:
            """Its id, where it was deferred."""
            answer = await world.call("POST", "/v1/chat/completions", {**tenant, **more, **defer}, chat(text))
            if answer.status_code == 202:
                id = answer.json()["id"]
                owner[id], shown[id] = tenant, {**tenant, **more}
                answered.add((owner_of(tenant), text))
                return str(id)
            assert answer.status_code == 200, answer.text
            assert seen_by("chat", answer.content) <= {_account(tenant)}
            if answer.headers["x-farthing-cache"] == "hit-exact":
                assert (owner_of(tenant), text) in answered, "it was told another's answer"
                seen["hits"] += 1
            answered.add((owner_of(tenant), text))
            return ""

        async def looks(id: str, tenant: dict[str, str], more: dict[str, str]) -> None:
            mine = tenant == owner[id]
            for method, path in (
                ("GET", ""),
                ("GET", "/result"),
                *((("POST", "/cancel"), ("DELETE", "")) * (not mine)),
            ):
                told = await world.call(method, f"{HERE}/{id}{path}", {**tenant, **more})
                allowed = {404} if not mine else {200} if {**tenant, **more} == shown[id] else {200, 404}
                assert told.status_code in allowed, (method, path, told.text)
                assert mine or seen_by("chat", told.content) == set()
                if mine and path:
                    assert seen_by("chat", told.content) <= {_account(tenant)}
            listed = (await world.call("GET", HERE, {**tenant, **more})).json()["data"]
            assert {one["id"] for one in listed} <= {one for one, whose in owner.items() if whose == tenant}
            seen["own" if mine else "others"] += 1

        async def lived(deferred: list[Any], looking: list[Any], asking: list[Any]) -> None:
            kept = [id for one in deferred if (id := await asks(*one, **{"x-farthing-defer": "24h"}))]
            for id, (tenant, more) in zip(kept, looking, strict=False):  # while they wait, nobody else ends them
                if tenant != owner[id]:
                    await looks(id, tenant, more)
            for id in kept:
                await ended(id)
            for number, (tenant, more) in enumerate(looking if kept else ()):
                await looks(kept[number % len(kept)], tenant, more)
            for id in kept:
                await looks(id, owner[id], {name: value for name, value in shown[id].items() if name not in owner[id]})
            for one in asking:
                await asks(*one)

        @SLOWLY
        @given(
            st.lists(sent, min_size=1, max_size=4),
            st.lists(st.tuples(st.sampled_from(TENANTS), controls), min_size=2, max_size=4),
            st.lists(sent, min_size=1, max_size=3),
        )
        def checked(deferred: list[Any], looking: list[Any], asking: list[Any]) -> None:
            world.runner.run(lived(deferred, looking, asking))

        checked()
    assert all(seen.values()), seen


def test_nobody_is_sent_or_given_what_was_left_out_of_anothers_prompt() -> None:
    whose: dict[str, str] = {}  # each handle's tenant
    shown: dict[str, dict[str, str]] = {}  # and all that it came with, some of which may narrow who can have it
    given_back = {"own": 0, "others": 0}

    with Kept(scripted(), **ON) as world:
        up: ScriptedUpstream = world.up

        async def post(tenant: dict[str, str], more: dict[str, str], body: dict[str, Any]) -> None:
            answer = await world.call("POST", "/v1/chat/completions", {**tenant, **more}, body)
            assert answer.status_code == 200, answer.text

        async def talks(tenant: dict[str, str], more: dict[str, str], seed: int) -> None:
            """A conversation that others have too, word for word. Were another's decision taken, its handle would be
            sent."""
            up.default = Script(fetches=0)
            for turns in (0, 1):
                await post(tenant, more, asked(seed, turns))
                for handle in handles(up.calls[-1].body.decode()):
                    assert whose.setdefault(handle, owner_of(tenant)) == owner_of(tenant)
                    shown.setdefault(handle, {**tenant, **more})

        async def fetches(tenant: dict[str, str], more: dict[str, str], handle: str, number: int) -> None:
            """The model asks for any handle, in a conversation of this tenant's."""
            up.default = Script(fetches=1, handle=handle)
            await post(tenant, more, asked(1_000 + number))
            last = up.calls[-1].json["messages"][-1]
            if last["role"] != "tool":
                return  # it wasn't offered
            mine = whose[handle] == owner_of(tenant)
            assert last["content"] == NOTHING or (mine and last["content"] in POOL)
            assert last["content"] in POOL or {**tenant, **more} != shown[handle]
            given_back["own" if mine else "others"] += 1

        async def lived(talking: list[Any], fetching: list[Any]) -> None:
            for one in talking:
                await talks(*one)
            known = sorted(whose)
            for number, (tenant, more, at) in enumerate(fetching if known else ()):
                await fetches(tenant, more, known[at % len(known)], number)
            for handle in known[:2]:
                await fetches(shown[handle], {}, handle, 0)
            del up.calls[:-1]

        tenants = st.sampled_from(TENANTS)

        @SLOWLY
        @given(
            st.lists(st.tuples(tenants, controls, st.integers(0, len(POOL) - 1)), min_size=2, max_size=4),
            st.lists(st.tuples(tenants, controls, st.integers(0, 50)), min_size=1, max_size=4),
        )
        def checked(talking: list[Any], fetching: list[Any]) -> None:
            world.runner.run(lived(talking, fetching))

        checked()
        tags = _tags(world.proxy.state_dir / "decided.db"), _tags(world.proxy.state_dir / "removed.db")
    assert all(given_back.values()), given_back
    assert len(set(whose.values())) >= 3 and all(len(found) >= 3 for found in tags)


POOL = [blob(seed) for seed in range(2)]


def _tags(path: Path) -> set[bytes]:
    """The tenants of a file's rows."""
    with closing(sqlite3.connect(path)) as db:
        return {bytes(key[:8]) for (key,) in db.execute("select key from decided")}
