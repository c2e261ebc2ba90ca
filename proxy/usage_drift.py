"""Do the provider and we count alike? Sums of both counts over a window, for each model, and when to be alarmed. Pure.

Our count is exact for texts sent to OpenAI's models, so that a lasting difference there means that the bill and the
ledger are about to disagree: another tokenizer, tokens that are billed and not told, usage of another answer. For other
providers' models our count is an estimate; the difference is shown, and is no alarm.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Counted", "Drift", "Ratio", "exact"]

_OPENAI = re.compile(r"(gpt-(?!oss)|chatgpt-|o[134](-|$)|text-embedding-(3|ada)|davinci-002|babbage-002)")
_MOST_MODELS = 50
_LONGEST_NAME = 100  # of a label in /metrics; a client wrote it
_SLOTS = 12


def exact(model: str) -> bool:
    """Whether our tokenizer is the model's own."""
    return _OPENAI.match(model.lower().rpartition("/")[2].removeprefix("ft:")) is not None


class Counted(NamedTuple):
    """Tokens of one answer, or the sum over several, by our count and by theirs."""

    ours_in: int = 0
    theirs_in: int = 0
    ours_out: int = 0
    theirs_out: int = 0
    answers: int = 1


class Ratio(NamedTuple):
    """How far our count is from theirs: (ours - theirs) / theirs, of input and of output; None where there was none.

    `alarm`: it is too far, on enough answers, for a model whose count is exact.
    """

    tokens_in: float | None
    tokens_out: float | None
    answers: int
    alarm: bool


@dataclass(slots=True)
class Drift:
    """Counts of the last `window_s` seconds, in slots; of the models that came first, at most 50.

    `limit`: the share beyond which a difference is one. `enough`: answers that an alarm needs. `slack_tokens`: what an
    answer may differ by on the average whatever its length, since framing is counted here and not there.
    """

    window_s: float = 3600.0
    limit: float = 0.02
    enough: int = 20
    slack_tokens: float = 3.0
    _slots: dict[str, deque[tuple[int, Counted]]] = field(default_factory=dict)
    _alarmed: set[str] = field(default_factory=set)

    def note(self, model: str, counted: Counted, at_s: float) -> Ratio | None:
        """Add one answer's counts. The ratio where it is alarming and wasn't before: each alarm is told once."""
        if model not in self._slots and (len(self._slots) >= _MOST_MODELS or len(model) > _LONGEST_NAME or not model):
            return None
        slots, slot = self._slots.setdefault(model, deque()), self._slot(at_s)
        if slots and slots[-1][0] >= slot:  # a clock that went back adds to the newest slot
            slots[-1] = (slots[-1][0], _sum(slots[-1][1], counted))
        else:
            slots.append((slot, counted))
        ratio = self._ratio(model, at_s)
        if not ratio.alarm:
            self._alarmed.discard(model)
            return None
        if model in self._alarmed:
            return None
        self._alarmed.add(model)
        return ratio

    def ratios(self, now_s: float) -> Mapping[str, Ratio]:
        """Every model of which something was counted within the window."""
        found = {model: self._ratio(model, now_s) for model in self._slots}
        for model, ratio in found.items():
            if not ratio.answers:  # it makes room for another
                del self._slots[model]
                self._alarmed.discard(model)
        return {model: ratio for model, ratio in found.items() if ratio.answers}

    def _slot(self, at_s: float) -> int:
        return int(at_s // (self.window_s / _SLOTS))

    def _ratio(self, model: str, now_s: float) -> Ratio:
        slots, oldest = self._slots[model], self._slot(now_s) - _SLOTS
        while slots and slots[0][0] <= oldest:
            slots.popleft()
        whole = Counted(answers=0)
        for _, counted in slots:
            whole = _sum(whole, counted)
        sides = ((whole.ours_in, whole.theirs_in), (whole.ours_out, whole.theirs_out))
        shares = [(ours - theirs) / theirs if theirs else None for ours, theirs in sides]
        far = any(
            theirs and abs(ours - theirs) > max(self.limit * theirs, self.slack_tokens * whole.answers)
            for ours, theirs in sides
        )
        return Ratio(shares[0], shares[1], whole.answers, far and whole.answers >= self.enough and exact(model))


def _sum(one: Counted, other: Counted) -> Counted:
    return Counted(*(a + b for a, b in zip(one, other, strict=True)))
