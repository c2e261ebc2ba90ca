"""The token-level stage: protected spans survive byte for byte, with the real package and a tiny random model."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.protected import protected
from farthing.compress.token_level import TokenLevel, TokenLevelMissing, without
from tests.fakes.broken_texts import hostile_texts

TEXT = (
    'The report says that "prices rose by 12 %" in node-29 at https://a.example/b?c=d while the committee was still'
    " meeting in the old house by the river, and ord_8f3a2c91 was shipped. "
) * 20


@given(hostile_texts(), st.lists(st.integers(0, 400), max_size=12))
def test_protected_spans_survive_any_choice(text: str, places: list[int]) -> None:
    ends = sorted({place for place in places if place <= len(text)})
    dropped = list(zip(ends[::2], ends[1::2], strict=False))
    safe = [(span.start, span.end) for span in protected(text)]

    short = without(text, safe, dropped)

    at = 0
    for start, end in safe:
        at = short.index(text[start:end], at) + end - start
    rest = iter(text)
    assert all(char in rest for char in short)


@pytest.mark.parametrize(
    "dropped, left",
    [
        ([], "one two 33 four"),
        ([(4, 7)], "one 33 four"),
        ([(0, 3), (11, 15)], " two 33"),
        ([(4, 10)], "one two 33 four"),
    ],
)
def test_words_go_with_the_space_before_them(dropped: list[tuple[int, int]], left: str) -> None:
    assert without("one two 33 four", [(8, 10)], dropped) == left


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(TokenLevelMissing, match="name must contain"):
        TokenLevel(tmp_path / "model", len)
    with pytest.raises(TokenLevelMissing, match="never downloaded"):
        TokenLevel(tmp_path / "xlm-roberta-large", len)


@pytest.mark.skipif(importlib.util.find_spec("llmlingua") is not None, reason="the extra llmlingua is installed")
def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "xlm-roberta-large").mkdir()
    (tmp_path / "xlm-roberta-large" / "config.json").write_text("{}")

    with pytest.raises(TokenLevelMissing, match=re.escape("farthing[llmlingua]")):
        TokenLevel(tmp_path / "xlm-roberta-large", len)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TokenLevel:
    """A model of the real architecture with random weights, read by the real package."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("models") / "bert-base-multilingual-cased-tiny"
    folder.mkdir()
    words = sorted({*re.findall(r"\w+|[^\w\s]", TEXT)})
    characters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [*"0123456789"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *(f"##{char}" for char in characters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=2,
    )
    BertForTokenClassification(config).save_pretrained(folder)
    return TokenLevel(folder, lambda text: -(-len(text) // 4))


@pytest.mark.torch
@pytest.mark.skipif(importlib.util.find_spec("llmlingua") is None, reason="the extra llmlingua is absent")
@pytest.mark.filterwarnings("default")  # what torch and transformers warn of is not ours
class TestTheRealPackage:
    @pytest.mark.parametrize("rate", [0.9, 0.7, 0.5])
    def test_it_leaves_words_out_and_protected_spans_in(self, tiny: TokenLevel, rate: float) -> None:
        short = tiny.shorten(TEXT, rate)

        assert rate - 0.1 < len(short) / len(TEXT) < rate + 0.1
        for piece in ('"prices rose by 12 %"', "node-29", "https://a.example/b?c=d", "ord_8f3a2c91"):
            assert short.count(piece) == 20

    def test_nothing_is_asked_of_the_model_below_what_is_protected(self, tiny: TokenLevel) -> None:
        assert tiny.shorten(TEXT, 0.1) == TEXT
        assert tiny.shorten("", 0.5) == ""

    def test_words_that_the_tokenizer_does_not_know_stay(self, tiny: TokenLevel) -> None:
        assert "東京" in tiny.shorten(TEXT + "東京 " + TEXT, 0.6)

    def test_a_broken_model_is_said(self, tmp_path: Path) -> None:
        folder = tmp_path / "xlm-roberta-large"
        folder.mkdir()
        (folder / "config.json").write_text("{}")

        with pytest.raises(TokenLevelMissing, match="xlm-roberta-large"):
            TokenLevel(folder, len)
