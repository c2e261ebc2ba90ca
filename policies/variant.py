"""One way to do a job: an upstream, a model and its parameters; and whether a request fits it. Pure.

Rules of this file:
1. What a variant puts into a request is spliced in: every byte that isn't its own stays.
2. What the client sets itself is the client's: a variant's parameter is put in only where the request has none.
3. A size is an estimate (size.py); what may not fit the window by the upper one doesn't.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import orjson

from farthing.policies.size import ROOM, Size
from farthing.proxy.jsontext import insert_member, members, splice

__all__ = ["DEFAULT_UPSTREAM", "STUDENT", "Kind", "Needs", "Variant", "put_in", "unfit"]

DEFAULT_UPSTREAM = "default"
STUDENT = "student/"
"""How the model of a student's answer begins, in the ledger and in prices."""
Kind = Literal["full", "distilled", "int8", "int4", "pruned"]


@dataclass(slots=True)  # not frozen: one is made for each request, and that would take three times as long
class Needs:
    """What a request needs of whoever serves it. `tokens_in`: estimated; `tokens_out`: the most it asks for, 0: any.

    `audio`: it is heard, or asked for. `files`: documents are shown. `hosted`: tools that the provider itself has.
    `size`: of what `tokens_in` is the middle estimate.
    """

    tokens_in: int = 0
    tokens_out: int = 0
    tools: bool = False
    images: bool = False
    json: bool = False
    logprobs: bool = False
    audio: bool = False
    files: bool = False
    hosted: bool = False
    size: Size | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Variant:
    """See config_routes.VariantSection. `params`: names and JSON values. `context_tokens` 0: unknown, taken as enough.

    `quality`: measured, 0 to 1; None: never measured. `identity`: of its upstream, what can change an answer.
    `student`: of farthing's own (proxy/students.py), which answers in this process, or leaves it to the next.
    """

    name: str
    model: str
    upstream: str = DEFAULT_UPSTREAM
    params: tuple[tuple[str, bytes], ...] = ()
    kind: Kind = "full"
    context_tokens: int = 0
    tools: bool = True
    images: bool = True
    json_mode: bool = True
    logprobs: bool = True
    audio: bool = True
    files: bool = True
    hosted_tools: bool = True
    quality: float | None = None
    identity: str = ""
    student: str = ""

    @property
    def signature(self) -> list[object]:
        """All of it that can change an answer, as plain values."""
        return [self.upstream, self.identity, self.model, [[name, value.decode()] for name, value in self.params]]

    def is_plainly(self, model: str) -> bool:
        """Whether it is nothing but that model at the default upstream: then a request goes as it came."""
        return self.model == model and self.upstream == DEFAULT_UPSTREAM and not self.params


def unfit(variant: Variant, needs: Needs) -> str:
    """Why this variant can't serve such a request; '' where it can."""
    if needs.tools and not variant.tools:
        return "no tools"
    if needs.images and not variant.images:
        return "no images"
    if needs.json and not variant.json_mode:
        return "no JSON mode"
    if needs.logprobs and not variant.logprobs:
        return "no log-probabilities"
    if needs.audio and not variant.audio:
        return "no audio"
    if needs.files and not variant.files:
        return "no files"
    if needs.hosted and not variant.hosted_tools:
        return "no hosted tools"
    if variant.context_tokens and not _holds(variant.context_tokens - needs.tokens_out, needs):
        return "too long"
    return ""


def _holds(tokens: int, needs: Needs) -> bool:
    return needs.tokens_in * ROOM <= tokens if needs.size is None else needs.size.within(tokens)


def put_in(body: bytes, variant: Variant) -> bytes:
    """The request `body`, a JSON object whose keys differ, asked of `variant`; all bytes but the model's and new
    members' stay.

    Raises ValueError: `body` is not an object.
    """
    model = orjson.dumps(variant.model)
    span: tuple[int, int] | None = None
    present = set()
    for member in members(body):
        present.add(member.key)
        if member.key == "model":
            span = (member.start, member.end)
            if not variant.params:
                break
    if span is None:
        out = insert_member(body, "model", model)
    else:
        out = body if body[span[0] : span[1]] == model else splice(body, [(*span, model)])
    for name, value in variant.params:
        if name not in present:
            out = insert_member(out, name, value)
    return out
