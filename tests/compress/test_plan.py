"""The plan: config and header together, as a table."""

from __future__ import annotations

import pytest

from farthing.compress.plan import plan


@pytest.mark.parametrize(
    ("tidy_on", "asked", "steps", "reason"),
    [
        (True, "", ("tidy",), ""),
        (True, "tidy", ("tidy",), ""),
        (True, "off", (), ""),
        (True, "squeeze", ("tidy",), "squeeze is not available"),
        (True, "zip", ("tidy",), "zip is not available"),
        (False, "", (), ""),
        (False, "off", (), ""),
        (False, "tidy", (), "tidy is switched off in the configuration"),
        (False, "squeeze", (), "squeeze is not available"),
    ],
)
def test_plan(tidy_on: bool, asked: str, steps: tuple[str, ...], reason: str) -> None:
    chosen = plan(tidy_on, asked)
    assert (chosen.steps, chosen.reason) == (steps, reason)
