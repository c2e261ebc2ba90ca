"""The semantic cache: its walls, its bounds, its file. The model is real where meaning matters, else a fake."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from farthing.cache import index_growing
from farthing.cache.embedder import MiniLmOnnx
from farthing.cache.rarity import RouteWords
from farthing.cache.reading import Reading, read
from farthing.cache.scorer import GuardScorer, VerifierScorer
from farthing.cache.semantic import Found, Neighbour, SemanticCache, best
from farthing.cache.thesaurus import Thesaurus
from farthing.cache.verifier import Verifier
from farthing.proxy.text import Signals, signals
from tests.fakes.semantic import served

NOW = 1_800_000_000.0
LATER = NOW + 100


class Letters:
    """An embedder over letter pairs: like texts are near, and no model is loaded."""

    dim = 32
    max_tokens = 20
    batch = 4

    def __init__(self, name: str = "letters") -> None:
        self.name = name
        self.embedded: list[str] = []

    def count(self, text: str) -> int:
        return len(text.split()) + 2

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded += texts
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            folded = text.lower()
            for pair in pairwise(folded):
                vectors[row, hashlib.sha256("".join(pair).encode()).digest()[0] % self.dim] += 1
        return (vectors + 1e-3) / np.linalg.norm(vectors + 1e-3, axis=1, keepdims=True)


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    cache = SemanticCache.open(None, Letters(), max_entries=100)
    yield cache
    cache.close()


@pytest.fixture(scope="module")
def minilm() -> MiniLmOnnx:
    return MiniLmOnnx()


def near(text: str, similarity: float, key: str = "k") -> Neighbour:
    return Neighbour(key, similarity, text)


ASKED = "how do i get a refund"


@pytest.mark.parametrize(
    ("neighbours", "found"),
    [
        ([], Found(None, None, 0.0, "no neighbour")),
        ([near("how can i get a refund", 0.95)], Found("k", 0.95, 0.95, "candidate", "how can i get a refund")),
        ([near("how do i get 2 refunds", 0.99)], Found("k", 0.99, 0.0, "candidate", "how do i get 2 refunds")),
        ([near("how do i get 2 refunds", 0.99), near(ASKED, 0.95, "b")], Found("b", 0.95, 0.95, "candidate", ASKED)),
        ([near(ASKED, 0.95, "a"), near(ASKED, 0.95, "b")], Found("a", 0.95, 0.95, "candidate", ASKED)),
        ([near(ASKED, math.nan)], Found("k", math.nan, 0.0, "candidate", ASKED)),
        ([near(ASKED, 1.0000002)], Found("k", 1.0, 1.0, "candidate", ASKED)),
    ],
)
def test_the_best_of_the_neighbours_by_the_guard(neighbours: list[Neighbour], found: Found) -> None:
    said, cosines = [signals(one.text) for one in neighbours], [one.similarity for one in neighbours]
    scores = GuardScorer().scores(signals(ASKED), said, cosines, RouteWords())
    assert repr(best(neighbours, scores)) == repr(found)


def test_a_reworded_question_is_found_and_a_trap_is_not(minilm: MiniLmOnnx) -> None:
    cache = SemanticCache.open(None, minilm, max_entries=10)
    cache.add("s", "How do I reset my password?", "password", LATER)
    cache.add("s", "How far is it from Paris to Rome?", "way", LATER)

    assert served(cache, "s", "how can I reset my password", NOW, 0.9) == "password"
    assert served(cache, "s", "How far is it from Rome to Paris?", NOW, 0.1) is None
    assert served(cache, "s", "What do whales eat in winter?", NOW, 0.9) is None


def test_scopes_are_walls(cache: SemanticCache) -> None:
    cache.add("mine", ASKED, "k", LATER)

    assert cache.lookup("yours", "r", ASKED, NOW).verdict == "empty scope"
    cache.add("yours", "something about whales", "w", LATER)
    assert served(cache, "yours", ASKED, NOW, -1.0) != "k"
    assert served(cache, "mine", ASKED, NOW, 0.9) == "k"


def test_the_same_text_is_found_in_other_widths_but_not_with_hidden_characters(cache: SemanticCache) -> None:
    assert not cache.add("s", "how do i get a re\u200bfund", "hidden", LATER)
    cache.add("s", "how do i get a refund", "k", LATER)

    assert served(cache, "s", "ｈｏｗ do i get a refund", NOW, 0.99) == "k"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("", "empty"),
        ("🙂🙂🙂", "no words"),
        ("what is the latest news", "freshness"),
        ("tell me another story", "chance asked for"),
        ("word " * 19, "too long"),
        ("x" * 1_000_000, "too long"),
        ("\ud800\x00", "no words"),
    ],
)
def test_what_must_not_match_is_neither_found_nor_kept(cache: SemanticCache, text: str, verdict: str) -> None:
    cache.add("s", ASKED, "k", LATER)

    assert cache.add("s", text, "k2", LATER) is False
    assert len(cache) == 1
    assert cache.lookup("s", "r", text, NOW) == Found(None, None, 0.0, verdict)


@settings(max_examples=32, deadline=None)
@given(st.text(st.characters(), max_size=40), st.text(st.characters(), max_size=40))
def test_no_text_breaks_it_and_only_an_agreeing_one_is_served(one: str, other: str) -> None:
    cache = SemanticCache.open(None, Letters(), max_entries=10)
    kept = cache.add("s", one, "k", LATER)

    again = cache.lookup("s", "r", one, NOW)
    found = cache.lookup("s", "r", other, NOW)

    assert again.entry_key == ("k" if kept else None)
    if found.score > 0.0:
        assert GuardScorer().scores(signals(other), [signals(one)], [1.0], RouteWords()) == [1.0]


def test_what_expired_is_gone(cache: SemanticCache) -> None:
    cache.add("s", ASKED, "k", LATER)

    assert served(cache, "s", ASKED, LATER - 1, 0.9) == "k"
    assert cache.lookup("s", "r", ASKED, LATER).verdict == "empty scope"
    assert len(cache) == 0


def test_what_expired_is_not_served_even_while_much_is_still_to_be_cleared() -> None:
    large = SemanticCache.open(None, Letters(), max_entries=1000)
    large.add("s", ASKED, "k", NOW + 2)
    for number in range(600):
        large.add("t", f"how is {word(number)} made", f"k{number}", NOW + 1)

    assert served(large, "s", ASKED, NOW + 3, 0.9) is None
    assert len(large) > 0
    for _ in range(3):
        large.lookup("s", "r", ASKED, NOW + 3)
    assert len(large) == 0


def test_an_entry_added_anew_lives_by_its_new_expiry(cache: SemanticCache) -> None:
    cache.add("s", ASKED, "k", NOW + 10)
    cache.add("s", ASKED, "k", LATER)

    assert served(cache, "s", ASKED, NOW + 20, 0.9) == "k"
    assert len(cache) == 1


def test_an_entry_key_stands_for_one_text(cache: SemanticCache) -> None:
    cache.add("s", ASKED, "k", LATER)
    cache.add("t", "where does the whale live", "k", LATER)

    assert cache.lookup("s", "r", ASKED, NOW).verdict == "empty scope"
    assert served(cache, "t", "where does the whale live", NOW, 0.9) == "k"
    assert cache.add("t", "", "k", LATER) is False
    assert len(cache) == 0


def test_remove_and_clear(cache: SemanticCache) -> None:
    for number, word in enumerate(("apples", "pears", "plums")):
        cache.add("s", f"how do i store {word}", f"k{number}", LATER)

    assert cache.remove(["k0", "k0", "unknown"]) == 1
    assert served(cache, "s", "how do i store apples", NOW, 0.999) is None
    assert served(cache, "s", "how do i store pears", NOW, 0.999) == "k1"
    cache.clear()
    assert len(cache) == 0
    assert cache.lookup("s", "r", "how do i store pears", NOW).verdict == "empty scope"
    cache.add("s", ASKED, "k", LATER)
    assert served(cache, "s", ASKED, NOW, 0.9) == "k"


def word(number: int) -> str:
    return "".join(chr(97 + int(digit)) * 3 for digit in f"{number:03}")


def test_the_least_recently_used_make_room() -> None:
    cache = SemanticCache.open(None, Letters(), max_entries=3)
    for number in range(3):
        cache.add(f"s{number}", f"how is {word(number)} made", f"k{number}", LATER)
    assert served(cache, "s0", f"how is {word(0)} made", NOW, 0.9) == "k0"

    cache.add("s3", f"how is {word(3)} made", "k3", LATER)

    assert len(cache) == 3
    assert cache.lookup("s1", "r", f"how is {word(1)} made", NOW).verdict == "empty scope"
    assert served(cache, "s0", f"how is {word(0)} made", NOW, 0.9) == "k0"


def test_a_large_scope_turns_into_lists_and_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_growing.GrowingIndex.__init__, "__defaults__", (30,))
    cache = SemanticCache.open(None, Letters(), max_entries=80)
    for number in range(100):
        cache.add("s", f"how is {word(number)} made", f"k{number}", LATER)

    assert cache.restless
    while cache.tend():
        pass
    assert not cache.restless
    assert cache._scopes["s"].kind == "ivf"
    assert len(cache) <= 80
    assert served(cache, "s", f"how is {word(99)} made", NOW, 0.9) == "k99"
    assert served(cache, "s", f"how is {word(50)} made", NOW, 0.9) == "k50"
    assert served(cache, "s", f"how is {word(0)} made", NOW, 0.999) is None


def test_an_entry_is_read_once_and_its_reading_goes_with_it() -> None:
    counting = Counting()
    cache = SemanticCache.open(None, Letters(), max_entries=10, scorer=counting)
    cache.add("s", "how is it made", "k", LATER)
    for number in range(3):
        cache.lookup("s", "r", f"how is {word(number)} made", NOW)

    assert counting.texts.count("how is it made") == 1

    cache.remove(["k"])
    cache.add("s", "how is it made", "k", LATER)
    assert counting.texts.count("how is it made") == 2


def test_what_comes_from_the_file_is_read_when_it_is_first_a_candidate(tmp_path: Path) -> None:
    filled(tmp_path / "semantic.db").close()
    counting = Counting()
    cache = SemanticCache.open(tmp_path / "semantic.db", Letters(), max_entries=10, scorer=counting)
    assert counting.texts == []

    first, second = (cache.lookup("s", "r", "how can i get a refund", NOW) for _ in range(2))

    assert first == second
    assert counting.texts.count(ASKED) == 1
    cache.close()


class Counting(GuardScorer):
    """Remembers what it read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def read(self, scope: str, text: str) -> Signals:
        self.texts.append(text)
        return super().read(scope, text)


def test_a_miss_embeds_its_text_once() -> None:
    letters = Letters()
    cache = SemanticCache.open(None, letters, max_entries=10)
    cache.add("s", "where does the whale live", "w", LATER)

    cache.lookup("s", "r", ASKED, NOW)
    cache.add("s", ASKED, "k", LATER)

    assert letters.embedded.count(ASKED) == 1


def test_what_one_scope_sent_spares_another_neither_embedding_nor_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    letters, read_anew = Letters(), list[str]()

    def noted(text: str, thesaurus: Thesaurus) -> Reading:
        read_anew.append(text)
        return read(text, thesaurus)

    monkeypatch.setattr("farthing.cache.verifier.read", noted)
    cache = SemanticCache.open(None, letters, max_entries=10, scorer=VerifierScorer(Verifier.open()))
    cache.add("theirs", ASKED, "t", LATER)
    cache.add("mine", "where does the whale live", "m", LATER)
    for _ in range(2):
        cache.lookup("mine", "r", ASKED, NOW)

    assert letters.embedded.count(ASKED) == 2
    assert read_anew.count(ASKED) == 2
    cache.close()


# The file


def filled(path: Path, name: str = "letters") -> SemanticCache:
    cache = SemanticCache.open(path, Letters(name), max_entries=100)
    cache.add("s", ASKED, "k", LATER)
    cache.add("t", "where does the whale live", "w", NOW + 5)
    return cache


def test_it_outlives_a_restart_and_so_do_removals(tmp_path: Path) -> None:
    cache = filled(tmp_path / "a" / "semantic.db")
    cache.add("s", "how do i store apples", "gone", LATER)
    cache.remove(["gone"])
    cache.close()
    cache.close()

    again = SemanticCache.open(tmp_path / "a" / "semantic.db", Letters(), max_entries=100)

    assert len(again) == 2
    assert served(again, "s", ASKED, NOW, 0.9) == "k"
    assert again.lookup("t", "r", "where does the whale live", NOW + 6).verdict == "empty scope"
    again.clear()
    again.close()
    assert len(SemanticCache.open(tmp_path / "a" / "semantic.db", Letters(), max_entries=100)) == 0


def test_a_smaller_bound_holds_at_once(tmp_path: Path) -> None:
    cache = filled(tmp_path / "s.db")
    assert served(cache, "t", "where does the whale live", NOW, 0.9) == "w"
    cache.close()

    again = SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=1)

    assert len(again) == 1  # and the one that was used
    assert served(again, "t", "where does the whale live", NOW, 0.9) == "w"


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    filled(tmp_path / "s.db").close()

    assert (tmp_path / "s.db").stat().st_mode & 0o077 == 0


def test_another_models_vectors_are_dropped_with_one_line(tmp_path: Path) -> None:
    filled(tmp_path / "s.db").close()

    with capture_logs() as logs:
        again = SemanticCache.open(tmp_path / "s.db", Letters("another"), max_entries=100)

    assert len(again) == 0
    assert [(line["log_level"], line["rows"]) for line in logs] == [("warning", 2)]
    again.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE texts SET text = 'how do i get a loan' WHERE entry_key = 'k'",
        "UPDATE texts SET scope = 't' WHERE entry_key = 'k'",
        "UPDATE texts SET vector = zeroblob(128) WHERE entry_key = 'k'",
        "UPDATE texts SET vector = x'00' WHERE entry_key = 'k'",
        "UPDATE texts SET expires_s = expires_s + 1e6 WHERE entry_key = 'k'",
        "UPDATE texts SET checksum = 'text' WHERE entry_key = 'k'",
        "UPDATE texts SET text = x'ff', expires_s = 'soon' WHERE entry_key = 'k'",
    ],
)
def test_a_damaged_row_is_dropped_with_one_line(tmp_path: Path, damage: str) -> None:
    filled(tmp_path / "s.db").close()
    db = sqlite3.connect(tmp_path / "s.db")
    db.execute(damage)
    db.commit()
    db.close()

    with capture_logs() as logs:
        again = SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=100)

    assert len(again) == 1
    assert [line["rows"] for line in logs] == [1]
    assert served(again, "s", ASKED, NOW, 0.5) is None
    again.close()


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_broken_file_is_moved_aside_and_told_once(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "s.db"
    if content is None:
        filled(path).close()
        whole = bytearray(path.read_bytes())
        whole[100:] = os.urandom(len(whole) - 100)
        content = bytes(whole)
    path.write_bytes(content)

    with capture_logs() as logs:
        cache = filled(path)

    assert len(cache) == 2
    assert [line["log_level"] for line in logs] == ["error"]
    assert (tmp_path / "s.db.corrupt").exists()
    cache.close()
    assert len(SemanticCache.open(path, Letters(), max_entries=100)) == 2


def test_another_version_is_moved_aside(tmp_path: Path) -> None:
    filled(tmp_path / "s.db").close()
    db = sqlite3.connect(tmp_path / "s.db")
    db.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    db.commit()
    db.close()

    assert len(SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=100)) == 0
    assert (tmp_path / "s.db.corrupt").exists()


def test_a_locked_file_costs_only_memory_and_is_not_moved(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    filled(path).close()
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")

    with capture_logs() as logs:
        cache = SemanticCache.open(path, Letters(), max_entries=100)
        cache.add("s", "how do i store apples", "a", LATER)
        cache.add("s", "how do i store pears", "p", LATER)

    assert served(cache, "s", "how do i store apples", NOW, 0.9) == "a"
    assert [line["log_level"] for line in logs] == ["error"]
    assert not (tmp_path / "s.db.corrupt").exists()
    lock.close()
    cache.close()


def test_a_folder_in_the_way_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with capture_logs() as logs:
        cache = SemanticCache.open(tmp_path / "file" / "s.db", Letters(), max_entries=10)

    assert cache.add("s", ASKED, "k", LATER)
    assert len(logs) == 1


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.cache.test_semantic import LATER, Letters, word
from farthing.cache.semantic import SemanticCache
cache = SemanticCache.open(Path(sys.argv[1]), Letters(), max_entries=100_000)
number = 0
while True:
    cache.add("s", f"how is {word(number)} made", f"k{number}", LATER)
    if number % 3 == 0:
        cache.remove([f"k{number}"])
    print(number, flush=True)
    number += 1
"""


def test_kill_9_leaves_every_row_whole(tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent.parent)
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path / "s.db"), root], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    last = -1
    for line in child.stdout:
        last = int(line)
        if last >= 150:
            os.kill(child.pid, signal.SIGKILL)
            break
    child.stdout.close()
    child.wait()

    with capture_logs() as logs:
        cache = SemanticCache.open(tmp_path / "s.db", Letters(), max_entries=100_000)

    assert logs == []
    for number in range(last + 1):
        found = served(cache, "s", f"how is {word(number)} made", NOW, 0.9999)
        assert found == (f"k{number}" if number % 3 else None)
    cache.close()


def test_texts_are_those_of_the_entries_that_are_there(cache: SemanticCache) -> None:
    cache.add("s", ASKED, "k", LATER)

    assert list(cache.texts(["k", "gone"])) == ["k"]
