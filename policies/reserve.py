"""What a request may use, told before it is sent. Pure.

Rules of this file:
1. Cheap: nothing is tokenised. The prompt is taken for a token a byte: three times what most text has, and what no text
   exceeds, whoever made it (tokenizers merge bytes, and never split one). What is really used is settled afterwards, so
   a reservation that is too large costs room for some seconds, and nothing else.
2. The output is what the request allows at most. Where it sets no bound, it is what nineteen of twenty answers of that
   model stayed below, so far; and until there are some, what the configuration says.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from farthing.proxy.usage import Usage, tier_of

__all__ = ["Learned", "bounds_of", "count", "estimate"]

_TOKENS_PER_REQUEST = 16
_IMAGE_TOKENS = 5_000  # OpenAI's tiles come to 1,445 at most; others cut finer
_DEAR_IMAGES = ("gpt-4o-mini",)  # as many dollars an image as of gpt-4o, in 33 times as many tokens
_DEAR_IMAGE_TOKENS = 50_000
_IMAGES = frozenset({"image_url", "input_image", "image", "computer_screenshot"})
_BOUNDS = {  # what each API reads; another API's word bounds nothing there
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
}
_TIMES = ("n", "best_of")
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
    endpoint: str,
    payload: Mapping[str, Any],
    body: bytes,
    model: str,
    learned: Learned,
    *,
    writes: str = "",
    served: str = "",
) -> Usage:
    """What a request may be billed with. `body`: as it is sent, but for marks of ours; `writes`: for how long these may
    ask the provider's cache to keep it ('': there will be none; 5m; 1h). `served`: the model that is asked, where it
    isn't `model`, by whose name answers are learnt.

    Where the client marks what the provider is to cache, all of the prompt is taken to be written to that cache, the
    dearest that can happen to it.
    """
    tokens_in = _tokens_in(payload, body, served or model)
    output = 0 if endpoint == "embeddings" else _output(endpoint, payload, model, learned)
    tier = tier_of(payload.get("service_tier"))
    if writes or b'"cache_control"' in body:
        if writes == "1h" or b'"1h"' in body:
            return Usage(cache_write_1h=tokens_in, output=output, tier=tier)
        return Usage(cache_write=tokens_in, output=output, tier=tier)
    return Usage(fresh=tokens_in, output=output, tier=tier)


def bounds_of(endpoint: str) -> tuple[str, ...]:
    """The names by which a request says how much may be answered."""
    return (*_BOUNDS.get(endpoint, ("max_tokens",)), *_TIMES)


def _tokens_in(payload: Mapping[str, Any], body: bytes, model: str) -> int:
    text, tokens = len(body), _TOKENS_PER_REQUEST
    if b"image" in body or b"screenshot" in body:
        each = _DEAR_IMAGE_TOKENS if model.startswith(_DEAR_IMAGES) else _IMAGE_TOKENS
        for encoded in _images(payload):
            text -= encoded
            tokens += each
    return max(0, text) + tokens


def _images(payload: Mapping[str, Any]) -> Iterator[int]:
    """Each image that is shown, in a message or in a tool's result: the length of what encodes it, which is no text. A
    document's or a sound's isn't taken out: there may be as much in it as a text of that length has."""
    left = [payload.get(name) for name in ("messages", "input", "system")]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            if one.get("type") in _IMAGES:
                yield _encoded(one)
            else:
                left += [one.get("content"), one.get("output")]


def _encoded(image: Mapping[str, Any]) -> int:
    url, source = image.get("image_url"), image.get("source")
    if isinstance(url, dict):
        url = url.get("url")
    if isinstance(url, str) and url.startswith("data:image/"):
        return len(url)
    if isinstance(source, dict) and str(source.get("media_type")).startswith("image/"):
        data = source.get("data")
        return len(data) if isinstance(data, str) else 0
    return 0


def _output(endpoint: str, payload: Mapping[str, Any], model: str, learned: Learned) -> int:
    """Output tokens of all answers that are asked for: to each prompt, where there are several. Of several bounds the
    upstream may heed any."""
    bounds = [count(payload.get(name)) for name in _BOUNDS.get(endpoint, ("max_tokens",))]
    bound = max(bounds)
    answers = max([1, *(count(payload.get(name)) for name in _TIMES)])
    prompts = payload.get("prompt")
    if endpoint == "completions" and isinstance(prompts, list) and any(isinstance(one, str | list) for one in prompts):
        answers *= len(prompts)
    return min(_MOST_TOKENS, (bound or learned.output(model)) * answers)


def count(value: object) -> int:
    """The number that an upstream may take this for, rounded up; 0 where it is none that counts. There are those that
    take 64.0 and "64" for 64."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return 0
    return math.ceil(min(number, _MOST_TOKENS)) if number > 0 else 0
