"""What a provider said of its cache the last time that a conversation was sent. Pure; in memory only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from farthing.compress.pay import Seen

__all__ = ["LastAnswers"]

_LOOK_BACK = 64  # turns: no answer has as many parts


class LastAnswers:
    """Usage by the key of the last turn sent (`decided.chain`); the longest ago noted goes first, beyond `most`."""

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._noted: OrderedDict[bytes, tuple[int, int, float]] = OrderedDict()

    def note(self, keys: Sequence[bytes], tokens_in: int, tokens_cached: int, at_s: float) -> None:
        """An answer came to the request with these keys; `at_s`: seconds since the epoch."""
        if keys:
            self._noted[keys[-1]] = (tokens_in, tokens_cached, at_s)
            self._noted.move_to_end(keys[-1])
            if len(self._noted) > self._most:
                self._noted.popitem(last=False)

    def seen(self, keys: Sequence[bytes], first_new: int, now_s: float) -> Seen | None:
        """What the answer before said, of a request with these keys; `first_new`: of `decided.first_new`.

        None: nothing is known, as before a conversation's first answer.
        """
        for number in range(min(first_new, len(keys)) - 1, max(-1, first_new - 1 - _LOOK_BACK), -1):
            noted = self._noted.get(keys[number])
            if noted is not None:
                tokens_in, tokens_cached, at_s = noted
                return Seen(tokens_in, tokens_cached, max(0.0, now_s - at_s))
        return None
