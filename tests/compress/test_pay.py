"""Does it pay: exact figures by hand, and promises over all facts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.decided import chain
from farthing.compress.last_answers import LastAnswers
from farthing.compress.later_turns import LaterTurns, Survival, depth
from farthing.compress.pay import PayFacts, Seen, pays
from farthing.compress.provider_cache import NO_CACHE, Kind, ProviderCache, provider_cache
from farthing.proxy.attribute import as_original
from farthing.proxy.prices import Rates, Tiered
from farthing.proxy.usage import Usage

OPENAI = ProviderCache(Kind.AUTOMATIC, 1024, 128, 300.0)
ANTHROPIC = ProviderCache(Kind.EXPLICIT, 1024, 1, 300.0)


def rates(
    fresh: str = "2", cached: str = "0.2", write: str = "2", steps: tuple[tuple[int, Decimal], ...] = ()
) -> Rates:
    def tiered(rate: str) -> Tiered:
        return Tiered(Decimal(rate), tuple((at, Decimal(rate) * factor) for at, factor in steps))

    return Rates(tiered(fresh), tiered(cached), tiered(write), tiered("9"), tiered("9"), "test")


def facts(saved: int = 500, prompt: int = 5000, cache: ProviderCache = OPENAI, **others: object) -> PayFacts:
    return PayFacts(rates(), cache, prompt, saved)._replace(**others)


# A token at 2 dollars a million is 2,000,000 pico-dollars.
@pytest.mark.parametrize(
    ("given", "worth", "pico", "reason"),
    [
        (facts(), True, 500 * 2_000_000, "pays"),
        (facts(later_turns=Decimal("2.5")), True, 500 * 2_000_000 + 5 * 250 * 200_000, "pays"),
        (facts(cache=NO_CACHE, later_turns=Decimal(2)), True, 3 * 500 * 2_000_000, "pays"),
        (facts(cache=ANTHROPIC, rates=rates(write="2.5")), True, 500 * 2_500_000, "pays"),
        (facts(cache=ANTHROPIC, rates=rates(write="2.5"), marked=False), True, 500 * 2_000_000, "pays"),
        (facts(rates=None), False, 0, "no price is known"),
        (facts(0), False, 0, "saves no tokens"),
        (facts(-5), False, 0, "saves no tokens"),
        (facts(85), False, 85 * 2_000_000, "no more than rounding may take"),
        (facts(86), True, 86 * 2_000_000, "pays"),
        (facts(6, tokens_saved_before=80), True, 6 * 2_000_000, "pays"),
        (facts(6, cache=ANTHROPIC), True, 6 * 2_000_000, "pays"),
        (facts(6, cache=NO_CACHE), True, 6 * 2_000_000, "pays"),
        # time: 3 ms at a dollar a second are 0.003 dollars, three times what is saved
        (facts(overhead_ms=3.0, usd_per_second=Decimal(1)), False, 10**9 - 3 * 10**9, "costs more than it saves"),
        (facts(overhead_ms=0.5, usd_per_second=Decimal(1)), True, 10**9 - 5 * 10**8, "pays"),
        # a tool of 600 tokens against 500 saved
        (facts(tool_tokens=600), False, -100 * 2_000_000, "costs more than it saves"),
        (facts(tool_tokens=100, later_turns=Decimal(1)), True, 400 * 2_200_000, "pays"),
        # 4,000 tokens were read a minute ago, and would be lost
        (facts(seen=Seen(4600, 4000, 60.0)), True, 500 * 2_000_000, "pays"),
        (
            facts(seen=Seen(4600, 4000, 60.0), tokens_changed=3000),
            False,
            500 * 2_000_000 - 3000 * 1_800_000,
            "loses reads",
        ),
        (facts(seen=Seen(4600, 4000, 301.0), tokens_changed=3000), True, 500 * 2_000_000, "pays"),
        # 1,100 tokens would be cached, 800 are not: 224 short, 7 turns of 32, each 1,023 fresh against 1,323 read
        (
            facts(300, 1100),
            False,
            300 * 2_000_000 - 7 * (1023 * 2_000_000 - 1323 * 200_000),
            "falls below the provider's minimum",
        ),
        (facts(300, 1100, NO_CACHE), True, 300 * 2_000_000, "pays"),
        (facts(300, 1100, ANTHROPIC, marked=False), True, 300 * 2_000_000, "pays"),
        # it pays all the same where so much is saved that no growth makes up for it
        (facts(30_000, 31_000), True, 30_000 * 2_000_000 - 0, "pays"),
    ],
)
def test_figures(given: PayFacts, worth: bool, pico: int, reason: str) -> None:
    pay = pays(given)

    assert (pay.worth, pay.predicted_pico, pay.reason) == (worth, pico, reason)
    assert pay.predicted_usd == Decimal(pico) / 10**12


def test_a_step_of_the_price_counts_for_the_whole_prompt() -> None:
    tiered = rates(steps=((200_000, Decimal(2)),))
    pay = pays(facts(1000, 200_500, rates=tiered))

    assert pay.predicted_pico == 200_500 * 4_000_000 - 199_500 * 2_000_000


@given(
    st.integers(2, 6000) | st.integers(900, 1400),
    st.integers(0, 6000) | st.integers(0, 500),
    st.lists(st.integers(32, 400), min_size=1, max_size=30),
    st.sampled_from([NO_CACHE, ANTHROPIC]),
    st.sampled_from(["2", "2.5"]),
    st.integers(0, 20),
)
def test_no_growth_makes_it_dearer(
    prompt: int, saved: int, growth: list[int], cache: ProviderCache, write: str, later: int
) -> None:
    """Whatever a conversation brings, as long as each turn adds 32 tokens and its provider cuts nothing to steps."""
    saved = min(saved, prompt - 1)
    asked = rates(write=write)
    pay = pays(PayFacts(asked, cache, prompt, saved, later_turns=Decimal(later)))

    def bill(first: int) -> int:
        total, read, length = 0, 0, first
        for more in (0, *growth):
            length += more
            if cache.kind is Kind.NONE or length < cache.minimum_tokens:
                total += asked.pico(Usage(fresh=length))
                continue
            total += asked.pico(Usage(cached=read, cache_write=length - read))
            read = length
        return total

    if pay.worth:
        assert bill(prompt - saved) <= bill(prompt)


@given(st.integers(0, 9000), st.integers(0, 9000), st.integers(0, 500), st.integers(0, 900), st.integers(0, 9000))
def test_the_original_used_what_was_saved_more(fresh: int, cached: int, new: int, old: int, before: int) -> None:
    for usage in (Usage(fresh=fresh, cached=cached), Usage(cache_write=fresh, cached=cached), Usage(5, cached, fresh)):
        original = as_original(usage, new + old, old, before)
        assert original.tokens_in == usage.tokens_in + new + old
        assert cached <= original.cached <= cached + old
        if not before or not cached:
            assert original.cached == cached
        if before and cached >= before:
            assert original.cached == cached + old


def test_what_providers_cache() -> None:
    def pays(model: str, provider: str = "auto") -> tuple[object, ...]:
        """What compression reckons with."""
        found = provider_cache(model, provider)
        return (*found[:5], found.charges_writes, found.look_back_blocks)

    openai = (Kind.AUTOMATIC, 1024, 128, 300.0, 600.0, False, 0)
    assert pays("gpt-5.1") == pays("o4-mini") == pays("ft:gpt-4o-mini:us") == pays("gpt-35-turbo") == openai
    assert (pays("something-else", "openai"), pays("something-else")) == (openai, pays("claude-opus-5", "none"))
    for open_weights in ("mistral-7b", "gpt-oss-120b", "gpt2", "llama-3.1-8b", "olmo1-7b", ""):
        assert provider_cache(open_weights) == NO_CACHE  # whoever serves them
    mistral, xai = provider_cache("any", "mistral"), provider_cache("grok-4.6")
    assert (mistral.keyed, mistral.key_header, mistral.charges_writes) == (True, "", False)
    assert (xai.keyed, xai.key_header, xai.charges_writes) == (True, "x-grok-conv-id", False)
    assert provider_cache("any", "xai") == xai
    assert pays("deepseek-chat") == (Kind.AUTOMATIC, 64, 64, 300.0, 10_800.0, False, 0)
    assert pays("claude-sonnet-4-5-20250929") == (*ANTHROPIC[:5], True, 20)
    assert provider_cache("anthropic/claude-haiku-4.5").minimum_tokens == 4096
    assert provider_cache("claude-3-haiku").minimum_tokens == 2048
    assert provider_cache("claude-opus-5").minimum_tokens == 512
    assert provider_cache("google/gemini-2.5-flash").minimum_tokens == 1024
    assert provider_cache("gemini-3-pro").minimum_tokens == 4096
    assert provider_cache("somebodys", "gemini").minimum_tokens == 4096
    assert provider_cache("claude-opus-5", "none").kept_s == 0


@pytest.mark.parametrize(
    ("model", "charges"),
    [
        ("gpt-5.6", True),
        ("openai/gpt-5.6-mini-2026-08-01", True),
        ("gpt-6", True),
        ("gpt-5.5", False),
        ("gpt-5-2025-08-07", False),
        ("gpt-4-1106-preview", False),
        ("gpt-4o", False),
    ],
)
def test_openai_charges_for_writes_from_5_6_on(model: str, charges: bool) -> None:
    cache = provider_cache(model)
    assert (cache.charges_writes, cache.kept_s) == (charges, 1800 if charges else 600)


# -- how many turns will come


USER, ANSWER = {"role": "user"}, {"role": "assistant"}


def test_depth_is_the_number_of_answers() -> None:
    assert depth("chat", []) == 0
    assert depth("chat", [USER, ANSWER, ANSWER, USER, USER, ANSWER, "x"]) == 2
    assert depth("responses", [USER, {"type": "reasoning"}, {"type": "function_call"}, USER]) == 1


def test_the_mean_of_what_came_after() -> None:
    known = Survival()
    for _ in range(100):  # a hundred conversations: half of one request, half of four
        known.observe(0)
    for at in (1, 2, 3):
        for _ in range(50):
            known.observe(at)

    assert known.expected(0) == Decimal(150) / 105
    assert known.expected(1) == Decimal(100) / 55
    assert known.expected(3) == known.expected(9) == known.expected(1000) == 0
    assert Survival(known.counts).expected(0) == known.expected(0)


def test_conversations_met_in_their_middle_add_nothing() -> None:
    known = Survival()
    for _ in range(50):
        known.observe(20)

    assert known.expected(0) == known.expected(10) == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(0, 40))
def test_never_more_than_what_really_came(lengths: list[int], at: int) -> None:
    known = Survival()
    for length in lengths:
        for number in range(length):
            known.observe(number)
    reached = [length for length in lengths if length > at]
    really = sum(length - at - 1 for length in reached) / len(reached) if reached else 0

    assert 0 <= known.expected(at) <= really


def test_old_conversations_count_less_and_few_apps_are_kept() -> None:
    later = LaterTurns(most=2)
    for _ in range(10_000):
        later.observe("t", "m", 0)
        later.observe("t", "m", 10**6)
    assert later.expected("t", "m", 0) == 0
    for _ in range(10):
        later.observe("t", "n", 0)
        later.observe("t", "n", 1)
    assert later.expected("t", "n", 0) == Decimal(10) / 15
    later.observe("u", "m", 0)
    assert later.expected("t", "m", 0) == later.expected("u", "n", 0) == 0
    assert later.expected("t", "n", 0) > 0


# -- what the last answer said


def test_the_last_answer_is_that_of_the_longest_beginning() -> None:
    turns = [{"role": "user", "content": str(n)} for n in range(6)]
    keys = chain("t", "p", turns)
    known = LastAnswers(most=2)

    assert known.seen(keys, 4, 9.0) is None
    known.note([], 1, 1, 0.0)
    known.note(keys[:1], 100, 0, 10.0)
    known.note(keys[:3], 2000, 1024, 20.0)
    assert known.seen(keys, 4, 50.0) == Seen(2000, 1024, 30.0)
    assert known.seen(keys, 2, 5.0) == Seen(100, 0, 0.0)
    assert known.seen(keys[:2], 9, 50.0) == Seen(100, 0, 40.0)
    assert known.seen(keys, 0, 50.0) is None
    known.note(keys[:4], 3000, 2048, 30.0)
    assert known.seen(keys, 2, 50.0) is None
