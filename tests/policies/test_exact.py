"""Clopper and Pearson's ends without scipy, against scipy's."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from farthing.policies.calibration import Calibration
from farthing.policies.exact import lower, upper
from farthing.policies.shares import Kind, Reference, Shares


@given(
    n=st.integers(1, 1_000_000),
    share=st.floats(0, 1),
    risk=st.sampled_from([1e-6, 1e-4, 0.001, 0.025, 0.05, 0.4]),
)
def test_both_ends_are_scipys(n: int, share: float, risk: float) -> None:
    count = round(share * n)
    high = 1.0 if count == n else float(beta.ppf(1 - risk, count + 1, n - count))
    low = 0.0 if count == 0 else float(beta.ppf(risk, count, n - count + 1))
    assert upper(count, n, risk) == pytest.approx(high, rel=1e-7)
    assert lower(count, n, risk) == pytest.approx(low, rel=1e-7)


def test_what_is_on_in_every_installation_needs_no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)
    series = Shares(2, Kind.NAMED, Reference(500, 0.0), 1.25)
    alarms = [series.add(int(at % 2 or at > 600), at, float(at), 100.0) for at in range(1_200)]
    assert any(alarm is not None for alarm in alarms)
    pairs = Calibration()
    pairs.add(0.5, 0.0)
    assert pairs.told().n == 1
