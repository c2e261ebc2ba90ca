"""The simulated provider cache: lives of prefixes, marks, the record of what was kept, bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.provider_cache import ProviderCache, provider_cache
from farthing.proxy.prompt_trail import Trail, trail_of
from farthing.proxy.provider_reads import ProviderReads, World
from farthing.proxy.usage import Usage, UsageSource

OPENAI, CLAUDE = provider_cache("gpt-4o"), provider_cache("claude-sonnet-4-5")
DIRECT = (World.DIRECT,)


def text(name: str, tokens: int) -> str:
    """Four characters for each token."""
    return f"{name:_<3} " * tokens


def prompt(*sizes: tuple[str, int], cache: ProviderCache = OPENAI, **more: Any) -> Trail:
    payload = {"messages": [{"role": "user", "content": text(*size)} for size in sizes]} | more
    found = trail_of("chat", payload, cache, ("me",))
    assert found is not None
    return found


def test_a_prompt_is_read_in_steps_while_it_is_kept() -> None:
    reads, asked, usage = ProviderReads(), prompt(("a", 2000)), Usage(fresh=2000)
    assert [reads.arrive(asked, usage, at, at, DIRECT) for at in (0.0, 1.0, 600.0, 1199.0, 1799.0)] == [
        (0,), (1920,), (1920,), (1920,), (0,),
    ]  # fmt: skip


@pytest.mark.parametrize(("tokens", "read"), [(1023, 0), (1024, 1024), (1151, 1024), (1152, 1152)])
def test_the_least_length_and_the_step(tokens: int, read: int) -> None:
    reads, asked, usage = ProviderReads(), prompt(("a", tokens)), Usage(fresh=tokens)
    reads.arrive(asked, usage, 0.0, 0.0)
    assert reads.arrive(asked, usage, 1.0, 1.0) == (read, read)
    assert (
        reads.trail("chat", {"messages": [{"role": "user", "content": "a"}]}, "gpt-4o", "auto", "t", tokens) is None
    ) == (tokens < 1024)


def test_nothing_is_read_before_the_answer_that_brings_it_begins() -> None:
    reads, asked, usage = ProviderReads(), prompt(("a", 2000)), Usage(fresh=2000)
    reads.arrive(asked, usage, 0.0, 5.0)
    assert reads.arrive(asked, usage, 3.0, 4.0) == (0, 0)
    assert reads.arrive(asked, usage, 4.5, 6.0) == (1920, 1920)


def test_requests_may_be_told_out_of_order() -> None:
    reads, asked, usage = ProviderReads(), prompt(("a", 2000)), Usage(fresh=2000)
    reads.arrive(asked, usage, 10.0, 11.0)  # it came later and was done first
    assert reads.arrive(asked, usage, 9.0, 30.0) == (0, 0)
    assert reads.arrive(asked, usage, 12.0, 13.0) == (1920, 1920)


def test_the_worlds_part() -> None:
    reads, asked, usage = ProviderReads(), prompt(("a", 2000)), Usage(fresh=2000)
    reads.arrive(asked, usage, 0.0, 0.0)
    assert reads.arrive(asked, usage, 400.0, 400.0, DIRECT) == (1920,)  # a hit
    assert reads.arrive(asked, usage, 800.0, 800.0) == (1920, 0)
    assert reads.arrive(asked, usage, 801.0, 801.0) == (1920, 1920)


def test_what_prompts_share_is_read() -> None:
    reads = ProviderReads()
    reads.arrive(prompt(("s", 1500), ("a", 500)), Usage(fresh=2000), 0.0, 0.0)
    assert reads.arrive(prompt(("s", 1500), ("b", 500)), Usage(fresh=2000), 1.0, 1.0)[0] == 1408
    assert reads.arrive(prompt(("s", 1500), ("a", 500), ("c", 900)), Usage(fresh=2900), 2.0, 2.0)[0] == 1920
    assert reads.arrive(prompt(("c", 1500)), Usage(fresh=1500), 3.0, 3.0)[0] == 0


def marked(*blocks: tuple[str, int, str], cache: ProviderCache = CLAUDE) -> Trail:
    """Blocks of a name, tokens, and a mark's ttl ('' for none)."""
    content = [
        {"type": "text", "text": text(name, tokens)}
        | ({"cache_control": {"type": "ephemeral", "ttl": ttl}} if ttl else {})
        for name, tokens, ttl in blocks
    ]
    found = trail_of("messages", {"messages": [{"role": "user", "content": content}]}, cache, ("me",))
    assert found is not None
    return found


def test_marks_say_what_is_written_and_for_how_long() -> None:
    reads = ProviderReads()
    usage = Usage(fresh=10, cache_write=2000)
    both = marked(("s", 1500, "1h"), ("a", 500, "5m"), ("q", 10, ""))
    assert reads.arrive(both, usage, 0.0, 0.0, DIRECT) == (0,)
    assert reads.arrive(both, usage, 299.0, 299.0, DIRECT) == (2000,)  # the provider's own count
    assert reads.arrive(both, usage, 700.0, 700.0, DIRECT) == (1500,)
    assert reads.arrive(both, usage, 9000.0, 9000.0, DIRECT) == (0,)


def test_what_no_mark_says_is_not_kept() -> None:
    reads = ProviderReads()
    plain = marked(("s", 1500, ""), ("a", 500, ""))
    reads.arrive(plain, Usage(fresh=2000), 0.0, 0.0)
    assert reads.arrive(plain, Usage(fresh=2000), 1.0, 1.0) == (0, 0)
    reads.arrive(marked(("s", 500, "5m"), ("a", 1500, "")), Usage(fresh=2000), 2.0, 2.0)
    assert reads.arrive(marked(("s", 500, "5m"), ("a", 1500, "")), Usage(fresh=2000), 3.0, 3.0) == (0, 0)  # too short


@pytest.mark.parametrize(("between", "read"), [(19, 1500), (20, 0)])
def test_a_mark_looks_back_twenty_blocks(between: int, read: int) -> None:
    reads = ProviderReads()
    reads.arrive(marked(("s", 1500, "5m")), Usage(cache_write=1500), 0.0, 0.0)
    more = [(f"b{n}", 10, "") for n in range(between - 1)]
    grown = marked(("s", 1500, ""), *more, ("q", 10, "5m"))
    assert reads.arrive(grown, Usage(cache_write=1500 + 10 * between), 1.0, 1.0, DIRECT) == (read,)


def test_a_promise_is_worth_what_was_kept_of_those_before() -> None:
    reads = ProviderReads()
    assert reads.worth("m", 2000) == 2000
    reads.note("m", 20_000, Usage(fresh=20_000))
    assert reads.worth("m", 2000) == 1000
    assert reads.worth("other", 2000) == 2000
    reads.note("m", 0, Usage(cached=500))
    reads.note("m", 500, Usage(source=UsageSource.COUNTED))  # nobody said
    assert reads.worth("m", 2000) == 1000
    reads.note("m", 10_000_000, Usage(cached=10_000_000))
    reads.note("m", 10_000_000, Usage(cached=20_000_000))  # more than was promised is no more than kept
    assert 1990 <= reads.worth("m", 2000) <= 2000


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), max_size=50), st.integers(0, 10**6))
def test_a_promise_is_never_worth_more_than_itself(noted: list[tuple[int, int]], promised: int) -> None:
    reads = ProviderReads()
    for said, cached in noted:
        reads.note("m", said, Usage(cached=cached))
    assert 0 <= reads.worth("m", promised) <= promised


def test_memory_is_bounded_and_what_is_used_stays() -> None:
    reads, often, usage = ProviderReads(most=200), prompt(("a", 2000)), Usage(fresh=2000)
    for number in range(200):
        reads.arrive(prompt((f"n{number}", 2000)), usage, number, number)
        assert reads.arrive(often, usage, number + 0.5, number + 0.5)[0] == (1920 if number else 0)
        assert len(reads) <= 250
    for number in range(3000):
        reads.cache(f"m{number}", "auto")
        reads.note(f"m{number}", 1, usage)
    assert len(reads._caches) == len(reads._records) == 1024


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 900)), max_size=30))
def test_against_a_plain_list_of_prompts(asked: list[tuple[str, str, int]]) -> None:
    """The same rules by looking at every earlier prompt."""
    reads, earlier, now = ProviderReads(), [], 0.0
    for head, tail, pause in asked:
        now += pause + 1
        (read,) = reads.arrive(prompt((head, 1300), (tail, 620)), Usage(fresh=1920), now, now, DIRECT)
        kept = {"whole": 0.0, "head": 0.0}
        for at, one, other in earlier:
            if one == head:
                kept["head"] = at + 600
                if other == tail:
                    kept["whole"] = at + 600
        assert read == (1920 if kept["whole"] > now else 1280 if kept["head"] > now else 0)
        earlier.append((now, head, tail))
