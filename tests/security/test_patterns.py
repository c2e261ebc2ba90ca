"""No pattern of the sources runs away (ReDoS): twice as long a text takes it twice as long, not four times.

Each pattern meets texts that all patterns are afraid of, and texts made of itself: what stands before a repetition, and
then what is repeated, over and over, and no end. What counts is how a text's processor time grows with its length, on
one thread, so that a busy machine changes nothing; a text too short to be measured in can't be one.

A pattern that is only ever matched at one place is met there alone, and others are looked for everywhere. Left out are
those of compress/prompt_*.py: no request meets them, but a command on the operator's own traces.
"""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest
import regex

from farthing.proxy.redact import _FOUND

ROOT = Path(__file__).parent.parent.parent
FILES = [path for room in ("proxy", "cache", "compress", "policies") for path in sorted((ROOT / room).glob("*.py"))]
DRAFTS = frozenset((ROOT / "compress").glob("prompt_*.py"))
FEARED = [
    "a", "@", ".", "0", "0-", "sk-", "eyJ.", "a@", "(((", "<", "<!--", "&#", "```", " \n", "\\", '"', "[{", "1,1,",
    "::", "|-", "\x1b[", " ", "\n", "\t", "-", "=", "*", "#", "'", "A", "aA", "_", "/", "a.", "0.", "é", "<a ", "a b ",
    "a\n",
]  # fmt: skip
# Less than a quadratic pattern takes for the longest text: half of 8,192 squared are 33 million steps.
FLOOR_S = 0.01
SHORT, LONG = (24, 36, 48, 512), (8_192,)
TRIES = 3
ENDS = ("", "!", "\x00")
MOST_REPEATS = 40


def consumed(found: Iterable[Any]) -> None:
    for _ in found:
        pass


WAYS: dict[str, Callable[[Any, Any], object]] = {
    "match": lambda pattern, text: pattern.match(text),
    "fullmatch": lambda pattern, text: pattern.fullmatch(text),
    "finditer": lambda pattern, text: consumed(pattern.finditer(text)),
}


# -- which there are


def held(value: Any) -> Iterator[Any]:
    """The patterns in a module's value."""
    if isinstance(value, re.Pattern | regex.Pattern):
        yield value
    elif isinstance(value, tuple | list | set | frozenset):
        for one in value:
            yield from held(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from held(one)


@cache
def calls(path: Path) -> dict[str, set[str]]:
    """By a name: what is called on it in a file. Of what is handed on as a value, 'finditer'."""
    found: dict[str, set[str]] = {}
    called = set()
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.setdefault(node.value.id, set()).add(node.attr)
            called.add(node.value)
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node not in called:
            found.setdefault(node.id, set()).add("finditer")
    return found


def ways_of(path: Path, name: str) -> list[str]:
    """How a module's pattern is used: by match or fullmatch alone, or else as if it were looked for everywhere."""
    readers = [path] if name.startswith("_") else FILES
    methods = set().union(*(calls(one).get(name, set()) for one in readers)) - {"pattern", "flags"}
    return sorted(methods) if methods and methods <= {"match", "fullmatch"} else ["finditer"]


def inline(path: Path) -> Iterator[tuple[str, Any]]:
    """What is written in the middle of a function: `re.sub(r"...", ...)`, or what is compiled when it is needed."""
    module = None
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        first, called = node.args[0], node.func
        if (
            isinstance(called, ast.Attribute)
            and isinstance(called.value, ast.Name)
            and called.value.id == "re"
            and called.attr != "compile"
        ):
            if isinstance(first, ast.Constant) and isinstance(first.value, str | bytes):
                yield f"line {node.lineno}", re.compile(first.value)
        elif isinstance(called, ast.Name) and called.id == "_compiled" and isinstance(first, ast.Name):
            module = module or importlib.import_module(f"farthing.{path.parent.name}.{path.stem}")
            if isinstance(text := getattr(module, first.id, None), str):
                yield first.id, re.compile(text)


def patterns() -> dict[str, tuple[Any, list[str]]]:
    """By name: each of the sources' patterns, and how it is used."""
    found: dict[str, tuple[Any, list[str]]] = {}
    known = set()
    for path in FILES:
        if path in DRAFTS or not re.search(r"\bre\.|regex", path.read_text("utf-8")):
            continue
        module = importlib.import_module(f"farthing.{path.parent.name}.{path.stem}")
        for name, value in vars(module).items():
            for at, pattern in enumerate(held(value)):
                if id(pattern) not in known:
                    known.add(id(pattern))
                    found[f"{path.stem}.{name}.{at}"] = (pattern, ways_of(path, name))
        for name, pattern in inline(path):
            if id(pattern) not in known:
                known.add(id(pattern))
                found[f"{path.stem} {name}"] = (pattern, ["finditer"])
    for kind, one in _FOUND.items():
        found[f"redact {kind}"] = (regex.compile(one.pattern), ["finditer"])
        if one.hint:
            found[f"redact hint of {kind}"] = (regex.compile(one.hint), ["finditer"])
    return found


# -- what they are afraid of


def member(items: Sequence[Any], char: str) -> bool:
    """Whether a character is in a set as it was parsed."""
    kinds: dict[Any, Callable[[str], bool]] = {
        sre.CATEGORY_DIGIT: str.isdigit,
        sre.CATEGORY_SPACE: str.isspace,
        sre.CATEGORY_WORD: lambda one: one.isalnum() or one == "_",
        sre.CATEGORY_NOT_DIGIT: lambda one: not one.isdigit(),
        sre.CATEGORY_NOT_SPACE: lambda one: not one.isspace(),
        sre.CATEGORY_NOT_WORD: lambda one: not (one.isalnum() or one == "_"),
    }
    negated, there = False, False
    for kind, what in items:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            there = there or ord(char) == what
        elif kind is sre.RANGE:
            there = there or what[0] <= ord(char) <= what[1]
        elif kind is sre.CATEGORY:
            there = there or kinds[what](char)
    return there is not negated


def one_of(items: Sequence[Any]) -> str:
    own = [chr(what if kind is sre.LITERAL else what[0]) for kind, what in items if kind in (sre.LITERAL, sre.RANGE)]
    return next((char for char in ("a0 -\n.,\"'A_é" + "".join(own)) if member(items, char)), "a")


def example(nodes: Iterable[Any]) -> str:
    """A short text that fits, but for what looks around and refers back."""
    said = ""
    for kind, what in nodes:
        if kind is sre.LITERAL:
            said += chr(what)
        elif kind is sre.NOT_LITERAL:
            said += "a" if what != ord("a") else "b"
        elif kind is sre.ANY:
            said += "a"
        elif kind is sre.IN:
            said += one_of(what)
        elif kind is sre.BRANCH:
            said += example(what[1][0])
        elif kind is sre.SUBPATTERN:
            said += example(what[3])
        elif kind is sre.ATOMIC_GROUP:
            said += example(what)
        elif kind in REPEATS:
            said += example(what[2]) * min(what[0], MOST_REPEATS)
    return said


REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT)


def pumps(nodes: Iterable[Any], before: str = "") -> Iterator[tuple[str, str]]:
    """For each repetition: a text up to it, and what is repeated; of alternatives each."""
    for kind, what in nodes:
        inner: list[Any] = []
        if kind in REPEATS:
            body = what[2]
            if what[1] >= MOST_REPEATS:
                yield before, example(body)
                for part, value in body:
                    if part is sre.SUBPATTERN and value[3][0][0] is sre.BRANCH:
                        yield from ((before, example(one)) for one in value[3][0][1][1])
            inner = [body]
        elif kind is sre.BRANCH:
            inner = what[1]
        elif kind is sre.SUBPATTERN:
            inner = [what[3]]
        elif kind is sre.ATOMIC_GROUP:
            inner = [what]
        elif kind in (sre.ASSERT, sre.ASSERT_NOT):
            inner = [what[1]]
        for one in inner:
            yield from pumps(one, before)
        before += example([(kind, what)])


def feared_by(pattern: Any) -> list[tuple[str, str, str]]:
    """(begin, what is repeated, end) of each text."""
    text = pattern.pattern
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    try:
        own = list(dict.fromkeys(pumps(parser.parse(text, pattern.flags & ~re.UNICODE & ~0x2000))))
    except (re.error, ValueError):  # regex's own words
        own = []
    texts = [("", unit, end) for unit in FEARED for end in ENDS[1:2]]
    for begin, unit in islice(((begin, unit) for begin, unit in own if unit), 12):
        texts += [(begin, unit, end) for end in ENDS]
        texts += [("", begin + unit, end) for end in ENDS[:2] if begin]
        texts += [(begin, f"{unit} ", "!"), (begin, f"{unit}\n", "!")]
    return list(dict.fromkeys(texts))


# -- how it grows


def taken_s(work: Callable[[], object], times: int) -> float:
    """The least processor seconds of so many."""
    found = []
    for _ in range(times):
        begun = time.thread_time()
        work()
        found.append(time.thread_time() - begun)
    return min(found)


def grows_too_fast(pattern: Any, way: str, feared: tuple[str, str, str]) -> str:
    """Why, in words; '' where it doesn't. It is looked at a second time: what grows does so again, and a machine that
    was slow just then doesn't."""
    return seems_to(pattern, way, feared) and seems_to(pattern, way, feared)


def seems_to(pattern: Any, way: str, feared: tuple[str, str, str]) -> str:
    """The same, of one look."""
    use = WAYS[way]
    begin, unit, end = feared

    def seconds(length: int, times: int) -> float:
        made = begin + unit * (length // len(unit) + 1) + end
        text: Any = made.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else made
        return taken_s(lambda: use(pattern, text), times)

    for length in (*SHORT, *LONG):
        if seconds(length, 1) < FLOOR_S or seconds(length, 3) < FLOOR_S:
            continue
        if length in SHORT:
            return f"{feared!r} by {way}: {length} characters take more than {FLOOR_S} s"
        # In turns, and the middle one: a machine that has become slow or fast between the two is told apart so.
        tries = [(seconds(length, 3), seconds(2 * length, 3)) for _ in range(TRIES)]
        once, twice = sorted(tries, key=lambda one: one[1] / one[0])[TRIES // 2]
        if twice > 3 * once:
            return f"{feared!r} by {way}: {length} characters take {once:.3f} s, and twice as many {twice:.3f} s"
        return ""
    return ""


ALL = patterns()


def test_the_sources_patterns_are_found() -> None:
    assert len(ALL) > 150
    assert {"text._URL.0", "sse._BLANK.0", "unmatchable _HIDDEN", "redact email"} <= ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_no_pattern_grows_faster_than_its_text(name: str) -> None:
    pattern, ways = ALL[name]
    found = (grows_too_fast(pattern, way, feared) for way in ways for feared in feared_by(pattern))
    assert next(filter(None, found), "") == ""


@pytest.mark.parametrize(
    ("bad", "way"),
    [
        *(pytest.param(slow, "finditer", marks=pytest.mark.long) for slow in (r"\s+$", r"[\w.]+@[\w.]+\.com")),
        (r"x*x*y", "match"), (r"(a|b|ab)*c", "fullmatch"), (r"<!--.*?-->", "finditer"),
    ],
)  # fmt: skip
def test_patterns_that_run_away_are_told(bad: str, way: str) -> None:
    pattern = re.compile(bad)
    assert any(grows_too_fast(pattern, way, feared) for feared in feared_by(pattern))


@pytest.mark.parametrize("good", [r"(?<!\s)\s++$", r"a{1,400}?b", r"(?<![a-z])[a-z]++@", r'"[^"\n]{1,400}+"'])
def test_patterns_that_do_not_are_let_be(good: str) -> None:
    pattern = re.compile(good)
    found = (grows_too_fast(pattern, "finditer", feared) for feared in feared_by(pattern))
    assert next(filter(None, found), "") == ""
