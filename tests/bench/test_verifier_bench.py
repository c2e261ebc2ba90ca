"""The verifier's bench: parts that don't mix, replay in order, made prompts with true labels, and honest hit rates."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.train_verifier import bare, calibrated
from bench.verifier_data import Request, parted, replayed, requests_of
from bench.verifier_edits import Things, frames, sentences
from bench.verifier_report import hit_rates
from farthing.cache.thesaurus import Thesaurus

THESAURUS = Thesaurus.load()


class Letters:
    """Vectors from letter counts, in the place of the embedder's."""

    def of(self, text: str) -> NDArray[np.float32] | None:
        counts = np.array([text.lower().count(letter) + 0.1 for letter in "abcdefghijklmnopqrstuvwxyz"], np.float32)
        return counts / np.linalg.norm(counts)


def asked(text: str, answer: str, stream: str = "adv", scope: str = "s") -> Request:
    return Request(stream, stream, scope, scope, text, answer)


def test_whole_families_go_into_one_part() -> None:
    requests = [asked(f"text {n}", f"adv:family{n % 10}:{n}") for n in range(100)]
    parts = parted(requests, Letters())  # type: ignore[arg-type]
    sides = defaultdict(set)
    for request, (group, part) in zip(requests, parts, strict=True):
        sides[request.answer.split(":")[1]].add(part)
        assert group == ":".join(request.answer.split(":")[:2])

    assert all(len(found) == 1 for found in sides.values())
    assert sum(found == {"test"} for found in sides.values()) == 3
    assert parted(requests, Letters()) == parts  # type: ignore[arg-type]


def test_near_duplicates_stay_together_though_their_classes_differ() -> None:
    requests = [asked(f"{word} has {n} apples", f"{word}{n}", "math") for word in ("zzz", "kkk") for n in range(5)]
    groups = [group for group, _ in parted(requests, Letters())]  # type: ignore[arg-type]

    assert len(set(groups)) == 2


def test_a_replay_meets_only_what_came_before_in_its_scope() -> None:
    requests = [
        asked("how do I close it", "a"),
        asked("how can I close it", "a"),
        asked("how can I close it then", "a", scope="other"),
        asked("how do I open it", "b"),
        asked("what is new today", "c"),
    ]
    pairs = replayed(requests, Letters(), bare(THESAURUS))  # type: ignore[arg-type]

    assert pairs.query.tolist() == [1, 3, 3]
    assert pairs.same.tolist() == [1, 0, 0]
    assert pairs.texts[0] == ("how can I close it", "how do I close it")


def test_made_prompts_label_equal_slots_as_equal() -> None:
    made = list(frames(Things(THESAURUS), 1))
    texts = defaultdict(set)
    for one in made:
        texts[one.text].add(one.answer)

    assert len(made) > 1_000
    assert all(len(answers) == 1 for answers in texts.values())
    assert made == list(frames(Things(THESAURUS), 1))


def test_made_sentences_change_what_they_say(tmp_path: Path) -> None:
    line = '0 0 v 01 a 0 | gloss; "the two old dogs are walking before the rain in town"\n'
    for part in ("verb", "noun", "adj"):
        (tmp_path / f"data.{part}").write_text(line, encoding="utf-8")
    made = list(sentences(tmp_path, Things(THESAURUS), 3, 1))
    same = [one.text for one in made if one.answer.endswith(":0")]
    changed = [one.text for one in made if not one.answer.endswith(":0")]

    assert len(same) == 2
    assert changed
    assert not set(changed) & set(same)


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([3, 2, 1], [1, 1, 1], [0.75] * 4),
        ([3, 2, 1], [0, 1, 1], [0.0] * 4),
        # Equal scores are served together or not at all.
        ([2, 2, 1], [1, 0, 1], [0.0] * 4),
        ([3, 2, 2], [1, 0, 1], [0.25] * 4),
        ([], [], [0.0] * 4),
    ],
)
def test_hit_rates_at_a_bound(scores: list[float], right: list[int], expected: list[float]) -> None:
    found = hit_rates(np.array(scores, float), np.array(right, np.int8), 4)

    assert [rate for rate, _ in found] == expected


def test_calibration_finds_the_scale_again() -> None:
    chance = np.random.default_rng(0)
    sums = chance.normal(0, 3, 20_000)
    same = (chance.random(20_000) < 1 / (1 + np.exp(-(0.5 * sums - 1)))).astype(np.int8)
    slope, offset = calibrated(sums, same, np.ones(20_000))

    assert slope == pytest.approx(0.5, abs=0.05)
    assert offset == pytest.approx(-1, abs=0.1)


def test_a_missing_stream_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="needs the semcache streams"):
        requests_of(tmp_path, "adv")
