"""How recode's and squeeze's policies are had from the configuration, and what their evidence hangs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from farthing.compress.forms import VERSION
from farthing.policies import agree_measured
from farthing.policies.agree_measured import comparator
from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Bound, Mode, Policy
from farthing.policies.static import Static
from farthing.policies.verified import Settings, Verified
from farthing.proxy.config_compress import Compress
from farthing.proxy.learnt import Recipe

__all__ = ["RECODED", "SQUEEZED"]

# A form is sent or it isn't: every request that it changes has one and the same score.
_ONE_STEP = Ladder((0.5,), (1.0,))
_LEAST_AUDITED = 0.01


def _policy(compress: Compress, mode: Mode) -> Policy:
    bound = Bound(compress.max_worse, "hit", compress.confidence)
    share = compress.shadow_share
    if compress.unproven:
        return Static(0.5, on="score", bound=bound, mode=mode, audit_share=share)
    floor = min(share, _LEAST_AUDITED)
    return Verified(
        Settings(bound, mode, comparator=comparator(), audit_share=share, audit_floor=floor, ladder=_ONE_STEP)
    )


def _made_with(compress: Compress) -> str:
    """What texts are changed, and how they are compared."""
    marks = [(mark.begin, mark.end, mark.roles) for mark in compress.retrieved]
    return f"{VERSION} html={compress.reduce_html} {marks} {agree_measured.VERSION}"


def _squeezed_with(compress: Compress) -> str:
    """The same, and what else a step of one name may mean."""
    more = (compress.recode == "serve", compress.squeeze_keeps_tokens, str(compress.words_model))
    return f"{_made_with(compress)} {more}"


def _recipe(
    name: Literal["recode", "squeeze"], mode: Callable[[Compress], Mode], made_with: Callable[[Compress], str]
) -> Recipe[Compress]:
    def kind(compress: Compress) -> str:
        return "static" if compress.unproven else "verified"

    return Recipe(
        about=f"{name}d texts",
        file=lambda compress: f"compress-{name}-{kind(compress)}.json",
        kind=kind,
        made_with=made_with,
        new=lambda compress: _policy(compress, mode(compress)),
        off=lambda compress: mode(compress) == "off",
    )


RECODED = _recipe("recode", lambda compress: compress.recode, _made_with)
SQUEEZED = _recipe("squeeze", lambda compress: compress.squeeze, _squeezed_with)
