"""The second stage: a tiny cross-encoder, built here, in the place of a real one. Run by `make test-torch`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.second_opinion import Band, CrossEncoderOpinion, OpinionUnavailable, combined

HERE = importlib.util.find_spec("sentence_transformers") is not None
torch_only = [
    pytest.mark.torch,
    pytest.mark.skipif(not HERE, reason="the extra sentence-transformers is absent"),
    # What torch and transformers warn of is not ours.
    pytest.mark.filterwarnings("default"),
]


BAND = Band(0.5, 0.85)
SCORE = st.floats(0, 1)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0.4999, 1.0, 0.4999),
        (0.85, 0.0, 0.85),
        (1.0, 0.0, 1.0),
        (0.5, 0.0, 0.5),
        (0.5, 1.0, 0.675),
        (0.675, 0.0, 0.5875),
        (0.675, 1.0, 0.7625),
        (0.675, 0.5, 0.675),
        (0.675, float("nan"), 0.5875),
        (0.675, 7.0, 0.5875),
    ],
)
def test_a_second_opinion_moves_a_doubtful_score_within_the_band(first: float, second: float, expected: float) -> None:
    assert combined(first, second, BAND) == pytest.approx(expected)


@given(SCORE, SCORE, SCORE, SCORE)
def test_the_combined_score_never_falls_when_either_rises(a: float, b: float, p: float, q: float) -> None:
    (low, high), (no, yes) = sorted((a, b)), sorted((p, q))
    assert combined(low, no, BAND) <= combined(high, no, BAND)
    assert combined(low, no, BAND) <= combined(low, yes, BAND)


@given(st.floats(0.5, 0.85, exclude_max=True), st.floats())
def test_it_never_leaves_the_band(first: float, second: float) -> None:
    assert BAND.low <= combined(first, second, BAND) <= BAND.high


@given(st.floats(0.5, 0.85, exclude_max=True), st.floats(0.5, 0.85, exclude_max=True))
def test_a_plain_yes_lies_above_a_plain_no(one: float, other: float) -> None:
    assert combined(one, 1.0, BAND) >= combined(other, 0.0, BAND)


@pytest.mark.parametrize(("low", "high"), [(0.9, 0.5), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_a_band_lies_within_0_and_1(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="band"):
        Band(low, high)


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

    def test_a_batch_is_scored_as_its_pairs_alone_and_the_same_each_time(self, tmp_path: Path) -> None:
        opinion = CrossEncoderOpinion(tiny(tmp_path / "m"))
        asked, others = "how do i reset my password", ["close the card", "reset my card", "how do i close my password"]

        together = opinion.scores(asked, others)

        assert together == opinion.scores(asked, others)
        assert together == pytest.approx([opinion.scores(asked, [one])[0] for one in others], abs=1e-5)
        assert len(set(together)) > 1

    def test_the_same_folder_scores_the_same_when_loaded_again(self, tmp_path: Path) -> None:
        folder = tiny(tmp_path / "m")
        pair = ("how do i reset my password", ["close the card"])

        assert CrossEncoderOpinion(folder).scores(*pair) == CrossEncoderOpinion(folder).scores(*pair)

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
