"""The simulated upstream, driven by the official client."""

from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessageParam

from farthing.proxy.simulated import MODEL, Pace, answer, application, chosen, embed, tokens
from tests.fakes.examples import examples

ASK: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is my card?"},
]


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    server = TestServer(application(Pace(prefill_ms=0, token_ms=0)), host="127.0.0.1")
    await server.start_server()
    yield str(server.make_url("/v1"))
    await server.close()


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


async def test_whole_answers_are_labelled_and_repeat(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="any", messages=ASK, max_tokens=64)
    first = raw.parse()
    again = await client.chat.completions.create(model="any", messages=ASK, max_tokens=64)
    assert raw.headers["x-simulated"] == "1"
    assert first.model == MODEL
    assert first.choices[0].message.content is not None
    assert first.choices[0].message.content.startswith("[simulated]")
    assert first == again
    other = await client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hello"}])
    assert other.choices[0].message.content != first.choices[0].message.content


async def test_a_stream_says_the_same_as_the_whole(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="any", messages=ASK, max_tokens=64)
    stream = await client.chat.completions.create(
        model="any", messages=ASK, max_tokens=64, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_usage_is_streamed_only_when_asked_for(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="any", messages=ASK, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_max_tokens_cuts_the_answer_and_says_so(client: openai.AsyncOpenAI) -> None:
    cut = await client.chat.completions.create(model="any", messages=ASK, max_tokens=5)
    assert cut.usage is not None
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (5, "length")
    assert cut.usage.prompt_tokens == len(["Be", "brief", ".", "Where", "is", "my", "card", "?"])


async def test_embeddings_agree_in_both_encodings(client: openai.AsyncOpenAI) -> None:
    packed = await client.embeddings.create(
        model="any", input=["my card", "my lost card"]
    )  # the client asks for base64
    plain = await client.embeddings.create(model="any", input="my card", encoding_format="float", dimensions=64)
    assert [row.index for row in packed.data] == [0, 1]
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert packed.usage.prompt_tokens == 5


async def test_models_and_health(client: openai.AsyncOpenAI, base_url: str) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    async with httpx.AsyncClient() as http:
        answered = await http.get(base_url.removesuffix("/v1") + "/health")
    assert (answered.status_code, answered.json()["simulated"]) == (200, True)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"messages": "hello"}', "messages"),
        (b'{"messages": [], "max_tokens": -1}', "max_tokens"),
    ],
)
async def test_a_bad_request_gets_the_openai_error_shape(base_url: str, body: bytes, param: str | None) -> None:
    async with httpx.AsyncClient() as http:
        answered = await http.post(base_url + "/chat/completions", content=body)
    assert answered.status_code == 400
    assert answered.json()["error"]["param"] == param


@settings(max_examples=examples(100), deadline=None)
@given(text=st.text(max_size=200), limit=st.integers(1, 80))
def test_an_answer_keeps_its_limit_and_its_label(text: str, limit: int) -> None:
    cut, ended = answer([{"role": "user", "content": text}], limit)
    full, _ = answer([{"role": "user", "content": text}], 10_000)
    assert 1 <= len(cut) <= limit
    assert ended == (cut == full)
    assert "".join(full).startswith("[simulated]")


@settings(max_examples=examples(100), deadline=None)
@given(text=st.text(max_size=100))
def test_tokens_lose_nothing_but_the_last_white_space(text: str) -> None:
    assert "".join(tokens(text)) == text.rstrip()


@settings(max_examples=examples(50), deadline=None)
@given(text=st.text(max_size=60), dimensions=st.integers(1, 256))
def test_embeddings_are_unit_vectors(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert sum(x * x for x in vector) == pytest.approx(1.0)


def test_a_grammar_of_words_gets_one_of_them() -> None:
    assert chosen('root ::= "yes" | "no"', "anything") == "no"
    three = 'root ::= "a" | "b" | "c"'
    assert {chosen(three, str(number)) for number in range(40)} == {"a", "b", "c"}
    assert chosen(three, "x") == chosen(three, "x")
    for other in (None, 7, "", "root ::= [a-z]+", 'root ::= "a" | b', 'x ::= "a"'):
        assert chosen(other, "x") is None


async def test_a_confined_answer_is_whole_and_labelled(client: openai.AsyncOpenAI) -> None:
    body = {"grammar": 'root ::= "yes" | "no"'}
    raw = await client.chat.completions.with_raw_response.create(model="any", messages=ASK, extra_body=body)
    choice = raw.parse().choices[0]
    assert (choice.message.content, choice.finish_reason, raw.headers["x-simulated"]) == ("no", "stop", "1")
