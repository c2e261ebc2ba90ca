"""What the dashboard's calls answer: figures, faults, and nothing outside their folder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from farthing.proxy import dashboard as dashboard_module
from farthing.proxy.clock import FakeClock
from farthing.proxy.dashboard import Dashboard
from farthing.proxy.figures_routes import Declared
from farthing.proxy.row import MONEY_COLUMNS
from tests.fakes.rows import DOLLAR, NOW_S, ledger, row

ROWS = (
    row(id="a", ts=NOW_S - 30, baseline_usd=3 * DOLLAR, cost_usd=DOLLAR, saved_route_usd=2 * DOLLAR,
        decisions='[["exact","miss",""]]'),
    row(id="b/ü", ts=NOW_S - 20, tags="broken", **dict.fromkeys(MONEY_COLUMNS)),
)  # fmt: skip


def made(path: Path) -> Dashboard:
    return Dashboard(path, FakeClock(NOW_S), lambda: {"version": "1"})


@pytest.fixture
def dashboard(tmp_path: Path) -> Dashboard:
    ledger(tmp_path / "ledger.db", ROWS).close()
    return made(tmp_path / "ledger.db")


async def got(dashboard: Dashboard, path: str, **query: str) -> tuple[int, Any]:
    reply = await dashboard.handle("GET", path, query)
    assert reply is not None
    assert reply[1] == "application/json"
    return reply[0], orjson.loads(reply[2])


async def test_the_summary_holds_figures_and_state(dashboard: Dashboard) -> None:
    status, body = await got(dashboard, "/farthing/api/summary", since="1h", by="model")
    assert status == 200
    assert body["state"] == {"version": "1"}
    assert (body["total"]["requests"], body["total"]["unpriced"]) == (2, 1)
    assert (body["total"]["baseline_usd"], body["total"]["net_saving_usd"]) == ("3", "2")
    assert body["groups"][0]["key"] == {"model": "gpt-4o-mini"}


async def test_the_series_has_as_many_slices_as_asked_for(dashboard: Dashboard) -> None:
    status, body = await got(dashboard, "/farthing/api/series", since="1h", buckets="12")
    assert status == 200
    assert [each["requests"] for each in body["buckets"]] == [0] * 11 + [2]
    assert body["buckets"][-1]["saved_route_usd"] == "2"


async def test_a_listed_request_tells_of_its_nearest_candidate(tmp_path: Path) -> None:
    told = '[["exact","miss",""],["semantic","observe","score 0.731; below the proved threshold"]]'
    rows = [row(id="near", similarity=0.87, decisions=told), row(id="odd", decisions='[["semantic"], 1]')]
    ledger(tmp_path / "near.db", rows).close()
    _, body = await got(made(tmp_path / "near.db"), "/farthing/api/requests")
    listed = {each["id"]: (each["similarity"], each["semantic"]) for each in body["requests"]}
    assert listed == {"near": (0.87, "score 0.731; below the proved threshold"), "odd": (None, "")}


async def test_requests_newest_first_and_one_in_full(dashboard: Dashboard) -> None:
    _, body = await got(dashboard, "/farthing/api/requests", limit="50")
    assert [each["id"] for each in body["requests"]] == ["b/ü", "a"]
    assert body["requests"][0]["cost_usd"] is None
    _, one = await got(dashboard, "/farthing/api/requests/a")
    assert one["decisions"] == [["exact", "miss", ""]]
    assert one["saved_route_usd"] == "2"
    assert (await got(dashboard, "/farthing/api/requests/nobody"))[0] == 404


async def test_an_id_with_a_slash_is_found_however_it_was_escaped(dashboard: Dashboard) -> None:
    for path in ("/farthing/api/requests/b/ü", "/farthing/api/requests/b%2F%C3%BC"):
        assert (await got(dashboard, path))[1]["tags"] is None


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("summary", {"since": "x"}),
        ("summary", {"by": "cost"}),
        ("series", {"buckets": "-1"}),
        ("series", {"buckets": "99999"}),
        ("requests", {"limit": "all"}),
        ("requests", {"cache": "maybe"}),
        ("requests", {"answer": "418"}),
        ("requests", {"tag": "search"}),
        ("requests", {"tag": '"=x'}),
        ("requests", {"before": "yesterday"}),
        ("series", {"since": "2027-01-14", "until": "2027-01-13"}),
        ("repeated", {"until": "soon"}),
        ("names", {"since": "never"}),
        ("routes", {"since": "never"}),
    ],
)
async def test_a_wrong_question_is_a_400_that_says_why(dashboard: Dashboard, path: str, query: dict[str, str]) -> None:
    status, body = await got(dashboard, f"/farthing/api/{path}", **query)
    assert status == 400
    assert body["error"]["message"]


async def test_no_ledger_yet_is_an_empty_one(tmp_path: Path) -> None:
    for path in (tmp_path / "ledger.db", tmp_path / "empty.db"):
        (tmp_path / "empty.db").touch()
        assert (await got(made(path), "/farthing/api/summary"))[1]["total"]["requests"] == 0
        assert (await got(made(path), "/farthing/api/requests"))[1] == {
            "requests": [],
            "next": None,
            "looked_to_s": None,
        }
    assert not (tmp_path / "ledger.db").exists(), "looking must not make it"


async def test_a_damaged_ledger_is_a_503(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database" * 100)
    status, body = await got(made(tmp_path / "ledger.db"), "/farthing/api/summary")
    assert status == 503
    assert "can't be read" in body["error"]["message"]


async def test_a_question_that_takes_too_long_is_given_up(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farthing.proxy.dashboard.MAX_QUERY_S", -1.0)
    monkeypatch.setattr("farthing.proxy.dashboard.STEPS_BETWEEN_LOOKS", 1)
    status, body = await got(dashboard, "/farthing/api/summary")
    assert status == 503 and "--format parquet" in body["error"]["message"]


async def test_the_page_and_its_files(dashboard: Dashboard) -> None:
    for path in ("/farthing", "/farthing/"):
        reply = await dashboard.handle("GET", path, {})
        assert reply is not None
        assert reply[1].startswith("text/html")
    page = reply[2].decode()
    folder = Path(dashboard_module.__file__).parent / "static"
    for name in [path.name for path in folder.iterdir()]:
        assert (await dashboard.handle("GET", f"/farthing/static/{name}", {}) or (0,))[0] == 200
    assert "://" not in page, "nothing comes from outside"
    assert await dashboard.handle("HEAD", "/farthing/", {}) == (200, "text/html; charset=utf-8", b"")


@pytest.mark.parametrize("name", ["../dashboard.py", "..%2fdashboard.py", "", "/etc/passwd", "x.js", "index.html/.."])
async def test_no_other_file_is_served(dashboard: Dashboard, name: str) -> None:
    assert (await got(dashboard, f"/farthing/static/{name}"))[0] == 404


@pytest.mark.parametrize(
    "path", ["/v1/models", "/farthing/api/feedback", "/farthing/api/", "/farthing/x", "/farthingx"]
)
async def test_other_paths_are_not_its_own(dashboard: Dashboard, path: str) -> None:
    assert await dashboard.handle("GET", path, {}) is None


async def test_it_only_reads(dashboard: Dashboard) -> None:
    reply = await dashboard.handle("POST", "/farthing/api/summary", {})
    assert reply is not None
    assert reply[0] == 405


async def test_routes_are_told_with_those_in_force(tmp_path: Path) -> None:
    decision = '[["route","routed","faq: mini, fixed"]]'
    ledger(tmp_path / "ledger.db", [row(id="a", cost_usd=DOLLAR, decisions=decision)]).close()
    declared = Declared((("faq", "serve", "fixed"), ("idle", "observe", "fixed")), ("mini",))
    asked = Dashboard(tmp_path / "ledger.db", FakeClock(NOW_S), dict, declared=lambda: declared)
    status, body = await got(asked, "/farthing/api/routes", since="1h")
    assert status == 200
    assert [(each["route"], each["requests"]) for each in body["routes"]] == [("faq", 1), ("idle", 0)]
    assert body["routes"][0]["variants"][0]["cost_usd"] == "1"
    assert (body["rows"], body["since_s"]) == (1, None)


async def test_repeated_requests_have_the_texts_that_are_known(tmp_path: Path) -> None:
    rows = [row(id=f"{key}{i}", key_hash=key, ts=NOW_S - 9 + i) for key in ("known", "other") for i in range(2)]
    ledger(tmp_path / "ledger.db", rows).close()
    asked: list[Any] = []

    async def texts(last: Sequence[tuple[str, float]]) -> dict[str, str]:
        asked.extend(last)
        return {"known": "What is it?"}

    _, body = await got(Dashboard(tmp_path / "ledger.db", FakeClock(NOW_S), dict, texts), "/farthing/api/repeated")
    assert {each["key_hash"]: each["text"] for each in body["repeated"]} == {"known": "What is it?", "other": None}
    assert sorted(asked) == [("known", NOW_S - 8), ("other", NOW_S - 8)]


async def test_many_at_once_are_all_answered(dashboard: Dashboard) -> None:
    found = await asyncio.gather(*(got(dashboard, "/farthing/api/summary") for _ in range(20)))
    assert {status for status, _ in found} == {200}


@pytest.mark.parametrize("by", ["user,model", "tag:team,user", "model,tag:team"])
async def test_what_no_rollup_answers_holds_up_nothing_else(dashboard: Dashboard, by: str) -> None:
    async with dashboard._slow_turns:
        slow = asyncio.ensure_future(got(dashboard, "/farthing/api/summary", since="1h", by=by))
        for path in ("summary", "series", "requests"):
            assert (await got(dashboard, f"/farthing/api/{path}", since="1h", by="user"))[0] == 200
        assert not slow.done()
    assert (await slow)[0] == 200
