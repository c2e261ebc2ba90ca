"""What a request may use, told before it is sent. Pure.

Rules of this file:
1. Cheap: nothing is tokenised. The prompt is taken for so many tokens a byte, more than ordinary text has; what is
   really used is settled afterwards, so a reservation that is too large costs room for some seconds, and nothing else.
2. The output is what the request allows at most. Where it sets no bound, it is what nineteen of twenty answers of that
   model stayed below, so far; and until there are some, what the configuration says.
"""

from __future__ import annotations

import re
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farthing.proxy.usage import Usage, tier_of

__all__ = ["Learned", "estimate"]

_TOKENS_PER_BYTE = 0.7  # English has about 0.23, JSON 0.31, tables up to 0.63, base64 0.68 (docs/policies-spend.md)
_TOKENS_PER_REQUEST = 16
_IMAGE_TOKENS = 2_000
_ENCODED = re.compile(rb"base64,[A-Za-z0-9+/=_-]{256,}")
_BOUNDS = {  # what each API reads; another API's word bounds nothing there
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
}
_MOST_TOKENS = 10**8
_QUANTILE = 0.95
_ENOUGH = 20


@dataclass(slots=True)
class Seen:
    """The latest answers of a model: their lengths in order of coming, and sorted."""

    latest: deque[int] = field(default_factory=deque)
    ordered: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Learned:
    """How long models' answers are. `first`: what is assumed of a model that little is known of, in tokens."""

    first: int = 4096
    most_models: int = 256
    window: int = 256
    models: OrderedDict[str, Seen] = field(default_factory=OrderedDict)

    def output(self, model: str) -> int:
        """A length that few answers exceed, in tokens."""
        seen = self.models.get(model)
        if seen is None or len(seen.ordered) < _ENOUGH:
            return self.first
        return seen.ordered[min(len(seen.ordered) - 1, int(_QUANTILE * len(seen.ordered)))]

    def learn(self, model: str, tokens_out: int) -> None:
        """One more answer."""
        seen = self.models.get(model)
        if seen is None:
            seen = self.models[model] = Seen()
            if len(self.models) > self.most_models:
                self.models.popitem(last=False)
        seen.latest.append(tokens_out)
        insort(seen.ordered, tokens_out)
        if len(seen.latest) > self.window:
            seen.ordered.remove(seen.latest.popleft())


def estimate(
    endpoint: str, payload: Mapping[str, Any], body: bytes, model: str, learned: Learned, *, writes: str = ""
) -> Usage:
    """What a request may be billed with. `body`: as it is sent, but for marks of ours; `writes`: for how long these may
    ask the provider's cache to keep it ('': there will be none; 5m; 1h).

    Where the client marks what the provider is to cache, all of the prompt is taken to be written to that cache, the
    dearest that can happen to it.
    """
    tokens_in = _tokens_in(body)
    output = 0 if endpoint == "embeddings" else _output(endpoint, payload, model, learned)
    tier = tier_of(payload.get("service_tier"))
    if writes or b'"cache_control"' in body:
        if writes == "1h" or b'"1h"' in body:
            return Usage(cache_write_1h=tokens_in, output=output, tier=tier)
        return Usage(cache_write=tokens_in, output=output, tier=tier)
    return Usage(fresh=tokens_in, output=output, tier=tier)


def _tokens_in(body: bytes) -> int:
    if b"base64," not in body:
        return int(len(body) * _TOKENS_PER_BYTE) + _TOKENS_PER_REQUEST
    bare, images = _ENCODED.subn(b"", body)
    return int(len(bare) * _TOKENS_PER_BYTE) + images * _IMAGE_TOKENS + _TOKENS_PER_REQUEST


def _output(endpoint: str, payload: Mapping[str, Any], model: str, learned: Learned) -> int:
    """Output tokens of all answers that are asked for: to each prompt, where there are several. Of several bounds the
    upstream may heed any."""
    bounds = [payload[name] for name in _BOUNDS.get(endpoint, ("max_tokens",)) if _counts(payload.get(name))]
    bound = max(bounds, default=None)
    answers = max([payload[name] for name in ("n", "best_of") if _counts(payload.get(name))], default=1)
    prompts = payload.get("prompt")
    if endpoint == "completions" and isinstance(prompts, list) and any(isinstance(one, str | list) for one in prompts):
        answers *= len(prompts)
    return min(_MOST_TOKENS, (learned.output(model) if bound is None else bound) * answers)


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
