"""Is an answer's Python code well formed, and what must be run to see whether it passes its tests? Pure: nothing is run
here; proxy/judge_code.py runs it where the operator allows that.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from farthing.policies.agree_code import blocks_of
from farthing.policies.judges import BAD, GOOD, JudgeCase, Score

__all__ = ["Code", "Program"]

_MOST_CHARS = 100_000


class Program(NamedTuple):
    """Python to run, and Python to run after it in the same names, which raises where the first is wrong."""

    code: str
    tests: str


@dataclass(frozen=True, slots=True)
class Code:
    """The answer's Python (what stands between fences, else all of it) parses; with tests, it passes them.

    `tests`: Python that raises, by assert for example, where the answer is wrong. `reference_tests`: the case's
    reference holds them. With either, the code must be run.
    """

    tests: str = ""
    reference_tests: bool = False
    name: ClassVar[str] = "code"
    compares: ClassVar[bool] = False

    @property
    def runs(self) -> bool:
        """Whether a verdict needs the code to be run."""
        return bool(self.tests) or self.reference_tests

    def judge(self, case: JudgeCase) -> Score:
        """0 for what is no Python; where there are tests, None for all else, since here nothing is run."""
        found = self.program(case)
        if isinstance(found, Score):
            return found
        return Score(None, "its tests must be run") if self.runs else Score(GOOD, "parses")

    def program(self, case: JudgeCase) -> Program | Score:
        """What is to be run, or the score where that is known without."""
        code = _code(case.answer.text)
        if reason := _fault(code):
            return Score(BAD, reason)
        tests = [self.tests] if self.tests else []
        if self.reference_tests:
            if case.reference is None:
                return Score(None, "no reference, so no tests")
            tests.append(_code(case.reference.text))
        return Program(code, "\n".join(tests))


def _code(text: str) -> str:
    return "\n".join(blocks_of(text)[0]) or text


def _fault(code: str) -> str:
    """Why this is no Python; a lone word or number is none either."""
    if len(code) > _MOST_CHARS:
        return "too long to be parsed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the answer's own: an invalid escape
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "does not parse"
    idle = [isinstance(one, ast.Expr) and isinstance(one.value, ast.Name | ast.Constant) for one in tree.body]
    return "no code" if all(idle) else ""
