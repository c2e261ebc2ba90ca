"""The second stage: a tiny cross-encoder, built here, in the place of a real one. Run by `make test-torch`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from farthing.cache.second_opinion import CrossEncoderOpinion, OpinionUnavailable, combined

HERE = importlib.util.find_spec("sentence_transformers") is not None
torch_only = [
    pytest.mark.torch,
    pytest.mark.skipif(not HERE, reason="the extra sentence-transformers is absent"),
    # What torch and transformers warn of is not ours.
    pytest.mark.filterwarnings("default"),
]


@pytest.mark.parametrize(("first", "second", "expected"), [(0.9, 0.2, 0.2), (0.3, 0.99, 0.3), (0.9, float("nan"), 0.0)])
def test_it_may_only_lower_the_score(first: float, second: float, expected: float) -> None:
    assert combined(first, second) == expected


@pytest.mark.skipif(HERE, reason="the extra sentence-transformers is installed")
def test_without_the_extra_it_says_what_to_install() -> None:
    with pytest.raises(OpinionUnavailable, match="pip install"):
        CrossEncoderOpinion("any")


def tiny(folder: Path, labels: int = 1) -> str:
    """A BERT of one layer with random weights and a vocabulary of a few words, saved as a model folder."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "how",
        "do",
        "i",
        "reset",
        "my",
        "password",
        "card",
        "close",
        "the",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
        num_labels=labels,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=40).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"] == len(words)
    return str(folder)


class TestCrossEncoder:
    pytestmark = torch_only

    def test_it_scores_symmetrically_within_0_and_1(self, tmp_path: Path) -> None:
        opinion = CrossEncoderOpinion(tiny(tmp_path / "m"))

        (there,) = opinion.scores("how do i reset my password", ["close the card"])
        (back,) = opinion.scores("close the card", ["how do i reset my password"])

        assert 0.0 < there < 1.0
        assert there == pytest.approx(back, abs=1e-5)
        assert opinion.name.startswith("cross-encoder:")

    def test_beyond_the_window_it_does_not_tell(self, tmp_path: Path) -> None:
        opinion = CrossEncoderOpinion(tiny(tmp_path / "m"))

        far, near = opinion.scores("reset my card", ["password " * 60, "reset my card"])

        assert far == 0.0
        assert near > 0.0
        assert opinion.scores("reset", []) == []

    def test_bad_input(self, tmp_path: Path) -> None:
        opinion = CrossEncoderOpinion(tiny(tmp_path / "m"))

        assert all(0.0 <= score <= 1.0 for score in opinion.scores("\ud800", ["", "\x00", "🙂"]))

    def test_a_model_with_other_outputs_or_none_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OpinionUnavailable, match="3 outputs"):
            CrossEncoderOpinion(tiny(tmp_path / "m", labels=3))
        with pytest.raises(OpinionUnavailable, match="can't load"):
            CrossEncoderOpinion(str(tmp_path / "none"))
