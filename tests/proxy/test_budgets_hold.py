"""What a request holds: each attempt has its own share of it, and all that was billed counts in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from farthing.proxy.body import NoBody
from farthing.proxy.budgets_hold import Hold, Share, used
from farthing.proxy.exchange import Billed, Call, Exchange, Original
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.usage import Usage

AMOUNTS = st.builds(Share, st.integers(0, 100), st.integers(0, 100))


def exchange(call: Call | None) -> Exchange:
    original = Original("POST", "/v1/chat/completions", CIMultiDictProxy(CIMultiDict()), NoBody(), HeaderFacts(()))
    ex = Exchange("far-1", original, 0.0, 0.0)
    ex.call = call
    return ex


@given(st.integers(0, 100), st.integers(0, 100), st.lists(st.tuples(AMOUNTS, st.booleans(), st.integers(0, 3))))
def test_what_is_held_is_never_less_than_what_attempts_may_cost(
    pico: int, tokens: int, attempts: list[tuple[Share, bool, int]]
) -> None:
    """However attempts begin beside each other, and whichever of them weren't billed, told once or twice."""
    hold = Hold("h", pico=pico, tokens=tokens)
    begun: list[Share] = []
    for share, fails, which in attempts:
        lack = hold.begin(share)
        hold.more.append(Hold(f"h+{len(hold.more)}", pico=lack.pico))
        hold.tokens += lack.tokens
        begun.append(share)
        if fails:
            for _ in range(2):
                hold.take_back(begun[min(which, len(begun) - 1)])
        left = Share(sum(one.pico for one in begun), sum(one.tokens for one in begun))
        assert hold.attempts == left
        assert left.pico <= hold.pico + sum(one.pico for one in hold.more)
        assert left.tokens <= hold.tokens


def test_a_first_attempt_that_said_nothing_has_all_that_was_reserved() -> None:
    hold = Hold("h", pico=10, tokens=5)
    for _ in range(2):
        hold.begin_first()
    assert hold.attempts == Share(10, 5)
    assert hold.begin(Share(3, 2)) == Share(3, 2)


def test_what_counts_is_all_that_was_billed() -> None:
    """Rounds before the answer, tries, losers; the answer itself where it was billed, whole where nobody knows it."""
    hold, usage = Hold("h", tokens=1000), Usage(fresh=7, output=2)
    earlier, other = Usage(fresh=20, cached=1, output=3), Usage(fresh=100, output=50)
    ex = exchange(Call("c", earlier=[earlier], others=[Billed("m", other)]))
    assert used(ex, hold, usage, billed=True) == 9 + 24 + 150
    assert used(ex, hold, usage, billed=False) == used(ex, hold, None, billed=False) == 24 + 150
    assert used(ex, hold, None, billed=True) == 1000
    assert used(exchange(None), hold, None, billed=False) == 0
