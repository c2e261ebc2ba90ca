"""Counts against tiktoken as a whole, against figures that OpenAI published, and against what clients may send."""

from __future__ import annotations

import inspect
import json
import lzma
import random
import threading
from base64 import b64decode
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public as official
from hypothesis import given, settings
from hypothesis import strategies as st

import farthing.proxy.tokens as tokens_module
from farthing.proxy.tokens import Tokenizer, encoding_name, pieces
from tests.fakes.examples import examples

ENCODINGS = ("o200k_base", "cl100k_base")
MODEL_OF = {"o200k_base": "gpt-4o", "cl100k_base": "gpt-4"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture(scope="module")
def whole() -> Callable[[str, str], int]:
    """Counts of whole texts by tiktoken's own definition of an encoding, with the ranks from our package."""
    known: dict[str, tiktoken.Encoding] = {}

    def load(url: str, expected_hash: str) -> dict[bytes, int]:
        name = url.rpartition("/")[2]
        ranks = lzma.decompress((files("farthing.proxy") / "ranks" / f"{name}.xz").read_bytes())
        assert sha256(ranks).hexdigest() == expected_hash
        return {b64decode(token): int(rank) for token, rank in (line.split() for line in ranks.splitlines())}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(official, "load_tiktoken_bpe", load)
        for name in ENCODINGS:
            known[name] = tiktoken.Encoding(**getattr(official, name)())
    return lambda text, name: len(known[name].encode_ordinary(text))


WORDS = [
    "the", "naïve", "proxy's", "cache", "don't", "I'LL", "re-use", "12345", "3.14", "{}[]();:,./\\\"'`<>=!?",
    "\n\n\r\n\t", "", "汉字", "漢字、", "кэш", "😀👩\u200d👩\u200d👧", "e\u0301", "﷽", "'", "s", "汉，字",
]  # fmt: skip


def babble(seed: int, n_chars: int) -> str:
    dice = random.Random(seed)
    parts: list[str] = []
    length = 0
    while length < n_chars:
        word = dice.choice(WORDS) + dice.choice(["", " ", " ", " ", "  ", "\n", "\n\n  ", "\t"])
        parts.append(word)
        length += len(word)
    return "".join(parts)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("seed", range(6))
def test_a_long_text_in_pieces_counts_like_the_whole(
    tokenizer: Tokenizer, whole: Callable[[str, str], int], name: str, seed: int
) -> None:
    text = babble(seed, 60_000)

    assert tokenizer.count(text, MODEL_OF[name]) == whole(text, name)


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=examples(150), deadline=None)
@given(
    parts=st.lists(
        st.one_of(st.sampled_from(WORDS), st.text(max_size=6), st.sampled_from([" ", "\n", " \n ", "'s", "/", "a b"])),
        max_size=40,
    ),
    size=st.integers(8, 40),
)
def test_every_cutting_place_is_exact(whole: Callable[[str, str], int], name: str, parts: list[str], size: int) -> None:
    """Cut wherever the rule allows, at once: the counts add up."""
    text = "".join(parts)
    cuts = [found.end() for found in tokens_module._CUT.finditer(text)]
    cut = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert "".join(cut) == text
    assert sum(whole(piece, name) for piece in cut) == whole(text, name)
    assert "".join(pieces(text, size)) == text
    assert all(len(piece) <= size for piece in pieces(text, size))


@pytest.mark.parametrize(
    ("text", "most_off"),
    [
        (json.dumps([{"id": n, "name": f"n{n}", "tags": ["a", "b"]} for n in range(3000)], separators=(",", ":")), 0),
        ("".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789+/", k=80_000)), 12),
        ("".join(random.Random(2).choices("的一是不了人我在有他这为之大来以个中上们", k=40_000)), 6),
        (" " * 50_000, 12),
        ("a" * 50_000, 6),
        ("\n" * 50_000, 12),
        ("e\u0301" * 30_000, 12),
    ],
    ids=["json", "base64", "chinese", "spaces", "one-letter", "newlines", "combining"],
)
@pytest.mark.parametrize("name", ENCODINGS)
def test_texts_without_words_count_nearly_as_the_whole(
    tokenizer: Tokenizer, whole: Callable[[str, str], int], name: str, text: str, most_off: int
) -> None:
    """A run without a cutting place is cut every 8192 characters, at a token or so a cut."""
    assert abs(tokenizer.count(text, MODEL_OF[name]) - whole(text, name)) <= most_off


def test_special_tokens_and_broken_text_are_text(tokenizer: Tokenizer, whole: Callable[[str, str], int]) -> None:
    for text in ("<|endoftext|>", "a <|im_start|>system<|im_end|>" * 20, "lone \ud800 surrogate", "\ud83d" * 100, "\0"):
        assert tokenizer.count(text) == whole(text, "o200k_base") > 0
    assert tokenizer.count("") == 0


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-4.5-preview", "o200k_base"),
        ("gpt-5", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("claude-opus-5", "o200k_base"),
        ("", "o200k_base"),
        ("openai/gpt-4o", "o200k_base"),
        ("ft:gpt-4o:us", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("openai/gpt-4", "cl100k_base"),
        ("ft:gpt-4:us::x", "cl100k_base"),
        ("gpt-3.5-turbo-0125", "cl100k_base"),
        ("ft:gpt-3.5-turbo:us", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("text-embedding-ada-002", "cl100k_base"),
        ("davinci-002", "cl100k_base"),
    ],
)
def test_models_have_the_encoding_that_tiktoken_gives_them(model: str, name: str) -> None:
    assert encoding_name(model) == name
    try:
        theirs = tiktoken.model.encoding_name_for_model(model)
    except KeyError:
        return
    assert theirs == name


JARGON = [
    ("system", "", "You are a helpful, pattern-following assistant that translates corporate jargon into plain "
     "English."),
    ("system", "example_user", "New synergies will help drive top-line growth."),
    ("system", "example_assistant", "Things working well together will increase revenue."),
    ("system", "example_user", "Let's circle back when we have more bandwidth to touch base on opportunities for "
     "increased leverage."),
    ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
    ("user", "", "This late pivot means we don't have time to boil the ocean for the client deliverable."),
]  # fmt: skip
WEATHER = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
        {"role": "user", "content": "What's the weather like in San Francisco?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_current_weather",
                "description": "Get the current weather in a given location",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                        "unit": {
                            "type": "string",
                            "description": "The unit of temperature to return",
                            "enum": ["celsius", "fahrenheit"],
                        },
                    },
                    "required": ["location"],
                },
            },
        }
    ],
}


@pytest.mark.parametrize(
    ("model", "jargon", "weather"),
    [("gpt-4", 129, 105), ("gpt-3.5-turbo", 129, 105), ("gpt-4o", 124, 101), ("gpt-4o-mini", 124, 101)],
)
def test_chats_count_what_openais_cookbook_says_that_the_api_counted(
    tokenizer: Tokenizer, model: str, jargon: int, weather: int
) -> None:
    """OpenAI cookbook, "How to count tokens with tiktoken", sections 6 and 7: prompt_tokens from the API."""
    messages = [{"role": role, "content": text} | ({"name": name} if name else {}) for role, name, text in JARGON]

    assert tokenizer.count_request("chat", {"messages": messages}, model) == jargon
    assert tokenizer.count_request("chat", WEATHER, model) == weather


def test_the_same_question_in_each_shape(tokenizer: Tokenizer) -> None:
    system, text = "Be terse, and answer in one word wherever that is possible.", "Which is the longest river on earth?"
    a, b = tokenizer.count(system), tokenizer.count(text)
    framed = a + b + 4 + 4 + 3
    parts = [{"type": "text", "text": text}]
    chat = {"messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]}
    in_parts = {"messages": [{"role": "system", "content": system}, {"role": "user", "content": parts}]}
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}

    def count(endpoint: str, payload: dict[str, Any]) -> int:
        return tokenizer.count_request(endpoint, payload, "gpt-4o")

    assert count("chat", chat) == count("chat", in_parts) == framed
    assert count("responses", {"instructions": system, "input": text}) == framed
    assert count("responses", {"instructions": system, "input": [item]}) == framed
    assert count("messages", {"system": system, "messages": [{"role": "user", "content": text}]}) == a + b + 4 + 3
    assert count("messages", {"system": parts, "messages": []}) == b + 3
    assert count("completions", {"prompt": text}) == count("completions", {"prompt": [text]}) == b
    assert count("embeddings", {"input": [text, system]}) == a + b
    assert count("embeddings", {"input": [1, 2, 3]}) == count("embeddings", {"input": [[1], [2, 3]]}) == 3
    assert count("other", chat) == 0


def test_calls_results_and_pictures_count(tokenizer: Tokenizer) -> None:
    result = "Paris, Texas has 24,171 inhabitants; Paris in France has 2,102,650." * 3
    arguments = '{"city": "Paris", "unit": "people"}'

    def count(endpoint: str, turns: list[dict[str, Any]]) -> int:
        payload = {"input" if endpoint == "responses" else "messages": turns}
        return tokenizer.count_request(endpoint, payload, "gpt-4o") - tokenizer.count_request(endpoint, {}, "gpt-4o")

    least = tokenizer.count(result) + tokenizer.count(arguments)
    call = {"id": "c1", "type": "function", "function": {"name": "size", "arguments": arguments}}
    asked = [
        count("chat", [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": result},
        ]),
        count("responses", [
            {"type": "function_call", "call_id": "c1", "name": "size", "arguments": arguments},
            {"type": "function_call_output", "call_id": "c1", "output": result},
        ]),
        count("messages", [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "size",
                                               "input": {"city": "Paris", "unit": "people"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1",
                                          "content": [{"type": "text", "text": result}]}]},
        ]),
    ]  # fmt: skip
    assert all(least - 4 <= each <= least + 16 for each in asked)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
    assert 765 < count("chat", [{"role": "user", "content": [picture]}]) < 780


NAMES = [
    "messages", "role", "content", "tool_calls", "function", "name", "parameters", "properties", "items", "type",
    "text", "input", "tools", "output", "arguments", "description", "enum", "anyOf", "image_url", "choices", "delta",
    "message",
]  # fmt: skip
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)
TOPS = ["messages", "input", "system", "tools", "functions", "prompt", "instructions", "response_format", "choices"]


@settings(max_examples=examples(120), deadline=None)
@given(
    endpoint=st.sampled_from(["chat", "responses", "messages", "embeddings", "completions", "other"]),
    payload=st.dictionaries(st.sampled_from([*TOPS, "output", "content", "type"]), any_json),
)
def test_nothing_that_a_client_or_an_upstream_sends_raises(
    tokenizer: Tokenizer, endpoint: str, payload: dict[str, Any]
) -> None:
    assert tokenizer.count_request(endpoint, payload, "gpt-4o") >= 0
    assert tokenizer.count_text_out(endpoint, json.dumps(payload).encode("utf-8", "replace")) >= 0


def test_deep_payloads_end(tokenizer: Tokenizer) -> None:
    content: Any = "deep"
    schema: Any = {"type": "string"}
    for _ in range(900):
        content = [{"type": "tool_result", "content": content}]
        schema = {"properties": {"p": schema}}
    payload = {"messages": [{"role": "user", "content": content}], "tools": [{"name": "t", "input_schema": schema}]}

    assert 0 < tokenizer.count_request("messages", payload, "gpt-4o") < 1000


# -- answers

SAID = "The longest river is the Nile, though some say that it is the Amazon; it depends on where one begins."


def sse(*events: dict[str, Any]) -> bytes:
    return (
        b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    )


def halves(text: str) -> list[str]:
    return [text[i : i + 3] for i in range(0, len(text), 3)]


ANSWERS: dict[str, tuple[str, bytes]] = {
    "chat": ("chat", json.dumps({"choices": [{"index": 0, "message": {"content": SAID}}]}).encode()),
    "chat stream": (
        "chat",
        sse({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
            *({"choices": [{"index": 0, "delta": {"content": part}}]} for part in halves(SAID)),
            {"choices": []}),
    ),
    "completion": ("completions", json.dumps({"choices": [{"index": 0, "text": SAID}]}).encode()),
    "completion stream": ("completions", sse(*({"choices": [{"index": 0, "text": part}]} for part in halves(SAID)))),
    "response": (
        "responses",
        json.dumps({"object": "response", "output": [
            {"type": "message", "content": [{"type": "output_text", "text": SAID}]}]}).encode(),
    ),
    "response stream": (
        "responses",
        sse({"type": "response.created", "response": {}},
            *({"type": "response.output_text.delta", "output_index": 0, "delta": part} for part in halves(SAID)),
            {"type": "response.output_text.done", "text": SAID},
            {"type": "response.completed", "response": {"output": [{"content": [{"text": SAID}]}]}}),
    ),
    "messages": ("messages", json.dumps({"type": "message", "content": [{"type": "text", "text": SAID}]}).encode()),
    "messages stream": (
        "messages",
        sse({"type": "message_start", "message": {"content": []}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}
              for part in halves(SAID)),
            {"type": "content_block_stop", "index": 0}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", ANSWERS)
def test_an_answer_counts_its_text_once_in_every_shape(tokenizer: Tokenizer, shape: str) -> None:
    endpoint, answer = ANSWERS[shape]

    assert tokenizer.count_text_out(endpoint, answer, "gpt-4o") == tokenizer.count(SAID, "gpt-4o")


@pytest.mark.parametrize("shape", [name for name in ANSWERS if "stream" in name])
def test_a_stream_that_broke_off_counts_as_far_as_it_came(tokenizer: Tokenizer, shape: str) -> None:
    endpoint, answer = ANSWERS[shape]
    counts = [tokenizer.count_text_out(endpoint, answer[:n]) for n in range(0, len(answer) * 3 // 4, 97)]

    assert counts[0] == 0
    assert all(later >= earlier - 1 for earlier, later in pairwise(counts))
    assert 0 < counts[-1] < tokenizer.count(SAID)


def test_calls_count_as_output_and_vectors_do_not(tokenizer: Tokenizer) -> None:
    arguments = '{"city": "Paris"}'
    whole_call = {"choices": [{"message": {"content": None, "tool_calls": [
        {"index": 0, "function": {"name": "size", "arguments": arguments}}]}}]}  # fmt: skip
    events = [{"index": 0, "function": {"name": "size", "arguments": ""}}]
    events += [{"index": 0, "function": {"arguments": part}} for part in halves(arguments)]
    streamed = sse(*({"choices": [{"index": 0, "delta": {"tool_calls": [event]}}]} for event in events))
    expected = tokenizer.count("size") + tokenizer.count(arguments)

    assert tokenizer.count_text_out("chat", json.dumps(whole_call).encode()) == expected
    assert tokenizer.count_text_out("chat", streamed) == expected
    assert tokenizer.count_text_out("chat", SAID) == tokenizer.count(SAID)
    vectors = json.dumps({"data": [{"embedding": [0.1, 0.2]}, {"embedding": "c29tZSBieXRlcw=="}]}).encode()
    assert tokenizer.count_text_out("embeddings", vectors) == 0


# -- the memory


def test_a_growing_conversation_is_counted_once() -> None:
    calls: list[str] = []

    class Counting(Tokenizer):
        def _encoding(self, name: str) -> Any:
            class Watched:
                def encode_ordinary(self, text: str) -> list[int]:
                    calls.append(text)
                    return [0] * len(text.split())

            return Watched()

    tokenizer = Counting()
    turns: list[dict[str, str]] = []
    for n in range(10):
        turns.append({"role": "user", "content": f"turn number {n} " * 100})
        tokenizer.count_request("chat", {"messages": turns}, "gpt-4o")

    long = [text for text in calls if len(text) > 100]
    assert len(long) == len(set(long)) == 10


def test_no_tenant_is_spared_the_counting_of_what_another_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer()
    anew: list[str] = []
    count_anew = Tokenizer._anew
    monkeypatch.setattr(Tokenizer, "_anew", lambda self, text, name: anew.append(text) or count_anew(self, text, name))
    text = "turn number one " * 100
    asked = {"messages": [{"role": "user", "content": text}]}

    counts = [tokenizer.of(tenant).count(text) for tenant in ("one", "other", "one", "on", "")]
    assert (len(set(counts)), anew.count(text)) == (1, 4)
    tokenizer.of("other").count_request("chat", asked, "")
    tokenizer.count(text)
    assert anew.count(text) == 4
    assert [tokenizer.of(None).count(text) for _ in range(2)] == counts[:2]
    assert (anew.count(text), len(tokenizer._counts)) == (6, 4)


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    tokenizer = Tokenizer(cache_bytes=192 * 50)
    texts = [f"text number {n}, long enough that it is remembered" for n in range(200)]
    counts = [tokenizer.count(text) for text in texts]

    assert len(tokenizer._counts) == 50
    assert [tokenizer.count(text) for text in texts] == counts
    assert tokenizer.count(texts[-1], "gpt-4") == Tokenizer().count(texts[-1], "gpt-4")


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tokenizer loads its ranks itself."""
    monkeypatch.setattr(tokens_module, "_load", inspect.unwrap(tokens_module._load))


@pytest.mark.usefixtures("loading")
def test_threads_may_share_it() -> None:
    tokenizer = Tokenizer(cache_bytes=192 * 20)
    texts = [babble(seed, 300) for seed in range(40)]
    expected = [Tokenizer.count(tokenizer, text) for text in texts]
    fresh = Tokenizer(cache_bytes=192 * 20)
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append([fresh.count(text) for text in texts])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [expected] * 8


@pytest.mark.usefixtures("loading")
def test_damaged_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lzma.decompress
    monkeypatch.setattr(lzma, "decompress", lambda packed: real(packed)[:-1] + b"7")

    with pytest.raises(RuntimeError, match="damaged"):
        Tokenizer().count("hello")
