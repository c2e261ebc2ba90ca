"""The semantic cache's thread: who waits is embedded together, indexes are tended in between, nobody waits for that."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from farthing.cache import index_growing
from farthing.cache.semantic import SemanticCache
from farthing.cache.semantic_thread import SemanticThread
from tests.cache.test_semantic import ASKED, LATER, NOW, Letters, word


def opened(letters: Letters) -> SemanticThread:
    return SemanticThread(lambda: SemanticCache.open(None, letters, max_entries=10_000))


async def held_up(thread: SemanticThread) -> Callable[[], None]:
    """Keep the thread busy; call what is returned to let it go."""
    gate = threading.Event()
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def block(cache: SemanticCache) -> None:
        loop.call_soon_threadsafe(started.set)
        gate.wait(5)

    held = asyncio.ensure_future(thread.run(block))
    await started.wait()
    held.add_done_callback(lambda _: None)
    return gate.set


def counted(letters: Letters) -> list[int]:
    sizes: list[int] = []
    embed = letters.embed
    letters.embed = lambda texts: sizes.append(len(texts)) or embed(texts)  # type: ignore[method-assign]
    return sizes


async def test_look_ups_that_wait_are_embedded_together_up_to_the_models_batch() -> None:
    letters = Letters()
    thread = opened(letters)
    await thread.open()
    await thread.run(lambda cache: cache.add("s", "how is aaa made", "k", LATER))
    sizes = counted(letters)
    release = await held_up(thread)
    asked = [asyncio.ensure_future(thread.lookup("s", "r", f"how is {word(n)} made", NOW)) for n in range(10)]
    await asyncio.sleep(0.01)
    release()

    found = await asyncio.gather(*asked)

    assert sizes == [4, 4, 2]
    assert {one.verdict for one in found} == {"candidate"}
    assert thread.pending == 0
    await thread.close()


async def test_look_ups_of_two_scopes_in_one_batch_share_no_embedding() -> None:
    """Else who asks learns from the time that another tenant asked the same just now."""
    letters = Letters()
    thread = opened(letters)
    await thread.open()
    for scope in ("one", "other"):
        await thread.run(lambda cache, scope=scope: cache.add(scope, "how is aaa made", scope, LATER))  # type: ignore[misc]
    sizes = counted(letters)
    release = await held_up(thread)
    asked = [asyncio.ensure_future(thread.lookup(scope, "r", "how is bbb made", NOW)) for scope in ("one", "other")]
    await asyncio.sleep(0.01)
    release()
    found = await asyncio.gather(*asked)

    assert sizes == [2]
    assert [one.entry_key for one in found] == ["one", "other"]
    await thread.close()


async def test_where_a_batch_is_no_gain_each_is_answered_in_its_turn() -> None:
    letters = Letters()
    letters.batch = 1
    thread = opened(letters)
    await thread.open()
    await thread.run(lambda cache: cache.add("s", "how is aaa made", "k", LATER))
    sizes = counted(letters)
    release = await held_up(thread)
    asked = [asyncio.ensure_future(thread.lookup("s", "r", f"how is {word(n)} made", NOW)) for n in range(3)]
    await asyncio.sleep(0.01)
    release()
    await asyncio.gather(*asked)

    assert sizes == [1, 1, 1]
    await thread.close()


async def test_who_gave_up_costs_nothing() -> None:
    letters = Letters()
    thread = opened(letters)
    await thread.open()
    await thread.run(lambda cache: cache.add("s", "how is aaa made", "k", LATER))
    release = await held_up(thread)
    late = asyncio.ensure_future(thread.lookup("s", "r", "how is bbb made", NOW))
    other = asyncio.ensure_future(thread.lookup("s", "r", "how is ccc made", NOW))
    await asyncio.sleep(0.01)
    late.cancel()
    await asyncio.sleep(0.01)
    release()
    await other

    assert "how is bbb made" not in letters.embedded
    assert thread.pending == 0
    await thread.close()


async def test_a_failing_look_up_fails_alone() -> None:
    thread = opened(Letters())
    await thread.open()
    await thread.run(lambda cache: cache.add("s", ASKED, "k", LATER))
    release = await held_up(thread)
    good = asyncio.ensure_future(thread.lookup("s", "r", ASKED, NOW))
    bad = asyncio.ensure_future(thread.lookup("s", "r", None, NOW))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    release()

    with pytest.raises(TypeError):
        await bad
    assert (await good).entry_key == "k"
    await thread.close()


async def test_indexes_are_rebuilt_in_between_and_look_ups_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_growing.GrowingIndex.__init__, "__defaults__", (30,))
    thread = opened(Letters())
    await thread.open()
    release = await held_up(thread)
    adds = [
        asyncio.ensure_future(
            thread.run(lambda cache, n=n: cache.add("s", f"how is {word(n)} made", f"k{n}", LATER))  # type: ignore[misc]
        )
        for n in range(60)
    ]
    await asyncio.sleep(0.01)
    release()
    await asyncio.gather(*adds)
    for _ in range(200):
        found = await thread.lookup("s", "r", f"how is {word(59)} made", NOW)
        assert found.entry_key == "k59"
        if not await thread.run(lambda cache: cache.restless):
            break

    assert await thread.run(lambda cache: cache._scopes["s"].kind) == "ivf"
    await thread.close()


async def test_it_can_be_closed_in_the_middle_of_a_rebuild(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_growing.GrowingIndex.__init__, "__defaults__", (30,))
    thread = opened(Letters())
    await thread.open()

    def fill(cache: SemanticCache) -> None:
        for n in range(300):
            cache.add("s", f"how is {word(n)} made", f"k{n}", LATER)

    await thread.run(fill)
    await thread.close()
    await thread.close()

    with pytest.raises(RuntimeError, match="not open"):
        await thread.lookup("s", "r", ASKED, NOW)


async def test_a_closed_one_holds_its_model_no_longer() -> None:
    """A proxy and its thread know each other, so they go when garbage is looked for: seldom, and a model is large."""
    models = [Letters()]
    model = weakref.ref(models[0])
    thread = SemanticThread(lambda: SemanticCache.open(None, models.pop(), max_entries=10))
    await thread.open()
    assert model() is not None
    gc.disable()
    try:
        await thread.close()
        for _ in range(100):  # the executor's thread lets go of the work itself a moment later
            if model() is None:
                break
            await asyncio.sleep(0.02)
        assert model() is None
    finally:
        gc.enable()


async def test_it_can_be_closed_while_it_loads_and_twice() -> None:
    gate, closed = threading.Event(), threading.Event()

    class Slow(SemanticCache):
        def close(self) -> None:
            super().close()
            closed.set()

    def build() -> SemanticCache:
        gate.wait(5)
        return Slow.open(None, Letters(), max_entries=10)

    thread = SemanticThread(build)
    opening = asyncio.ensure_future(thread.open())
    await asyncio.sleep(0.01)
    await thread.close()
    gate.set()
    assert thread.loading
    await opening
    await thread.close()

    assert not thread.loaded and not thread.loading
    assert await asyncio.to_thread(closed.wait, 5)


async def test_a_rebuild_that_fails_is_told_and_the_old_index_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = opened(Letters())
    await thread.open()
    monkeypatch.setattr(index_growing.GrowingIndex.__init__, "__defaults__", (2,))
    monkeypatch.setattr(index_growing.Training, "step", lambda *_: 1 / 0)

    def fill(cache: SemanticCache) -> None:
        for n in range(3):
            cache.add("s", f"how is {word(n)} made", f"k{n}", LATER)

    with capture_logs() as logs:
        await thread.run(fill)
        for n in range(3, 6):
            await thread.run(lambda cache, n=n: cache.add("s", f"how is {word(n)} made", f"k{n}", LATER))  # type: ignore[misc]
            found = await thread.lookup("s", "r", f"how is {word(n)} made", NOW)
            assert found.entry_key == f"k{n}"

    assert [line["log_level"] for line in logs] == ["error"]
    await thread.close()
