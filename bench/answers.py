"""Pairs of answers with known truth, made from real answer text, to measure the comparators on.

Every pair comes from a `source` (a worked answer, a label, a passage); sources are split by hash into a half for
choosing thresholds and a held-out half. Edits that keep the meaning make pairs that are the same; edits that change
one fact make pairs that differ. What an edit touches is checked, so that a label is never a guess.

Sources: GSM8K train (MIT; worked answers inside compress/few_shot_cot.jsonl), BANKING77 labels (CC BY 4.0;
semcache/intent.jsonl), XQuAD passages (CC BY-SA 4.0; semcache/long.jsonl), tau-bench assistant turns and tool calls
(MIT; compress/long_chat_history.jsonl), generated JSON (compress/json_tool_output.jsonl), the Python standard library
(PSF; compress/code_context.jsonl).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from bench.prose_edits import FACTS, SURFACE, names_of
from farthing.policies.agree_short import plain
from farthing.policies.answer import Answer, Call

__all__ = ["Pair", "all_pairs", "sibling"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one question. `kind`: what they are; `edit`: how the second was made; `same`: the truth."""

    kind: str
    edit: str
    source: str
    a: Answer
    b: Answer
    same: bool

    @property
    def trial(self) -> str:
        """What counts as one independent trial: the source, and where two sources meet, the two of them."""
        meeting = not self.same and self.kind in ("label", "span", "question")
        return f"{self.source}\0{plain(self.b.text)}" if meeting else self.source

    @property
    def held_out(self) -> bool:
        """Whether it is in the half that no threshold was chosen on."""
        return hashlib.sha256(self.source.encode()).digest()[0] % 2 == 1


def sibling(data: Path) -> Path:
    """The folder, if it is there. Raises SystemExit with what to do."""
    if not (data / "semcache").is_dir():
        raise SystemExit(f"{data} holds no semcache folder: the benchmark data lies in the sibling ../shared/data")
    return data


def all_pairs(data: Path, chance: Random) -> Iterator[Pair]:
    """Every pair, in a fixed order for a fixed seed."""
    yield from worked(data, chance)
    yield from labels(data, chance)
    yield from polar(data, chance)
    yield from values(data, chance)
    yield from calls(data, chance)
    yield from code(data, chance)
    yield from prose(data, chance)


def _pair(kind: str, edit: str, source: str, a: str, b: str, same: bool) -> Pair:
    return Pair(kind, edit, source, Answer(a), Answer(b), same)


# Worked numbers

_EXAMPLE = re.compile(r"Let's think step by step\.\n(.*?\n####[^\n]+)", re.S)


def worked(data: Path, chance: Random) -> Iterator[Pair]:
    """GSM8K answers against the same result in other words, and against another result."""
    texts = sorted({found for row in _rows(data / "compress" / "few_shot_cot.jsonl") for message in row["messages"]
                    for found in _EXAMPLE.findall(message["content"])})  # fmt: skip
    for text in texts:
        steps, _, final = text.rpartition("\n####")
        number = final.strip().replace(",", "")
        last = steps.strip().splitlines()[-1]
        rephrased = {
            "bare": number,
            "sentence": f"The answer is **{number}**.",
            "steps first": f"Let me work through it.\n\n{steps}\n\nSo the final answer is {number}.",
            "decimals": f"#### {number}.00" if "." not in number else f"#### {number}0",
            "boxed": f"{steps}\n\n\\boxed{{{number}}}",
            "last step": last,
            "no mark": steps,
        }
        for edit, other in rephrased.items():
            if edit not in ("last step", "no mark") or number in re.sub(r"(?<=\d),(?=\d)", "", last):
                yield _pair("number", edit, text, text, other, True)
        wrong = _other_number(number, chance)
        yield _pair("number", "another result", text, text, f"{steps}\n#### {wrong}", False)
        yield _pair("number", "another result, sentence", text, text, f"The answer is {wrong}.", False)
        yield _pair("number", "another problem", text, text, chance.choice([one for one in texts if
                    one.rpartition("####")[2].strip() != final.strip()]), False)  # fmt: skip
        slipped = steps.replace(last, _replace_last_number(last, wrong))
        if slipped != steps:
            yield _pair("number", "another result, no mark", text, text, slipped, False)
        yield _pair("number", "another unit", text, f"The answer is {number} km.", f"It is {number} miles.", False)


def _other_number(number: str, chance: Random) -> str:
    """A slip that people and models make: one more or less, a digit swapped, ten times."""
    value = float(number)
    told = chance.choice([value + 1, value - 1, value * 10, value / 2, value + 10])
    return f"{told:g}" if abs(told) < 1e6 else f"{told:.0f}"


def _replace_last_number(line: str, wrong: str) -> str:
    found = list(re.finditer(r"\d[\d,]*(?:\.\d+)?", line))
    return f"{line[: found[-1].start()]}{wrong}{line[found[-1].end() :]}" if found else line


# Labels and short answers


def labels(data: Path, chance: Random) -> Iterator[Pair]:
    """The 77 intents, dressed as models dress a label; and each against others, the likest ones first."""
    known = sorted({row["answer"] for row in _rows(data / "semcache" / "intent.jsonl")})
    dress = ["{0}", "{0}.", "**{0}**", "`{0}`", "The answer is {0}.", "Label: {0}", '"{0}"', "Intent: **{0}**", "{1}",
             "{2}", "The intent is {1}.", "The customer's intent is: {0}", "I would classify this as {0}."]  # fmt: skip
    for label in known:
        spaced = label.replace("_", " ")
        for form in dress[1:]:
            other = form.format(label, spaced, spaced.title())
            yield _pair("label", form, label, label, other, True)
        likest = sorted(known, key=lambda one: -len(set(one.split("_")) & set(label.split("_"))))[1:7]
        for wrong in {*likest, *chance.sample(known, 6)} - {label}:
            yield _pair("label", "another label", label, label, wrong, False)
            form = chance.choice(dress)
            other = form.format(wrong, wrong.replace("_", " "), wrong.replace("_", " ").title())
            yield _pair("label", "another label, dressed", label, label, other, False)
    spans = [row["answer"] for row in _rows(data / "compress" / "rag_multidoc_qa.jsonl") if row.get("answer")]
    for span in sorted({one for one in spans if isinstance(one, str)}):
        for form in ("The answer is {0}.", "**{0}**", "{0}.", "Answer: {0}", "It is {0}."):
            yield _pair("span", form, span, span, form.format(span), True)
        for wrong in chance.sample(spans, 6):
            if wrong.casefold() not in span.casefold() and span.casefold() not in wrong.casefold():
                yield _pair("span", "another span", span, span, wrong, False)


def polar(data: Path, chance: Random) -> Iterator[Pair]:
    """Yes and no, alone and before a reason that is a real sentence."""
    reasons = {one for passage in _passages(data) for one in re.split(r"(?<=[.!?])\s", passage) if len(one.split()) > 4}
    for reason in sorted(reasons):
        lowered = reason[:1].lower() + reason[1:]
        for one, against in (("Yes", "No"), ("No", "Yes")):
            both = f"{against}. {reason}"
            yield _pair("polarity", "a reason", reason, f"{one}.", f"**{one}**, {lowered}", True)
            yield _pair("polarity", "turned", reason, f"{one}.", f"{against}, {lowered}", False)
            yield _pair("polarity", "both with a reason, turned", reason, f"{one}, {lowered}", both, False)


# JSON, calls, code


def values(data: Path, chance: Random) -> Iterator[Pair]:
    """JSON answers written another way, and with one value changed."""
    for row in _rows(data / "compress" / "json_tool_output.jsonl"):
        for message in row["messages"]:
            if message["role"] != "tool":
                continue
            try:
                value = json.loads(message["content"])
            except ValueError:
                continue
            value = value[:3] if isinstance(value, list) else value
            text = json.dumps(value)
            yield _pair("json", "indented", text, text, json.dumps(value, indent=2), True)
            fenced = f"```json\n{json.dumps(_turned(value), indent=1)}\n```"
            yield _pair("json", "fenced, keys turned", text, text, fenced, True)
            for _ in range(3):
                yield _pair("json", "one value", text, text, json.dumps(_changed(value, chance)), False)


def _turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _turned(item) for name, item in reversed(value.items())}
    return [_turned(item) for item in value] if isinstance(value, list) else value


def _changed(value: Any, chance: Random) -> Any:
    """The value with one leaf changed."""
    if isinstance(value, dict) and value:
        name = chance.choice(list(value))
        return value | {name: _changed(value[name], chance)}
    if isinstance(value, list) and value:
        at = chance.randrange(len(value))
        return [*value[:at], _changed(value[at], chance), *value[at + 1 :]]
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + chance.choice([1, -1, 0.01])
    return f"{value}{chance.choice('xyz')}" if isinstance(value, str) else [0]


def calls(data: Path, chance: Random) -> Iterator[Pair]:
    """tau-bench's tool calls against the same with keys turned, and with one argument changed."""
    seen: set[str] = set()
    for row in _rows(data / "compress" / "long_chat_history.jsonl"):
        for message in row["messages"]:
            for call in message.get("tool_calls") or ():
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                if (key := name + arguments) in seen or not json.loads(arguments):
                    continue
                seen.add(key)
                value = json.loads(arguments)
                one = _calling(name, arguments)
                yield Pair("calls", "keys turned", key, one, _calling(name, json.dumps(_turned(value), indent=1)), True)
                other = json.dumps(_changed(value, chance))
                yield Pair("calls", "one argument", key, one, _calling(name, other), False)
                yield Pair("calls", "another tool", key, one, _calling(f"{name}_2", arguments), False)


def _calling(name: str, arguments: str) -> Answer:
    return Answer("", (Call(name, arguments),), finish="calls")


_SWAPS = {"==": "!=", "!=": "==", "<": "<=", ">": ">=", "<=": "<", ">=": ">", "+": "-", "-": "+", "and": "or",
          "or": "and", "not": "", "True": "False", "False": "True"}  # fmt: skip


def code(data: Path, chance: Random) -> Iterator[Pair]:
    """Functions of the standard library, spaced another way, and with one token changed."""
    for row in _rows(data / "compress" / "code_context.jsonl"):
        for message in row["messages"]:
            if message["role"] != "tool" or not isinstance(message["content"], str):
                continue
            for text in re.findall(r"^def .*?(?=^\S|\Z)", message["content"], re.S | re.M)[:12]:
                yield _pair("code", "spaced another way", text, _fenced(text), _fenced(_respaced(text)), True)
                found = list(re.finditer(r" (==|!=|<|>|<=|>=|\+|-|and|or|not|\d+|True|False) ", text))
                if found:
                    at = chance.choice(found)
                    swap = _SWAPS.get(at[1], "7")
                    other = f"{text[: at.start()]} {swap} {text[at.end() :]}"
                    yield _pair("code", "one token", text, _fenced(text), _fenced(other), False)


def _fenced(text: str) -> str:
    return f"```python\n{text.rstrip()}\n```"


def _respaced(text: str) -> str:
    lines = [re.sub(r"^( +)", lambda m: m[1] * 2, line).rstrip() for line in text.splitlines()]
    return "\n\n".join(re.sub(r"(?<=[\w)]),(?=\w)", ", ", line) for line in lines if line)


# Prose: see bench.prose_edits for what is done to a text


def prose(data: Path, chance: Random) -> Iterator[Pair]:
    """Passages and assistant turns, worded another way by safe edits, and with one fact changed."""
    texts = [("passage", text) for text in _passages(data)] + [("turn", text) for text in _turns(data)]
    pool = sorted({name for _, text in texts for name in names_of(text)})
    for kind, text in texts:
        for edit, change in SURFACE.items():
            if (other := change(text, chance)) is not None and other != text:
                yield _pair(kind, edit, text, text, other, True)
        for edit, break_it in FACTS.items():
            if (other := break_it(text, chance, pool)) is not None and other != text:
                yield _pair(kind, edit, text, text, other, False)
                # Hidden under a change of surface, as a model would do it.
                dressed = SURFACE["openers and order"](other, chance)
                if dressed is not None:
                    yield _pair(kind, f"{edit}, dressed", text, text, dressed, False)
        yield _pair(kind, "another text", text, text, chance.choice([one for _, one in texts if one != text]), False)
    yield from questions(data)


def questions(data: Path) -> Iterator[Pair]:
    """Real rewordings, and traps, of single sentences: of each neighbourhood of the qa stream, all pairs of questions
    with three or more words in common."""
    rows = [(row["messages"][-1]["content"], row["class"]) for row in _rows(data / "semcache" / "qa.jsonl")]
    words = [frozenset(re.findall(r"\w{3,}", text.lower())) for text, _ in rows]
    for at, (text, known) in enumerate(rows):
        for back in range(at):
            like = len(words[at] & words[back]) >= max(3, len(words[at]) // 2)
            if (like or rows[back][1] == known) and words[at] != words[back]:
                yield _pair("question", "another's", known, rows[back][0], text, rows[back][1] == known)


def _passages(data: Path) -> list[str]:
    found = set()
    for row in _rows(data / "semcache" / "long.jsonl"):
        if row["slice"] == "long.qa":
            passage = max(row["messages"][-1]["content"].splitlines(), key=len)
            if 60 < len(passage.split()) < 260:
                found.add(passage)
    return sorted(found)


def _turns(data: Path) -> list[str]:
    rows = _rows(data / "compress" / "long_chat_history.jsonl")
    said = {message["content"] for row in rows for message in row["messages"] if message["role"] == "assistant"
            and isinstance(message.get("content"), str) and 15 < len(message["content"].split()) < 200}  # fmt: skip
    return sorted(said)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
