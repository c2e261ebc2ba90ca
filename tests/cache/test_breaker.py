"""The breaker's states, as tables of events."""

from __future__ import annotations

import pytest

from farthing.cache.breaker import Breaker, Gate

# (at which second, what happens, what it says); three failures open it, it pauses ten seconds
TABLES: dict[str, list[tuple[float, str, object]]] = {
    "passes while all is well": [(0, "ask", Gate.PASS), (0, "ok", False), (1, "ask", Gate.PASS)],
    "opens after three in a row": [
        (0, "fail", False),
        (1, "fail", False),
        (2, "fail", True),
        (2, "ask", Gate.REFUSE),
        (11.9, "ask", Gate.REFUSE),
    ],
    "a success between starts the count anew": [
        (0, "fail", False),
        (0, "fail", False),
        (0, "ok", False),
        (0, "fail", False),
        (0, "fail", False),
        (0, "ask", Gate.PASS),
        (0, "fail", True),
    ],
    "one probe at a time, and its success closes": [
        *[(0, "fail", False)] * 2,
        (0, "fail", True),
        (10, "ask", Gate.PROBE),
        (10, "ask", Gate.REFUSE),
        (99, "ask", Gate.REFUSE),
        (99, "ok", True),
        (99, "ask", Gate.PASS),
        (99, "fail", False),
    ],
    "a failed probe pauses again": [
        *[(0, "fail", False)] * 2,
        (0, "fail", True),
        (10, "ask", Gate.PROBE),
        (12, "probe failed", False),
        (21, "ask", Gate.REFUSE),
        (22, "ask", Gate.PROBE),
    ],
    "a late failure prolongs nothing and is no probe": [
        *[(0, "fail", False)] * 2,
        (0, "fail", True),
        (9, "fail", False),
        (10, "ask", Gate.PROBE),
        (11, "fail", False),
        (12, "ask", Gate.REFUSE),
        (12, "ok", True),
    ],
    "a late success closes it too": [
        *[(0, "fail", False)] * 2,
        (0, "fail", True),
        (1, "ok", True),
        (1, "ask", Gate.PASS),
    ],
}


@pytest.mark.parametrize("name", TABLES)
def test_table(name: str) -> None:
    breaker = Breaker(threshold=3, pause_s=10)
    for tick_s, event, said in TABLES[name]:
        if event == "ask":
            answer: object = breaker.ask(tick_s)
        elif event == "ok":
            answer = breaker.succeeded()
            assert breaker.closed
        else:
            answer = breaker.failed(tick_s, probe=event == "probe failed")
        assert answer == said, (tick_s, event)
