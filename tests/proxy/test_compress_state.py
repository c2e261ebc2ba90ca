"""What was proved of a form speaks for no other form, whatever its name."""

from __future__ import annotations

from typing import Any

import pytest

from farthing.proxy.compress_state import RECODED, SQUEEZED
from farthing.proxy.config_compress import Compress, RetrievedContent

SERVES = {"recode": "serve", "squeeze": "serve", "shadow_daily_usd": 1}
MARKS = (RetrievedContent(begin="<d>", end="</d>"),)


def settings(**more: Any) -> Compress:
    return Compress(**SERVES | more)


@pytest.mark.parametrize(
    ("more", "recoded", "squeezed"),
    [
        ({}, False, False),
        ({"max_worse": 0.1, "confidence": 0.9, "shadow_share": 0.5}, False, False),
        ({"reduce_html": True, "retrieval": True}, True, True),
        ({"retrieved": MARKS}, True, True),
        ({"squeeze_keeps_tokens": 500}, False, True),
        ({"recode": "observe"}, False, True),
        ({"words_model": "weights"}, False, True),
    ],
)
def test_evidence_hangs_on_all_that_changes_a_form(more: dict[str, Any], recoded: bool, squeezed: bool) -> None:
    before, after = settings(), settings(**more)
    assert (RECODED.made_with(before) != RECODED.made_with(after)) is recoded
    assert (SQUEEZED.made_with(before) != SQUEEZED.made_with(after)) is squeezed
