"""What is remembered of answers cut into pieces: bounded, and none of an answer that has been stored anew."""

from __future__ import annotations

import gc
import tracemalloc

from farthing.cache.entry import Entry
from farthing.cache.stage_exact import Renderer

BODY = b'{"id":"chatcmpl-1","created":17,"choices":[{"message":{"content":"%08d"}}]}'


def entry(number: int, stored_s: float = 0.0, said: int = 0) -> Entry:
    body = BODY % said
    return Entry(f"{number:032x}", "t", "chat", "m", "m", "whole", "application/json", body, None, stored_s, 9e9)


def render(renderer: Renderer, one: Entry) -> bytes | None:
    return renderer.render(one, stream=False, usage=False, new_id="new", now_s=18.0)


def test_an_answer_that_was_stored_anew_takes_the_place_of_the_one_before() -> None:
    renderer = Renderer()
    for round in range(50):
        for number in range(4):
            fresh = entry(number, float(round), said=100 * round + number)
            assert b"%08d" % (100 * round + number) in (render(renderer, fresh) or b"")
            assert renderer.known(fresh, stream=False, usage=False) is not None
            assert renderer.known(entry(number, round - 1.0), stream=False, usage=False) is None

    assert len(renderer) == 4


def test_memory_is_bounded_by_what_is_held_and_not_by_the_answers_alone() -> None:
    limit = 2**21
    render(Renderer(), entry(0))  # what is imported late isn't counted
    renderer = Renderer(limit)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(5_000):
            render(renderer, entry(number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(renderer) > 1_000
    assert held < 1.2 * limit
    render(renderer, entry(4_999))
