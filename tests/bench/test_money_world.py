"""The simulated providers charge as theirs do, and the oracle is one."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from random import Random
from typing import Any

from bench.compress_data import Item
from bench.money_methods import Forms, Ours, always, oracle, play, whole
from bench.money_world import (
    Conversation,
    Piece,
    PriceModel,
    Provider,
    Request,
    grown,
    sessions,
    shuffled,
    stable,
    with_clock,
)
from farthing.compress.later_turns import LaterTurns
from farthing.compress.provider_cache import NO_CACHE, Kind, ProviderCache
from farthing.proxy.prices import Rates, Tiered
from farthing.proxy.usage import Usage

OPENAI = ProviderCache(Kind.AUTOMATIC, 1024, 128, 300.0)
ANTHROPIC = ProviderCache(Kind.EXPLICIT, 1024, 1, 300.0)
WORDS = [
    "pump",
    "valve",
    "motor",
    "sensor",
    "filter",
    "gear",
    "lamp",
    "relay",
    "hose",
    "clamp",
    "fan",
    "belt",
    "was",
    "is",
    "near",
    "over",
    "by",
    "old",
    "new",
    "hot",
    "cold",
]
A, B, C = Piece("a " * 1000, 1000), Piece("b " * 500, 500), Piece("c " * 300, 300)
B2 = Piece("b " * 200 + "x " * 300, 500)


def rates(write: str = "2") -> Rates:
    fresh, cached, written = (Tiered(Decimal(rate)) for rate in ("2", "0.2", write))
    return Rates(fresh, cached, written, fresh, fresh, "test")


def provider(cache: ProviderCache, marks: str = "last") -> Provider:
    return Provider(PriceModel("test", rates(), cache, marks), lambda text: len(text.split()))


def test_openai_reads_exact_prefixes_in_steps_from_a_least_length_for_a_time() -> None:
    one = provider(OPENAI)
    assert one.ask(Request([A], 0.0)) == Usage(fresh=1000)
    assert one.ask(Request([A, B], 1.0)) == Usage(cache_write=1500)
    assert one.ask(Request([A, B, C], 2.0)) == Usage(cached=1408, cache_write=392)
    assert one.ask(Request([A, B2, C], 3.0)) == Usage(cached=1152, cache_write=648), "200 tokens of B2 are B's"
    assert one.ask(Request([A, C], 4.0)) == Usage(cache_write=1300), "1,000 in common are too few"
    assert one.ask(Request([A, B, C], 302.0)) == Usage(cached=1792, cache_write=8), "used at 2 s"
    assert one.ask(Request([A, B, C], 603.0)) == Usage(cache_write=1800)


def test_anthropic_reads_and_writes_up_to_the_marks() -> None:
    one = provider(ANTHROPIC)
    assert one.ask(Request([A], 0.0)) == Usage(fresh=1000)
    assert one.ask(Request([A, B], 1.0)) == Usage(cache_write=1500)
    assert one.ask(Request([A, B, C], 2.0)) == Usage(cached=1500, cache_write=300)
    assert one.ask(Request([A, B2, C], 3.0)) == Usage(cache_write=1800)
    assert one.ask(Request([A, B, C, C], 303.0)) == Usage(cache_write=2100)
    far = [A, B, C, C] + [Piece(f"{n}", 1) for n in range(25)]
    assert one.ask(Request(far, 304.0)) == Usage(cache_write=2125), "it looks back 20 blocks"


def test_only_the_head_is_cached_where_only_the_head_is_marked() -> None:
    one = provider(ANTHROPIC, "head")
    head = Piece("h", 2000)
    assert one.ask(Request([head, B], 0.0)) == Usage(cache_write=2000, fresh=500)
    assert one.ask(Request([head, B, C], 1.0)) == Usage(cached=2000, fresh=800)
    assert not one.model.marked


def test_without_a_cache_all_is_fresh() -> None:
    one = provider(NO_CACHE)
    assert [one.ask(Request([A, B], at)) for at in (0.0, 1.0)] == [Usage(fresh=1500)] * 2


def turns(results: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"role": "system", "content": "word " * 1100}, {"role": "user", "content": "go"}]
    for number in range(results):
        rows = ", ".join(f'{{ "name": "row {n}", "value": {n} }}' for n in range(number + 30))
        made += [
            {"role": "assistant", "content": None, "tool_calls": [{"id": str(number)}]},
            {"role": "tool", "content": f"[ {rows} ]"},
        ]
    return made


def test_a_conversation_grows_by_answers() -> None:
    one = grown("x", "g", turns(2), seed=1)
    assert one.ends == (2, 4, 6)
    assert grown("x", "g", turns(2), seed=1) == one != grown("x", "g", turns(2), seed=2)


def test_ours_is_stable_and_between_nothing_and_the_oracle() -> None:
    conversation = grown("x", "g", turns(4), seed=1)
    forms = Forms(lambda text: len(text) // 4 + 1)
    for cache in (NO_CACHE, OPENAI, ANTHROPIC):
        model = PriceModel("test", rates("2.5" if cache is ANTHROPIC else "2"), cache)
        before = play(conversation, model, whole, forms)
        best = oracle(conversation, model, forms, ("recode", "tidy"))
        with asyncio.Runner() as runner:
            ours = Ours(forms, ("recode", "tidy"), model, LaterTurns(), "g", runner)
            after = play(conversation, model, ours, forms)
            lossy = Ours(forms, ("recode", "tidy"), model, LaterTurns(), "g", runner, lose_after=3)
            lost = play(conversation, model, lossy, forms)
        assert best.pico <= after.pico < before.pico
        assert stable(after.requests) == stable(before.requests) == (4, 4)
        assert stable(lost.requests)[0] < 4
        assert after.pico <= lost.pico


def test_deciding_anew_with_each_question_changes_what_was_sent() -> None:
    chance = Random(1)
    lines = [" ".join(chance.choice(WORDS) for _ in range(12)) + f" unit {n}" for n in range(80)]
    made: list[dict[str, Any]] = turns(1)
    made[-1]["content"] = "\n".join(lines)
    for asked in ("What about unit 33?", "And unit 57, what is with it?", "Unit 71?"):
        made += [{"role": "assistant", "content": "so"}, {"role": "user", "content": asked}]
    forms = Forms(lambda text: len(text) // 4 + 1)
    model = PriceModel("test", rates(), OPENAI)
    same, steps = stable(play(grown("x", "g", made, 1), model, always(forms, "squeeze"), forms).requests)
    assert same < steps


def test_sessions_and_shuffled_chats_are_conversations() -> None:
    items = [
        Item(f"i{n}", "json_tool_output", [*turns(1), {"role": "user", "content": "so?"}], ("row 1",), False, "")
        for n in range(13)
    ]
    made: list[Conversation] = list(sessions(items, 1))
    assert [one.group for one in made] == ["agent sessions"] * 2
    assert len(made[0].ends) == 12 and made[0].turns[-1]["role"] == "user"
    assert list(sessions(items, 1)) == made

    ticking = with_clock(made[0], "clock")
    asked = list(ticking.requests())
    assert len({turns[0]["content"] for turns, _ in asked}) == len(asked)
    assert [turns[1:] for turns, _ in asked] == [turns[1:] for turns, _ in made[0].requests()]

    chats = [Item("c", "long_chat_history", turns(3) * 2, (), False, "")]
    for one in shuffled(chats, 20, 1):
        assert one.turns[0]["role"] == "system" and one.turns[-1]["role"] != "assistant"
        assert one.ends[-1] == len(one.turns)
