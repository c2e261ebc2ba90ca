"""Teachers' answers out of traffic: what is left out, how parts are made, and what the files hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from farthing.cache.reshape import split
from farthing.policies.answer import read
from farthing.policies.student import loaded
from farthing.proxy import student_files
from farthing.proxy.clock import SystemClock
from farthing.proxy.distill_export import Exported, Shape, export, parts_of, write
from farthing.proxy.distill_near import near_pairs, vectors_of
from farthing.proxy.distill_rows import Gathered, Wanted, gather
from farthing.proxy.distill_template import Divided, divided
from farthing.proxy.distill_train import Recipe, Trained, cases_of, train
from farthing.proxy.errors import ConfigFault
from farthing.proxy.exchange import Endpoint
from farthing.proxy.observe import read_whole
from farthing.proxy.redact import KINDS, Redactor
from farthing.proxy.student_answer import answer
from farthing.proxy.student_files import standing_of
from farthing.proxy.usage import Usage

SYSTEM = {"role": "system", "content": "Name the colour."}
ABOUT = {"source": "a test", "filters": "", "redaction": [], "redacted": {}, "made_s": 1.0, "version": "0"}


class Words:
    """An embedder that knows a text by its first word: each has a direction of its own, a little off by the rest."""

    name, dim, max_tokens, batch = "words", 16, 8, 1

    def count(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            if self.count(text) > self.max_tokens:
                raise ValueError("the text is longer than the model's window")
            first, *rest = text.split() or [""]
            rng, own = (np.random.default_rng(list(part.encode())) for part in (first, " ".join(rest)))
            mixed = rng.normal(size=self.dim) + 0.3 * own.normal(size=self.dim)
            out[row] = mixed / np.linalg.norm(mixed)
        return out


def line(number: int, text: str, says: str = "red", **more: Any) -> bytes:
    reply = {
        "object": "chat.completion", "model": "big-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": says}, "finish_reason": "stop"}],
    }  # fmt: skip
    value = {
        "id": f"far-{number}", "ts": float(number), "tenant": "t", "tags": {}, "endpoint": "chat", "status": 200,
        "request": {"model": "big", "messages": [SYSTEM, {"role": "user", "content": text}]},
        "response": reply, "row": None, "path": "/v1/chat/completions", "user": "",
    }  # fmt: skip
    return orjson.dumps(value | more)


def finished(reason: str, message: dict[str, Any] | None = None, choices: int = 1) -> dict[str, Any]:
    said = message or {"role": "assistant", "content": "red"}
    return {
        "object": "chat.completion",
        "choices": [{"index": at, "message": said, "finish_reason": reason} for at in range(choices)],
    }


def gathered(*lines: bytes, redactor: Redactor | None = None, **wanted: Any) -> Gathered:
    return gather(enumerate(lines, 1), Wanted(**wanted), redactor)


FUNCTION = {"name": "f", "arguments": "{}"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": FUNCTION}]}
NO = {"role": "assistant", "content": "I'm sorry, but I can't help with that."}
VECTORS = {"endpoint": "embeddings", "request": {"model": "e", "input": "a"}, "path": "/v1/embeddings"}
SHOWN = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}
TOOLS = {"model": "big", "messages": [SYSTEM, {"role": "user", "content": "a"}], "tools": [{}]}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"status": 500}, "failed"),
        ({"response": None}, "without a whole answer"),
        ({"response": finished("length")}, "cut at its length limit"),
        ({"response": finished("content_filter")}, "a refusal"),
        ({"response": finished("stop", NO)}, "a refusal"),
        ({"response": finished("tool_calls", CALL)}, "answers with more than text"),
        ({"response": finished("stop", choices=2)}, "several answers"),
        ({"response": finished("stop", {"role": "assistant", "content": " "})}, "empty"),
        ({"row": {"model_served": "student/s"}}, "a student's answer"),
        ({"row": {"cache": "hit-semantic"}}, "a near-duplicate's answer"),
        ({"id": "bad"}, "rated bad"),
        (VECTORS, "no chat or completion"),
        ({"request": {"model": "big", "messages": [SHOWN]}}, "holds more than text"),
        ({"request": TOOLS}, "holds more than text"),
    ],
)  # fmt: skip
def test_what_can_not_teach_is_left_out_and_counted(more: dict[str, Any], why: str) -> None:
    found = gathered(line(1, "good"), line(2, "other", **more), bad=frozenset({"bad"}))
    assert [row.answer for row in found.rows] == ["red"] and dict(found.dropped) == {why: 1}


def test_broken_lines_old_ones_and_other_models_are_counted_too() -> None:
    found = gathered(
        b"{", line(1, "old"), line(20, "new"), line(30, "x", row={"model_served": "mini"}), since_s=10, model="big*"
    )
    assert [row.id for row in found.rows] == ["far-20"]
    assert dict(found.dropped) == {"not JSON": 1, "too old": 1, "of another model": 1}


def test_personal_data_is_taken_out_of_question_and_answer() -> None:
    redactor = Redactor(KINDS, (), b"k" * 32, SystemClock())
    found = gathered(line(1, "I am ann@example.org", says="Hello ann@example.org"), redactor=redactor)
    made = exported(found, shares={"train": 1.0})
    assert b"ann@example.org" not in b"".join(made.files.values()) and b"[email-" in made.files["train.jsonl"]


def exported(found: Gathered, **more: Any) -> Exported:
    return export(found, Shape(**({"shares": {"train": 0.5, "test": 0.5}} | more)), Words(), ABOUT)


def rows_in(made: Exported, part: str) -> list[dict[str, Any]]:
    return [orjson.loads(one) for one in made.files[f"{part}.jsonl"].splitlines()]


def test_the_same_question_is_never_in_two_parts_nor_is_nearly_the_same() -> None:
    lines = [line(at, f"word{at % 20} number {at}", says=f"c{at}") for at in range(100)]
    found = gathered(*lines)
    assert len(list(near_pairs(vectors_of([row.turns[-1].text for row in found.rows], Words())[0], 0.8))) > 100
    made = exported(found, cosine=0.8)
    first = {
        part: {one["messages"][1]["content"].split()[0] for one in rows_in(made, part)} for part in ("train", "test")
    }
    assert first["train"] and not first["train"] & first["test"]
    told = made.facts["parts"]
    assert told["train"]["rows"] + told["test"]["rows"] + sum(made.facts["dropped"].values()) == 100


def test_copies_are_left_out_and_the_latest_answer_is_kept() -> None:
    lines = [
        line(1, "a", "one"),
        line(2, "A ", "x"),
        line(3, "a", "two"),
        line(4, "b q", "same"),
        line(5, "b r", "same"),
    ]
    made = exported(gathered(*lines), shares={"train": 1.0}, cosine=0.7)
    answers = [one["messages"][2]["content"] for one in rows_in(made, "train")]
    assert answers == ["x", "two", "same"]
    assert made.facts["dropped"] == {"a copy": 1, "a near copy with the same answer": 1}
    consistent = exported(gathered(*lines), shares={"train": 1.0}, cosine=0.7, consistent=True)
    assert consistent.facts["dropped"]["the teacher disagrees with itself"] == 2


def test_each_format_says_the_same() -> None:
    found = gathered(line(1, "a", "red"))
    texts = {}
    for form in ("openai", "alpaca", "sharegpt"):
        (texts[form],) = rows_in(exported(found, form=form, shares={"train": 1.0}), "train")
    assert texts["openai"] == {
        "messages": [SYSTEM, {"role": "user", "content": "a"}, {"role": "assistant", "content": "red"}]
    }
    assert texts["alpaca"] == {"instruction": SYSTEM["content"], "input": "a", "output": "red"}
    assert [one["from"] for one in texts["sharegpt"]["conversations"]] == ["system", "human", "gpt"]


def test_a_conversation_has_no_form_as_an_instruction() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    found = gathered(line(1, "", request={"model": "big", "messages": turns}))
    assert exported(found, form="alpaca").facts["dropped"] == {"a conversation of several turns": 1}


def test_the_card_tells_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    made = exported(gathered(line(1, "a"), line(2, "b", status=500), line(3, "c d")))
    write(tmp_path / "out", made.files)
    card = (tmp_path / "out" / "CARD.md").read_text("utf-8")
    for said in (
        "| 1 | failed |",
        "big-1: 2 rows",
        made.facts["parts"]["train"]["sha256"],
        "not stated",
        "terms restrict",
    ):
        assert said in card
    assert (tmp_path / "out" / "train.jsonl").stat().st_mode & 0o777 == 0o600
    assert orjson.loads((tmp_path / "out" / "card.json").read_bytes()) == made.facts


@pytest.mark.parametrize("text", ["", "train", "train=0,test=1", "train=x", "../a=1"])
def test_parts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigFault):
        parts_of(text)


def test_a_template_is_all_but_the_last_text_and_the_transports_shape() -> None:
    body = {"model": "m", "messages": [SYSTEM, {"role": "user", "content": "a"}]}
    one = divided(Endpoint.CHAT, body)
    assert isinstance(one, Divided) and one.text == "a"
    same = {**body, "stream": True, "user": "u", "messages": [SYSTEM, {"role": "user", "content": "b"}]}
    assert isinstance(found := divided(Endpoint.CHAT, same), Divided) and found.template == one.template
    said = {"messages": [{**SYSTEM, "content": "x"}, {"role": "user", "content": "a"}]}
    for more in ({"temperature": 0.5}, {"model": "n"}, said, {"logprobs": True}):
        assert divided(Endpoint.CHAT, body | more) != one
    assert divided(Endpoint.CHAT, {"model": "m", "messages": [SYSTEM]}) == "last message is not the user's"


def traffic(count: int, labels: int = 4, wrong_every: int = 0) -> list[bytes]:
    """The first word decides the label, but for every so many."""

    def label(at: int) -> str:
        return f"c{(at + (wrong_every > 0 and at % wrong_every == 0)) % labels}"

    return [line(at, f"word{at % labels} number {at}", says=label(at)) for at in range(count)]


def trained(lines: list[bytes], **more: Any) -> Trained:
    cases = cases_of(gathered(*lines, refusals=True).rows, {})
    return train(cases, Recipe("s", cosine=2.0, **more), Words())


def test_a_student_is_trained_on_labels_proved_and_kept(tmp_path: Path) -> None:
    made = trained(traffic(1200))
    student = made.student
    assert student is not None and student.labels == ("c0", "c1", "c2", "c3") and student.bound == 0.02
    assert made.facts["proved"]["wrong"] == 0 and made.facts["proved"]["upper"] <= 0.02
    assert made.facts["parts"] == {"fitted": 660, "proved": 360, "told": 180}
    assert student.say(Words().embed(["word2 anything"])[0]).label == "c2"
    student_files.save(tmp_path, student)
    again = student_files.load(tmp_path, "s")
    assert again is not None and again.hash == student.hash and student_files.names(tmp_path) == ["s"]
    assert loaded(student_files.place(tmp_path, "s").read_bytes()).about["labels"] == 4


def test_with_too_many_differences_nothing_may_be_answered() -> None:
    made = trained(traffic(1200, wrong_every=12))
    assert made.student is None and "no threshold is proved" in made.why


def test_two_labels_are_as_good_as_many() -> None:
    student = trained(traffic(1200, labels=2)).student
    assert student is not None and student.weights.shape == (2, 16)
    assert [student.say(Words().embed([text])[0]).label for text in ("word0 a", "word1 a")] == ["c0", "c1"]


def test_free_text_is_no_closed_set() -> None:
    with pytest.raises(ConfigFault, match="no closed set"):
        trained([line(at, f"word{at}", says=f"text {at}") for at in range(100)])


def test_what_an_earlier_student_abstained_from_proves_nothing() -> None:
    row = {"decisions": '[["student", "abstained", "s: 0.5"]]', "model_served": "big-1"}
    lines = traffic(1200)
    lines[1000:] = [line(at, f"word{at % 4} number {at}", says=f"c{at % 4}", row=row) for at in range(1000, 1200)]
    made = trained(lines)
    assert made.facts["left_out"]["no fair sample: an earlier student abstained from them"] == 180 + 20
    assert made.facts["parts"]["told"] == 0


def test_requests_for_log_probabilities_are_left_out() -> None:
    body = {"model": "big", "logprobs": True, "messages": [SYSTEM, {"role": "user", "content": "word1"}]}
    found = gathered(*traffic(20), line(99, "x", request=body))
    left_out = cases_of(found.rows, {}).left_out
    assert left_out["asks for log-probabilities, which a student has none of"] == 1 == left_out.total()


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.MESSAGES])
def test_a_label_has_the_apis_own_shape_whole_and_as_a_stream(endpoint: Endpoint) -> None:
    whole = orjson.dumps(answer(endpoint, "Größe: 4", "student/s", Usage(fresh=7, output=3), "abc123", 9.0))
    (said,) = read(whole) or ()
    assert said.text == "Größe: 4" and said.finish == "stop"
    stream = split(whole, endpoint, include_usage=True)
    assert stream is not None and read(stream) == (said,)
    used, model = read_whole(endpoint, orjson.loads(whole))
    assert used is not None and (used.tokens_in, used.tokens_out, model) == (7, 3, "student/s")


def test_other_templates_and_endpoints_are_left_out_and_told() -> None:
    other = line(5000, "x", request={"model": "big", "messages": [{"role": "user", "content": "x"}]})
    cases = cases_of(gathered(*traffic(20), other).rows, {})
    assert len(cases.rows) == 20 and cases.left_out.total() == 1
    with pytest.raises(ConfigFault, match="nothing to learn from"):
        cases_of([], {})


def test_what_is_known_of_another_student_is_not_this_ones(tmp_path: Path) -> None:
    student = trained(traffic(1200)).student
    assert student is not None
    student_files.save(tmp_path, student)
    standing, _ = standing_of(tmp_path, student).learned(False)
    student_files.save_standing(tmp_path, student, standing)
    assert standing_of(tmp_path, student).evidence.seen == 1
    other = trained(traffic(1300)).student
    assert other is not None and standing_of(tmp_path, other).evidence.seen == 0


def test_students_that_are_replaced_are_kept_and_found_by_their_hash(tmp_path: Path) -> None:
    old, new = (trained(traffic(count)).student for count in (1200, 1300))
    assert old is not None and new is not None
    student_files.save(tmp_path, old)
    (tmp_path / "students" / "kept" / f"s@{old.hash}.json").unlink()  # as an earlier farthing left it
    plain = orjson.dumps({"hash": old.hash} | standing_of(tmp_path, old).learned(True)[0].plain())
    (tmp_path / "students" / "s.standing.json").write_bytes(plain)
    assert standing_of(tmp_path, old).evidence.bad == 1
    assert [student_files.load(tmp_path, f"s@{one.hash}") is not None for one in (old, new)] == [True, False]
    student_files.save_heir(tmp_path, new)
    assert student_files.names(tmp_path) == ["s"] and student_files.load(tmp_path, "s").hash == old.hash  # type: ignore[union-attr]
    student_files.take_heir(tmp_path, new)
    found = [student_files.load(tmp_path, name) for name in ("s", f"s@{old.hash}", f"s@{new.hash}")]
    assert [one.hash for one in found if one is not None] == [new.hash, old.hash, new.hash]
    assert student_files.heir_of(tmp_path, "s") is None


def test_a_student_stays_with_its_template_while_there_are_requests_of_it() -> None:
    other = [line(at, f"x{at}", request={"model": "big", "messages": [{"role": "user", "content": "x"}]})
             for at in range(5000, 5040)]  # fmt: skip
    rows = gathered(*traffic(20), *other).rows
    own = cases_of(gathered(*traffic(20)).rows, {}).template
    assert [len(cases_of(rows, {}, template).rows) for template in ("", own, "gone")] == [40, 20, 40]
