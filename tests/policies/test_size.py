"""How long a request is taken to be, against OpenAI's own tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.routes import facts_of
from farthing.policies.size import Size
from farthing.policies.variant import Needs, Variant, unfit
from farthing.proxy.exchange import Endpoint
from farthing.proxy.tokens import Tokenizer
from tests.fakes.hostile_texts import any_text
from tests.fakes.languages import ARTICLE

HOME = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def size_of(text: str) -> Size:
    size = Size()
    size.text(text)
    return size


def most(size: Size) -> int:
    """The upper estimate: the least window that it is within."""
    low, high = 0, size.bytes + size.flat_most + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size.within(middle) else (middle + 1, high)
    return low


def paragraphs(*folders: str) -> list[str]:
    files = sorted(path for folder in folders for path in (HOME / folder).glob("*.*") if path.suffix in (".py", ".md"))
    texts = [path.read_text()[:40_000] for path in files]
    return [text[at : at + 2000] for text in texts for at in range(0, len(text), 20_000) if len(text) - at > 100]


@pytest.mark.parametrize("language", ARTICLE)
def test_no_language_is_taken_to_be_shorter_than_it_is(language: str, tokenizer: Tokenizer) -> None:
    exact = tokenizer.count(ARTICLE[language], "gpt-4o")
    size = size_of(ARTICLE[language])
    assert exact <= most(size) <= 4 * exact
    assert size.tokens >= 0.75 * exact


def test_prose_code_and_tables_are_seldom_taken_to_be_shorter_than_they_are(tokenizer: Tokenizer) -> None:
    texts = paragraphs("docs", "proxy", "policies", "tests/fakes")
    told = [(most(size_of(text)), tokenizer.count(text, "gpt-4o")) for text in texts]
    assert len(told) > 300
    assert sum(upper >= exact for upper, exact in told) >= 0.99 * len(told)
    assert sorted(upper / exact for upper, exact in told)[len(told) // 2] < 2


def test_twenty_thousand_chinese_characters_do_not_fit_eight_thousand_tokens(tokenizer: Tokenizer) -> None:
    text = (ARTICLE["zh"] * 500)[:20_000]
    needs = facts_of(
        Endpoint.CHAT, {"messages": [{"role": "user", "content": text}]}, (), "", never_chained=False
    ).needs
    assert unfit(Variant("small", "m", context_tokens=8192), needs) == "too long"
    assert unfit(Variant("large", "m", context_tokens=32_768), needs) == ""
    assert needs.tokens_in == pytest.approx(tokenizer.count(text, "gpt-4o"), rel=0.3)


def shown(*parts: dict[str, Any]) -> Needs:
    payload = {"messages": [{"role": "user", "content": list(parts)}]}
    return facts_of(Endpoint.CHAT, payload, (), "", never_chained=False).needs


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
LOW = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
PDF = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 2_796_204}}
SHORT = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 20_000}}
TEXT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abcd" * 100}}
REFERRED = {"type": "file", "file": {"file_id": "f-1"}}
NOTES = {"type": "input_file", "file_data": "data:text/plain;base64," + "A" * 4000}


@pytest.mark.parametrize(
    ("part", "times", "tokens", "fits"),
    [
        (IMAGE, 20, 15_301, 32_100),
        (LOW, 20, 1_701, 2_200),
        (PDF, 1, 63_001, 252_100),
        (SHORT, 1, 1_501, 3_100),
        (TEXT, 1, 101, 140),
        (REFERRED, 1, 15_001, 300_100),
        (NOTES, 1, 755, 3_100),
    ],
)
def test_what_is_no_text_has_its_price(part: dict[str, Any], times: int, tokens: int, fits: int) -> None:
    needs = shown(*[part] * times)
    assert needs.tokens_in == tokens
    assert unfit(Variant("v", "m", context_tokens=fits), needs) == ""
    assert unfit(Variant("v", "m", context_tokens=fits * 3 // 4), needs) == "too long"


def test_an_image_in_a_tools_result_is_no_text() -> None:
    data = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1_000_000}}
    assert shown({"type": "tool_result", "content": [data]}).tokens_in == 766
    output = {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": "A" * 9999}]}]}
    assert facts_of(Endpoint.RESPONSES, output, (), "", never_chained=True).needs.tokens_in == 766


@pytest.mark.parametrize("prompt", [[7] * 300, [[7] * 300]])
def test_a_prompt_in_tokens_is_counted(prompt: Any) -> None:
    needs = facts_of(Endpoint.COMPLETIONS, {"prompt": prompt}, (), "", never_chained=False).needs
    assert needs.tokens_in == 301


@given(st.lists(any_text(), max_size=4), st.integers(0, 4000), st.integers(0, 4000))
def test_a_larger_window_never_holds_less(texts: list[str], one: int, other: int) -> None:
    size, again = Size(), Size()
    for text in texts:
        size.text(text)
        again.text(text)
    small, large = sorted((one, other))
    assert size.within(large) or not size.within(small)
    assert (again.within(small), again.within(large)) == (size.within(small), size.within(large))
    assert size.within(max(size.bytes + size.flat_most, size.tokens * 1.25))
