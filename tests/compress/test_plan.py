"""The plan: config and header together, as a table."""

from __future__ import annotations

import pytest

from farthing.compress.plan import plan


@pytest.mark.parametrize(
    ("tidy", "squeeze", "asked", "tidies", "recodes", "squeezes", "reason"),
    [
        (True, "off", "", True, True, True, ""),
        (True, "off", "tidy", True, False, False, ""),
        (True, "off", "off", False, False, False, ""),
        (True, "off", "squeeze", True, True, True, "squeeze is switched off in the configuration"),
        (True, "observe", "squeeze", True, True, True, "squeeze is only observed"),
        (True, "serve", "squeeze", True, True, True, ""),
        (True, "off", "zip", False, False, False, ""),
        (False, "off", "", False, True, True, ""),
        (False, "off", "off", False, False, False, ""),
        (False, "serve", "tidy", False, False, False, "tidy is switched off in the configuration"),
    ],
)
def test_plan(tidy: bool, squeeze: str, asked: str, tidies: bool, recodes: bool, squeezes: bool, reason: str) -> None:
    chosen = plan(tidy=tidy, squeeze=squeeze, asked=asked)
    assert (chosen.tidy, chosen.may("recode"), chosen.may("squeeze")) == (tidies, recodes, squeezes)
    assert chosen.reason == reason
