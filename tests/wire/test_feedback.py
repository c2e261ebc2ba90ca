"""Feedback on the wire: kept, known, and a bad answer is not given again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_semantic import SERVE, how, learnt, loaded

ADMIN = {"x-farthing-admin": "1"}


async def say(proxy: Proxied, body: Any, status: int = 200) -> dict[str, Any]:
    answer = await proxy.client.post("/farthing/api/feedback", json=body, headers=ADMIN)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_bad_rating_removes_what_was_stored_of_a_fresh_answer(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        fresh = await proxy.post(chat())
        told = await say(
            proxy, {"id": fresh.headers["x-farthing-id"], "rating": "bad", "comment": "write to a@b.example"}
        )
        again = await proxy.post(chat())
        shown = (await proxy.client.get("/farthing/api/feedback")).json()
    assert told == {"kept": True, "known": True, "purged": 1}
    assert how(again) == "miss"
    assert shown["metrics"] == [{"metric": "rating", "source": "client", "count": 1, "mean": 0.0}]
    assert "a@b" not in shown["latest"][0]["comment"] and "write to [email-" in shown["latest"][0]["comment"]


async def test_a_bad_rating_of_a_hit_removes_it_but_never_a_newer_answer(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await proxy.post(chat())
        hit = await proxy.post(chat())
        assert how(hit) == "hit-exact"
        first = await say(proxy, {"id": hit.headers["x-farthing-id"], "rating": "bad"})
        await proxy.post(chat())
        later = await say(proxy, {"id": hit.headers["x-farthing-id"], "rating": "bad", "event": "again"})
        after = await proxy.post(chat())
    assert (first["purged"], later["purged"]) == (1, 0)
    assert how(after) == "hit-exact"


async def test_a_complaint_that_was_taken_back_before_it_came_does_nothing(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        id = (await proxy.post(chat())).headers["x-farthing-id"]
        await say(proxy, {"id": id, "rating": "good", "at": 20})
        late = await say(proxy, {"id": id, "rating": "bad", "at": 10})
        after = await proxy.post(chat())
    assert late == {"kept": False, "known": True, "purged": 0}
    assert how(after) == "hit-exact"


async def test_many_come_at_once_late_and_twice(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        id = (await proxy.post(chat())).headers["x-farthing-id"]
        items = [
            {"id": id, "metric": "click", "value": 1, "at": "2026-01-01T00:00:00Z"},
            {"id": "far-unknown", "metric": "revenue", "value": 12.5},
            {"id": id, "metric": "click"},
        ]
        first = await say(proxy, {"items": items})
        second = await say(proxy, {"items": items})
        await say(proxy, {"id": id, "rating": "so-so"}, 400)
    assert {name: first[name] for name in ("kept", "known", "purged")} == {"kept": 2, "known": 1, "purged": 0}
    assert [one["index"] for one in first["refused"]] == [2]
    assert second["kept"] == 0


async def test_it_outlives_a_restart(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        id = (await proxy.post(chat())).headers["x-farthing-id"]
    async with proxied(up.url, tmp_path) as proxy:
        assert await say(proxy, {"id": id, "rating": "bad"}) == {"kept": True, "known": True, "purged": 1}


async def test_asking_again_after_a_near_duplicates_answer_is_noted(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        await proxy.post(chat("How do I reset my password?"))
        await learnt(proxy, 1)
        hit = await proxy.post(chat("How can I reset my password?"), x_farthing_user="ann")
        await proxy.post(chat("How could I reset my password?"), x_farthing_user="ann")
        await proxy.post(chat("How could I reset my password?"), x_farthing_user="bob")
        await quiet(proxy)
        await proxy.rows()
        shown = (await proxy.client.get("/farthing/api/feedback")).json()
    assert how(hit) == "hit-semantic"
    assert [(one["request_id"], one["metric"], one["source"]) for one in shown["latest"]] == [
        (hit.headers["x-farthing-id"], "reask", "implicit")
    ]


async def test_a_bad_rating_is_taken_while_the_near_duplicates_model_loads(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **SERVE) as proxy:
        answer = await proxy.post(chat())
        told = await say(proxy, {"id": answer.headers["x-farthing-id"], "rating": "bad"})
    assert told["kept"] and told["known"]
