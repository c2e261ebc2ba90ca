"""The circuit of a replica: when it opens, when it lets a probe through, what closes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.circuit import Circuit, CircuitRules, Gate

RULES = CircuitRules(failures=3, pause_s=10.0, share=0.5, least_calls=8, window_s=20.0)


def opened(tick_s: float = 0.0) -> Circuit:
    circuit = Circuit(RULES)
    for _ in range(RULES.failures):
        circuit.failed(tick_s, probe=circuit.begin())
    assert circuit.open
    return circuit


def test_it_opens_after_failures_in_a_row_and_a_success_between_begins_anew() -> None:
    circuit = Circuit(RULES)

    told = [
        circuit.failed(0, probe=False),
        circuit.failed(0, probe=False),
        circuit.succeeded(0, probe=False),
        circuit.failed(0, probe=False),
        circuit.failed(0, probe=False),
        circuit.failed(0, probe=False),
    ]

    assert told == [False, False, False, False, False, True]
    assert circuit.gate(0) is Gate.REFUSE


def test_a_shorter_pause_can_be_asked_for_but_no_longer_one() -> None:
    circuit = opened(0.0)

    assert (circuit.gate(1), circuit.gate(1, 1), circuit.gate(0.9, 1)) == (Gate.REFUSE, Gate.PROBE, Gate.REFUSE)
    assert (circuit.wait_s(0.5), circuit.wait_s(0.5, 1), circuit.wait_s(0.5, 99)) == (9.5, 0.5, 9.5)
    circuit.begin()
    assert circuit.gate(1, 1) is Gate.REFUSE, "one probe at a time"


def test_a_share_of_failures_opens_it_though_never_so_many_come_in_a_row() -> None:
    circuit = Circuit(RULES)
    opened_at = None
    for call in range(20):
        if call % 2 and circuit.failed(call * 0.1, probe=False):
            opened_at = call
            break
        if not call % 2:
            circuit.succeeded(call * 0.1, probe=False)

    assert opened_at == 7  # the eighth call: four of eight


def test_old_calls_leave_the_window() -> None:
    circuit = Circuit(RULES)
    for call in range(6):
        circuit.succeeded(call, probe=False) if call % 2 else circuit.failed(call, probe=False)

    assert not circuit.failed(100.0, probe=False)
    assert not circuit.failed(100.0, probe=False)


def test_after_the_pause_one_call_probes_and_the_others_are_refused() -> None:
    circuit = opened()

    assert circuit.gate(9.9) is Gate.REFUSE
    assert circuit.wait_s(4.0) == 6.0
    assert circuit.gate(10.0) is Gate.PROBE
    assert circuit.begin()
    assert circuit.gate(10.0) is Gate.REFUSE


def test_the_probe_decides() -> None:
    closing, opening, leaving = opened(), opened(), opened()

    assert closing.succeeded(10.0, probe=closing.begin())
    assert closing.gate(10.0) is Gate.PASS
    opening.failed(10.0, probe=opening.begin())
    assert opening.gate(19.9) is Gate.REFUSE
    assert opening.gate(20.0) is Gate.PROBE
    leaving.given_up(probe=leaving.begin())
    assert leaving.gate(10.0) is Gate.PROBE


def test_calls_from_before_it_opened_say_nothing() -> None:
    circuit = opened()

    assert not circuit.succeeded(5.0, probe=False)
    assert not circuit.failed(5.0, probe=False)
    circuit.given_up(probe=False)

    assert circuit.open
    assert circuit.wait_s(5.0) == 5.0


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["well", "ill", "left"])), max_size=80))
def test_at_most_one_probe_is_under_way_and_a_closed_circuit_always_passes(story: list[tuple[float, str]]) -> None:
    """Calls overlap: each ends only when three more have begun."""
    circuit, tick_s = Circuit(RULES), 0.0
    under_way: list[tuple[bool, str]] = []
    for passed_s, end in story:
        tick_s += passed_s
        gate = circuit.gate(tick_s)
        assert (gate is Gate.PASS) == (not circuit.open)
        if gate is not Gate.REFUSE:
            under_way.append((circuit.begin(), end))
        assert sum(probe for probe, _ in under_way) <= 1
        if len(under_way) > 3 or gate is Gate.REFUSE:
            probe, how = under_way.pop(0) if under_way else (False, "left")
            if how == "well":
                closed = circuit.succeeded(tick_s, probe=probe)
                assert closed == probe
            elif how == "ill":
                circuit.failed(tick_s, probe=probe)
            else:
                circuit.given_up(probe=probe)
    if not any(probe for probe, _ in under_way):
        assert circuit.gate(tick_s + RULES.pause_s + 0.001) is not Gate.REFUSE
