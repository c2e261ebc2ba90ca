"""What farthing relies on of a batch API, over real servers of each kind: OpenAI's, Azure's, Anthropic's, Gemini's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from farthing.proxy import batch_anthropic, batch_openai
from farthing.proxy.batch_api import Ask, BatchApi, Job, Refused, Unclear
from farthing.proxy.batch_ways import Kind, Target, kind_of
from farthing.proxy.clock import SystemClock, SystemRandomness
from farthing.proxy.config import Upstream
from farthing.proxy.config_defer import Defer
from farthing.proxy.exchange import Endpoint
from farthing.proxy.pool_open import open_pool
from farthing.proxy.tasks import TaskGroup
from tests.fakes.batches import AzureBatchUpstream, BatchUpstream, listening
from tests.fakes.gemini_batches import GeminiBatchUpstream
from tests.fakes.message_batches import MessageBatchUpstream


@dataclass
class There:
    """One kind of upstream, and its API as farthing knows it."""

    up: BatchUpstream
    target: Target
    kind: Kind

    def api(self, key: str = "sk-one") -> BatchApi:
        headers = {"x-api-key": key} if self.kind == "anthropic" else {"Authorization": f"Bearer {key}"}
        account = self.target.account(CIMultiDict(headers), b"secret")
        assert account is not None
        return self.target.api(self.kind, account[1], SystemClock(), SystemRandomness())

    def asks(self, *texts: str) -> list[Ask]:
        path = "/v1/messages" if self.kind == "anthropic" else "/v1/chat/completions"
        body = b'{"model":"m","max_tokens":20,"messages":[{"role":"user","content":"%s"}]}'
        return [Ask(f"id-{number}", path, body % text.encode()) for number, text in enumerate(texts)]


@pytest.fixture(params=["openai", "azure", "anthropic", "gemini"])
async def there(request: pytest.FixtureRequest) -> AsyncIterator[There]:
    kind: str = request.param
    fakes = {"azure": AzureBatchUpstream, "anthropic": MessageBatchUpstream, "gemini": GeminiBatchUpstream}
    fake = fakes.get(kind, BatchUpstream)()
    tasks = TaskGroup()
    async with listening(fake) as up:
        own = {"openai": {}, "azure": {"style": "azure", "api_version": "2024-10-21"}}.get(kind, {"style": kind})
        upstream = Upstream.model_validate({"url": up.url, "batch": True} | own)
        pool = open_pool(upstream, spawn=tasks.spawn, clock=SystemClock(), randomness=SystemRandomness(), old=None)
        found = kind_of(upstream, Endpoint.CHAT)
        assert found is not None
        yield There(up, Target(upstream, pool, Defer()), found)
        pool.close()
        await tasks.drain(1)


async def created(api: BatchApi, asks: list[Ask], mark: str) -> Job:
    """Made, once the provider has read its file."""
    for _ in range(5):
        try:
            return await api.create(mark, "fb-1", asks)
        except Refused as refused:
            assert not refused.lasting
    raise AssertionError("it never takes the file")


async def ended(api: BatchApi, id: str) -> Job:
    for _ in range(10):
        if (job := await api.get(id)).ended:
            return job
    raise AssertionError("it never ends")


async def test_from_the_first_request_to_nothing_left(there: There) -> None:
    api, asks = there.api(), there.asks("one", "two", "three")
    mark = await api.prepare("fb-1", asks)
    job = await created(api, asks, mark)
    assert mark and job.id and not job.ended
    assert not (await api.get(job.id)).ended
    job = await ended(api, job.id)
    lines = {line.id: line for line in await api.answers(job)}

    assert job.ended == "completed"
    assert {id: line.status for id, line in lines.items()} == {"id-0": 200, "id-1": 200, "id-2": 200}
    assert all(text in lines[f"id-{n}"].body.decode() for n, text in enumerate(("one", "two", "three")))
    await api.clear(mark, job)
    assert [name for name in there.up.files if there.kind != "gemini" or name == mark] == []


async def test_what_was_only_prepared_is_removed_too(there: There) -> None:
    api = there.api()
    await api.clear(await api.prepare("fb-1", there.asks("one")), None)

    assert there.up.files == {}


async def test_what_was_made_is_found_again_and_what_was_not_is_not(there: There) -> None:
    api, asks = there.api(), there.asks("one", "two")
    ids = {ask.id for ask in asks}
    mark = await api.prepare("fb-1", asks)
    assert await api.made(mark, "fb-1", ids) is None
    job = await created(api, asks, mark)
    try:
        found = await api.made(mark, "fb-1", ids)
    except Unclear:
        assert there.kind == "anthropic"  # whose it is stands in its results
        await ended(api, job.id)
        found = await api.made(mark, "fb-1", ids)
    assert found is not None and found.id == job.id
    await ended(api, job.id)
    assert await api.made(await api.prepare("fb-2", asks), "fb-2", {"other"}) is None


@pytest.mark.parametrize("there", ["gemini"], indirect=True)
async def test_whose_a_batch_is_stays_unclear_where_it_is_listed_without_its_file(there: There) -> None:
    assert isinstance(there.up, GeminiBatchUpstream)
    there.up.lists_files = False
    api, asks = there.api(), there.asks("one")
    mark = await api.prepare("fb-1", asks)
    assert await api.made(mark, "fb-1", {"id-0"}) is None
    await created(api, asks, mark)
    with pytest.raises(Unclear):
        await api.made(mark, "fb-1", {"id-0"})


async def test_broken_off_keeps_what_is_done(there: There) -> None:
    there.up.answers_before_end, there.up.polls = 1, 10**6
    api, asks = there.api(), there.asks("one", "two")
    job = await created(api, asks, await api.prepare("fb-1", asks))
    await api.cancel(job.id)
    job = await ended(api, job.id)

    assert job.ended == "cancelled"
    assert sorted(line.status for line in await api.answers(job)) == [0, 200]


async def test_expired_says_so(there: There) -> None:
    there.up.answers_before_end, there.up.ends = 1, "expired"
    api, asks = there.api(), there.asks("one", "two")
    job = await ended(api, (await created(api, asks, await api.prepare("fb-1", asks))).id)

    assert job.ended == "expired"
    assert sorted(line.status for line in await api.answers(job)) == [0, 200]


async def test_an_error_has_the_status_that_it_would_have_had_at_once(there: There) -> None:
    there.up.statuses = {"bad": 400, "busy": 429}
    api, asks = there.api(), there.asks("good", "bad", "busy")
    job = await ended(api, (await created(api, asks, await api.prepare("fb-1", asks))).id)
    lines = {line.id: line for line in await api.answers(job)}

    assert {id: line.status for id, line in lines.items()} == {"id-0": 200, "id-1": 400, "id-2": 429}
    assert b"scripted 400" in lines["id-1"].body and b'"error"' in lines["id-1"].body


@pytest.mark.parametrize(("status", "lasting"), [(404, True), (400, True), (429, False), (503, False)])
async def test_a_refusal_lasts_or_it_does_not(there: There, status: int, lasting: bool) -> None:
    there.up.refuses = status
    with pytest.raises(Refused) as refused:
        await there.api().get("b")
    assert (refused.value.status, refused.value.lasting) == (status, lasting)


async def test_anothers_is_not_there(there: There) -> None:
    api, asks = there.api(), there.asks("one")
    job = await created(api, asks, await api.prepare("fb-1", asks))
    with pytest.raises(Refused) as refused:
        await there.api("sk-two").get(job.id)
    assert refused.value.status == 404


@given(st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)), max_size=5))
def test_whatever_stands_in_a_file_lines_come_out(lines: list[bytes]) -> None:
    raw = b"\n".join(lines)
    assert batch_openai.lines_in(raw) == [] or b"custom_id" in raw
    assert batch_anthropic.lines_in(raw) == [] or b"custom_id" in raw


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 500) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "message", "error", "status_code", "body", "code"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(JSON, JSON, JSON)
def test_whatever_a_line_says_it_is_one_line(response: object, error: object, result: object) -> None:
    raw = orjson.dumps({"custom_id": "id", "response": response, "error": error, "result": result})
    for lines in (batch_openai.lines_in(raw), batch_anthropic.lines_in(raw)):
        assert [line.id for line in lines] == ["id"]
        assert lines[0].status == 0 or orjson.loads(lines[0].body) is not ...
