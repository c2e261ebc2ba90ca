"""The dashboard's page and what it asks for: figures as JSON, from a read-only connection in a thread.

Rules of this file: it only reads; it knows no web framework, so its caller sets the security headers; a ledger that
isn't there yet is an empty one; at most two questions are asked of the ledger at a time, and none for longer than
`MAX_QUERY_S`, so that a wall of open dashboards doesn't slow requests down.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import orjson

from farthing.proxy.clock import Clock
from farthing.proxy.errors import error_body
from farthing.proxy.figures import (
    GROUPS,
    Bucket,
    Repeated,
    farthing_since,
    one,
    open_ledger,
    series,
    summary,
    top_repeated,
)
from farthing.proxy.figures_lists import MOST_LOOKED, filter_of, matching, names
from farthing.proxy.figures_routes import Declared, by_route
from farthing.proxy.report import dollars, plain, plain_sums
from farthing.proxy.report_plain import plain_routes
from farthing.proxy.row import COLUMNS, MONEY_COLUMNS, Row
from farthing.proxy.tradeoff import kept_runs, plain_tradeoff, read_tradeoff

__all__ = ["Dashboard", "Reply", "Texts"]

Texts = Callable[[Sequence[tuple[str, float]]], Awaitable[Mapping[str, str]]]
"""The prompts behind keys, of those that are kept and may be shown. Each key with the moment at which it came last."""
Reply = tuple[int, str, bytes]
T = TypeVar("T")

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
JSON = "application/json"
JSON_COLUMNS = ("tags", "stage_ms", "decisions", "attempts_detail")
LISTED = (
    "id", "ts", "endpoint", "status", "outcome", "error", "stream", "model_requested", "model_served", "cache",
    "cache_reason", "tokens_in_original", "tokens_in_sent", "tokens_out", "baseline_usd", "cost_usd", "overhead_usd",
    "latency_ms", "overhead_ms", "similarity", "user", "tags", "key_hash",
)  # fmt: skip
MAX_QUERY_S = 20.0
MAX_PAGE = 200
AT_A_TIME = 2
MOST_TRADED = 5_000
STEPS_BETWEEN_LOOKS = 1_000_000
TOO_SLOW = (
    f"this took more than {MAX_QUERY_S:.0f} seconds and was given up: ask for a shorter span, or for fewer groups at a "
    "time, or export the rows (farthing ledger export --format parquet)"
)


class Dashboard:
    """Answers GET and HEAD under /farthing/.

    `ledger`: the SQLite file, which need not exist yet. `state`: what is on, shown as badges; never a secret. `texts`:
    None: no prompts may be shown. `declared`: the routes and variants in force. `most_looked`: figures_lists.py.
    `waiting`: of deferred requests, for the state.
    """

    def __init__(
        self,
        ledger: Path,
        clock: Clock,
        state: Callable[[], dict[str, Any]],
        texts: Texts | None = None,
        declared: Callable[[], Declared] = Declared,
        most_looked: int = MOST_LOOKED,
        waiting: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self._texts = texts
        self._most_looked = most_looked
        self._declared = declared
        self._ledger = ledger
        self._clock = clock
        self._state = state
        self._waiting = waiting
        folder = Path(__file__).parent / "static"
        self._files = {
            path.name: (TYPES[path.suffix], path.read_bytes()) for path in folder.iterdir() if path.suffix in TYPES
        }
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._slow_turns = asyncio.Semaphore(1)  # questions that no roll-up answers: they hold up each other alone

    async def handle(self, method: str, path: str, query: Mapping[str, str]) -> Reply | None:
        """Status, content type and body; None where the path is not the dashboard's. `path`: as it came, no query."""
        if path in ("/farthing", "/farthing/"):
            path = "/farthing/static/index.html"
        if not path.startswith(("/farthing/static/", "/farthing/api/")):
            return None
        rest = path.removeprefix("/farthing/")
        kind, _, name = rest.partition("/")
        if kind == "static":
            found = self._files.get(name)
            reply = fault(404, f"there is no file {name[:80]!r}") if found is None else (200, *found)
        else:
            around = await self._around() if name == "summary" else {}
            ask = self._questions(name, query, around)
            if ask is None:
                return None
            turns = self._slow_turns if name == "summary" and is_slow(query) else self._turns
            reply = fault(405, "only GET") if method not in ("GET", "HEAD") else await self._answer(ask, turns)
        if name == "repeated" and reply[0] == 200 and self._texts is not None:
            reply = (200, JSON, orjson.dumps(await with_texts(orjson.loads(reply[2]), self._texts)))
        return (reply[0], reply[1], b"") if method == "HEAD" else reply

    async def _around(self) -> dict[str, Any]:
        """What is told beside a summary of the ledger."""
        waiting = {} if self._waiting is None else {"deferred": await self._waiting()}
        return {"state": self._state() | waiting, "groups_known": [*GROUPS]}

    def _questions(
        self, name: str, query: Mapping[str, str], around: dict[str, Any]
    ) -> Callable[[sqlite3.Connection], Any] | None:
        """What to ask of the ledger; None for a name that isn't ours. `around`: what is told beside a summary."""
        now_s = self._clock.now_s()
        if name == "summary":
            return lambda conn: {**self._summary(conn, query, now_s), **around}
        if name == "series":
            return lambda conn: self._series(conn, query, now_s)
        if name == "requests":
            return lambda conn: self._requests(conn, query, now_s)
        if name == "repeated":
            return lambda conn: self._repeated(conn, query, now_s)
        if name == "tradeoff":
            return lambda conn: self._tradeoff(conn, query, now_s)
        if name == "routes":
            declared = self._declared()
            return lambda conn: plain_routes(by_route(conn, *span_of(query, now_s), declared), declared)
        if name == "names":
            return lambda conn: names(conn, span_of(query, now_s))
        if name.startswith("requests/"):
            return lambda conn: found_row(conn, unquote(name.removeprefix("requests/")))
        return None

    def _summary(self, conn: sqlite3.Connection, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
        by = tuple(part for part in query.get("by", "").split(",") if part)
        return plain(summary(conn, *span_of(query, now_s), by))

    def _series(self, conn: sqlite3.Connection, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
        found = series(conn, *span_of(query, now_s), number(query, "buckets", 48))
        return {"buckets": [slice_of(each) for each in found]}

    def _requests(self, conn: sqlite3.Connection, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
        """A page of requests, how far back was looked where it isn't full for that, and the next page's `before`."""
        span = span_of(query, now_s) if "since" in query else (0.0, now_s + 1)
        limit = min(number(query, "limit", 50), MAX_PAGE)
        before = place_of(query.get("before", ""))
        found = matching(conn, filter_of(query), span, limit, before, self._most_looked)
        return {
            "requests": [listed(row) for row in found.rows],
            "next": found.next and f"{found.next[0]!r},{found.next[1]}",
            "looked_to_s": found.looked_to_s,
        }

    def _tradeoff(self, conn: sqlite3.Connection, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
        beside = self._ledger.parent
        found = read_tradeoff(conn, beside, *span_of(query, now_s), query.get("by", "") or "model_served", MOST_TRADED)
        return plain_tradeoff(found._replace(points=(*found.points, *kept_runs(beside))))

    def _repeated(self, conn: sqlite3.Connection, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
        found = top_repeated(conn, *span_of(query, now_s), number(query, "limit", 10))
        return {"repeated": [told(each) for each in found]}

    async def read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """What `ask` finds in the ledger, when it is its turn. Raises sqlite3.Error, and what `ask` raises."""
        async with self._turns:
            return await asyncio.to_thread(self._ask, ask)

    async def _answer(self, ask: Callable[[sqlite3.Connection], Any], turns: asyncio.Semaphore) -> Reply:
        try:
            async with turns:
                return 200, JSON, orjson.dumps(await asyncio.to_thread(self._ask, ask))
        except LookupError as error:
            return fault(404, str(error.args[0]))
        except ValueError as error:
            return fault(400, str(error))
        except sqlite3.OperationalError as error:
            return fault(503, TOO_SLOW if str(error) == "interrupted" else f"the ledger can't be read: {error}")
        except sqlite3.Error as error:
            return fault(503, f"the ledger can't be read: {error}")

    def _ask(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """Ask on a connection of its own; an absent ledger is an empty one."""
        try:
            conn = open_ledger(self._ledger)
        except sqlite3.OperationalError:
            if self._ledger.exists():
                raise
            conn = sqlite3.connect(":memory:")
        with closing(conn):
            if conn.execute("select 1 from sqlite_master where name = 'requests'").fetchone() is None:
                conn.close()
                conn = sqlite3.connect(":memory:")
                conn.execute(f"create table requests ({', '.join(f'{chr(34)}{name}{chr(34)}' for name in COLUMNS)})")
            until = self._clock.tick_s() + MAX_QUERY_S
            conn.set_progress_handler(lambda: self._clock.tick_s() > until, STEPS_BETWEEN_LOOKS)
            with closing(conn):
                return ask(conn)


def is_slow(query: Mapping[str, str]) -> bool:
    """Whether the groups asked for are in no roll-up: a user or a tag together with another one."""
    by = [part for part in query.get("by", "").split(",") if part]
    return len(by) > 1 and any(part == "user" or part.startswith("tag") for part in by)


def found_row(conn: sqlite3.Connection, row_id: str) -> dict[str, Any]:
    """One row with everything. Raises LookupError."""
    row = one(conn, row_id)
    if row is None:
        raise LookupError(f"there is no request {row_id[:80]!r} in the ledger")
    return whole(row)


def whole(row: Row) -> dict[str, Any]:
    """A row as plain values: amounts as decimal texts of dollars, JSON columns parsed where they can be."""
    values: dict[str, Any] = row._asdict()
    for name in MONEY_COLUMNS:
        values[name] = None if values[name] is None else dollars(values[name])
    for name in JSON_COLUMNS:
        try:
            values[name] = orjson.loads(values[name])
        except ValueError:
            values[name] = None
    return values


def listed(row: Row) -> dict[str, Any]:
    """What the list of recent requests shows of a row. `semantic`: why its nearest candidate was or wasn't served."""
    values = whole(row)
    return {name: values[name] for name in LISTED} | {"semantic": decided(values["decisions"], "semantic")}


def told(each: Repeated) -> dict[str, Any]:
    """Requests with one key as plain values. Hits that saved nothing are of unknown price: what they saved is None."""
    known = each.saved_usd or not each.hits
    return each._asdict() | {"saved_usd": dollars(each.saved_usd) if known else None}


async def with_texts(found: dict[str, Any], texts: Texts) -> dict[str, Any]:
    """The answer on repeated requests, with their prompts beside those that are kept."""
    known = await texts([(each["key_hash"], each["last_s"]) for each in found["repeated"]])
    return {"repeated": [{**each, "text": known.get(each["key_hash"])} for each in found["repeated"]]}


def decided(decisions: Any, stage: str) -> str:
    """The reason of a stage's first decision; empty where it made none, or the column holds something else."""
    for each in decisions if isinstance(decisions, list) else ():
        if isinstance(each, list) and len(each) == 3 and each[0] == stage:
            return str(each[2])
    return ""


def slice_of(bucket: Bucket) -> dict[str, Any]:
    """A slice of time as plain values."""
    return {"start_s": bucket.start_s, "length_s": bucket.length_s, **plain_sums(bucket.sums, bucket.times)}


def span_of(query: Mapping[str, str], now_s: float) -> tuple[float, float]:
    """The span of time that a query asks for: `since` and, where it doesn't end now, `until`. Raises ValueError."""
    since_s = farthing_since(query.get("since", "24h"), now_s)
    # One second more: a row written within this very second belongs to the figures.
    until_s = farthing_since(query["until"], now_s) if query.get("until") else now_s + 1
    if until_s <= since_s:
        raise ValueError("the span of time is empty: until must be after since")
    return since_s, until_s


def place_of(text: str) -> tuple[float, str] | None:
    """The row after which a page begins, TIME,ID as `next` has it; None for the first page. Raises ValueError."""
    if not text:
        return None
    ts, comma, row_id = text.partition(",")
    if not comma:
        raise ValueError("before looks like TIME,ID")
    return float(ts), row_id


def number(query: Mapping[str, str], name: str, otherwise: int) -> int:
    """A whole number of the query. Raises ValueError."""
    text = query.get(name, "") or str(otherwise)
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(f"{name} must be a whole number, not {text[:40]!r}")
    return int(text)


def fault(status: int, message: str) -> Reply:
    """An error in the API's shape."""
    return status, JSON, error_body(message, kind="invalid_request_error" if status < 500 else "api_error", code=None)
