"""How a ledger of many rows answers: `python -m bench.ledger_size --rows 10000000`.

Makes a ledger of a month (30 days alike, 2,000 users, 6 models, 5 tenants, 3 tags), rolls it up, and times what the
dashboard and the report ask of it, each question on a connection of its own, the best of some times; then how fast rows
are written, and how long the writer is away from them while it rolls up.
`--keep FILE` makes the ledger there, or uses the one that is there.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from farthing.proxy import figures
from farthing.proxy.figures_lists import Filter, matching
from farthing.proxy.figures_routes import Declared, by_route
from farthing.proxy.ledger import Ledger
from farthing.proxy.row import COLUMNS, Row

NOW_S = 1_800_000_000.0
ASKED_S = NOW_S - 1234.5  # so that nothing asked for begins with a whole minute
DAYS = 30
DAY_S = 86_400
SPANS = {"24 h": 1, "7 d": 7, "30 d": 30}
MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-5-mini", "claude-sonnet-4-5", "text-embedding-3-small", "llama-internal-70b")
STATUSES = ("hit-exact", "hit-semantic", "joined", "miss", "bypass")
CHUNK = 50_000
FILTERS = {
    "model that is there": Filter(model=MODELS[1]),
    "model that isn't": Filter(model="nobody"),
    "tag that isn't": Filter(tag="team=nobody"),
    "text that isn't": Filter(text="nobody"),
    "all at once": Filter(model=MODELS[1], cache="miss", answer="4xx", tag="team=team-1", text="nobody", failed=True),
}
"""What lists of requests are filtered by: where nothing matches, a page looks at as much as it may."""


def made(rows: int, seed: int = 1) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of the first day in order of time, some ten thousands at a time, as the table holds them."""
    dice = np.random.default_rng(seed)
    blank: dict[str, Any] = dict.fromkeys(COLUMNS, "") | dict.fromkeys(
        ("tokens_in_cache_write", "tokens_reasoning", "saved_route_usd", "modelled", "tokens_in_cached"), 0
    )
    blank |= {
        "status": 200, "upstream": "default", "usage_source": "upstream", "price_source": "genai-prices 2026-11-01",
        "config_id": "0123456789abcdef", "policy": "verified",
        "stage_ms": '{"eligible":0.01,"exact":0.05,"semantic":0.42,"tidy":0.06}',
        "decisions": '[["eligible","yes",""],["exact","miss",""],["semantic","miss","observe: 0.71 under 0.83"],'
                     '["tidy","rewrote","41 tokens of white space"]]',
    }  # fmt: skip
    attempts = '[{"upstream":"default","model":"gpt-4o-mini","status":200,"error":"","duration_ms":812.4}]'
    tags = [
        orjson.dumps({"team": f"team-{team}", "feature": f"feature-{feature}", "region": region}).decode()
        for team in range(8) for feature in range(12) for region in ("eu", "us", "ap", "sa")
    ]  # fmt: skip
    length_s = DAY_S / rows
    for first in range(0, rows, CHUNK):
        n = min(CHUNK, rows - first)
        columns: dict[str, list[Any]] = {}
        model = dice.choice(len(MODELS), n, p=[0.4, 0.2, 0.12, 0.1, 0.13, 0.05])
        cache = dice.choice(len(STATUSES), n, p=[0.28, 0.05, 0.03, 0.58, 0.06])
        here = cache < 3
        priced = model < 5
        tokens_in = dice.lognormal(7, 0.9, n).astype(int)
        saved = np.where(here, 0, tokens_in // 12)
        tokens_out = dice.lognormal(5.2, 0.8, n).astype(int)
        baseline = tokens_in * 150_000 + tokens_out * 600_000
        by_tidy = saved * 150_000
        upstream = dice.lognormal(7, 0.55, n)
        overhead = dice.lognormal(-0.2, 0.5, n)
        latency = np.where(cache < 2, overhead, overhead + upstream)
        # What is asked again: of a pool in which the first come most often.
        pool = (dice.pareto(0.9, n) * 3).astype(np.int64) % 400_000
        unique = np.arange(first, first + n)

        def known(amounts: Any, priced: Any = priced) -> list[Any]:
            return np.where(priced, amounts.astype(object), None).tolist()

        columns["ts"] = (NOW_S - DAYS * DAY_S + (unique + dice.random(n)) * length_s).tolist()
        columns["id"] = [f"far-{int(ts * 1000):011x}{i:014x}" for i, ts in enumerate(columns["ts"], first)]
        columns["flight_id"] = columns["id"]
        columns["endpoint"] = ["embeddings" if m == 4 else "chat" for m in model.tolist()]
        columns["model_requested"] = columns["model_served"] = [MODELS[m] for m in model.tolist()]
        columns["cache"] = [STATUSES[c] for c in cache.tolist()]
        columns["cache_reason"] = ["proved" if c == 1 else "" for c in cache.tolist()]
        columns["key_hash"] = [
            f"{p:032x}" if h else f"f00{u:029x}"
            for p, u, h in zip(pool.tolist(), unique.tolist(), (here | (pool < 50)).tolist(), strict=True)
        ]
        columns["outcome"] = dice.choice(["completed", "failed", "abandoned"], n, p=[0.98, 0.012, 0.008]).tolist()
        columns["stream"] = (model % 2).tolist()
        columns["tenant"] = [f"tenant-{t}" for t in dice.integers(0, 5, n).tolist()]
        columns["user"] = [f"user-{u}" for u in (dice.pareto(0.8, n) * 20).astype(int).clip(0, 1999).tolist()]
        columns["tags"] = [tags[t] for t in dice.integers(0, len(tags), n).tolist()]
        columns["compress"] = np.where(here, "", "tidy").tolist()
        columns["attempts"] = (~here).astype(int).tolist()
        columns["attempts_detail"] = ["[]" if h else attempts for h in here.tolist()]
        columns["tokens_in_original"], columns["tokens_out"] = tokens_in.tolist(), tokens_out.tolist()
        columns["tokens_in_sent"] = np.where(here, 0, tokens_in - saved).tolist()
        columns["baseline_usd"], columns["cost_usd"] = known(baseline), known(np.where(here, 0, baseline - by_tidy))
        columns["saved_exact_usd"] = known(np.where(here & (cache != 1), baseline, 0))
        columns["saved_semantic_usd"] = known(np.where(cache == 1, baseline, 0))
        columns["saved_compress_usd"], columns["saved_prompt_cache_usd"] = known(by_tidy), known(by_tidy * 0)
        columns["overhead_usd"] = known(np.where(cache == 3, 800_000, 0))
        columns["latency_ms"], columns["overhead_ms"] = latency.tolist(), overhead.tolist()
        columns["upstream_ms"] = np.where(cache < 2, None, upstream.astype(object)).tolist()
        columns["ttft_ms"] = np.where(model % 2 == 1, (latency * 0.3).astype(object), None).tolist()
        columns["similarity"] = np.where(cache == 1, 0.95, None).tolist()
        columns["p_wrong"] = columns["similarity"]
        yield [*zip(*(columns.get(name, [blank[name]] * n) for name in COLUMNS), strict=True)]


def make(path: Path, rows: int, console: Console) -> None:
    """The ledger at `path`, made by the program itself and filled past its thread: a day, and that day again and again
    with other ids, moments and unique prompts."""
    Ledger(path).close()
    marks = ", ".join("?" * len(COLUMNS))
    again = {
        "ts": f"ts + ?1 * {DAY_S}",
        "id": "printf('far-%011x%014x', cast((ts + ?1 * 86400) * 1000 as integer), rowid + ?1 * ?2)",
        "key_hash": "iif(key_hash like 'f%', printf('f%02x', ?1) || substr(key_hash, 4), key_hash)",
    }
    columns = ", ".join(again.get(name, f'"{name}"') for name in COLUMNS)
    a_day = rows // DAYS
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("pragma synchronous=off")
        begun = time.perf_counter()
        conn.execute("begin")
        for chunk in made(a_day):
            conn.executemany(f"insert into requests values ({marks})", chunk)
        conn.execute("commit")
        for day in range(1, DAYS):
            conn.execute(
                f"insert into requests select {columns} from requests where rowid <= ?2 order by rowid", (day, a_day)
            )
        took_s = time.perf_counter() - begun
        console.print(f"{a_day * DAYS:,} rows made, {a_day * DAYS / took_s:,.0f} a second", highlight=False)


def roll_up(path: Path, console: Console, rows: int = 100_000) -> None:
    """Bring the roll-ups up to date, in large slices."""
    from farthing.proxy.rollup import Roller

    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        roller, begun, count = Roller(conn), time.perf_counter(), 0
        while done := roller.roll(rows):
            count += done
        took_s = time.perf_counter() - begun
        if count:
            console.print(f"{count:,} rows rolled up, {count / took_s:,.0f} a second", highlight=False)


def questions(path: Path) -> dict[str, Callable[[sqlite3.Connection, float], Any]]:
    """What is asked, of how many seconds before NOW_S."""
    by = ("model", "tenant", "user", "endpoint", "compress", "tag:team", "tag:region")
    with closing(figures.open_ledger(path)) as conn:
        some_id = conn.execute("select id from requests where rowid = 1000").fetchone()[0]
    asked: dict[str, Callable[[sqlite3.Connection, float], Any]] = {
        "summary": lambda conn, ago_s: figures.summary(conn, ASKED_S - ago_s, ASKED_S),
        **{
            f"summary by {part}": lambda conn, ago_s, part=part: figures.summary(  # type: ignore[misc]
                conn, ASKED_S - ago_s, ASKED_S, (part,)
            )
            for part in by
        },
        "summary by model, tag:team": lambda conn, ago_s: figures.summary(
            conn, ASKED_S - ago_s, ASKED_S, ("model", "tag:team")
        ),
        "series of 48": lambda conn, ago_s: figures.series(conn, ASKED_S - ago_s, ASKED_S, 48),
        "series of 84": lambda conn, ago_s: figures.series(conn, ASKED_S - ago_s, ASKED_S, 84),
        "series of 200": lambda conn, ago_s: figures.series(conn, ASKED_S - ago_s, ASKED_S, 200),
        "saved by form": lambda conn, ago_s: figures.saved_by_form(conn, ASKED_S - ago_s, ASKED_S),
        "routes": lambda conn, ago_s: by_route(conn, ASKED_S - ago_s, ASKED_S, Declared()),
        **{
            f"requests, {name}": lambda conn, ago_s, wanted=wanted: matching(  # type: ignore[misc]
                conn, wanted, (ASKED_S - ago_s, ASKED_S), 25
            )
            for name, wanted in FILTERS.items()
        },
        "recent 50": lambda conn, ago_s: figures.recent(conn, 50),
        "one by id": lambda conn, ago_s: figures.one(conn, some_id),
    }
    if hasattr(figures, "top_repeated"):
        asked["top repeated 50"] = lambda conn, ago_s: figures.top_repeated(conn, ASKED_S - ago_s, ASKED_S, 50)
    return asked


def timed(path: Path, ask: Callable[[sqlite3.Connection, float], Any], ago_s: float, times: int) -> tuple[float, float]:
    """Milliseconds: the least by the clock, and the least of the processor, which others' work doesn't lengthen."""
    took, worked = [], []
    for _ in range(times):
        begun, begun_work = time.perf_counter(), time.process_time()
        with closing(figures.open_ledger(path)) as conn:
            ask(conn, ago_s)
        took.append((time.perf_counter() - begun) * 1e3)
        worked.append((time.process_time() - begun_work) * 1e3)
        if took[0] > 10_000:
            break
    return min(took), min(worked)


def written(path: Path, rows: int) -> tuple[float, float]:
    """Rows a second through the ledger's thread, and the longest in ms that a row waited to be on the disk."""
    batch = [Row(*values) for chunk in made(rows) for values in chunk]
    ledger = Ledger(path, flush_ms=5, buffer_rows=10_000)
    begun, longest_s, since = time.perf_counter(), 0.0, time.perf_counter()
    for row in batch:
        if ledger.pending >= 8_000:
            while ledger.pending >= 4_000:
                time.sleep(0.001)
            longest_s, since = max(longest_s, time.perf_counter() - since), time.perf_counter()
        ledger.append(row)
    ledger.flush(60)
    took_s = time.perf_counter() - begun
    dropped = ledger.dropped
    ledger.close()
    assert not dropped
    return rows / took_s, longest_s * 1e3


def main() -> int:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="the ledger's file: made if it isn't there, and left")
    parser.add_argument("--times", type=int, default=5, help="how often each question is asked")
    parser.add_argument("--without", default="nothing", help="leave out questions whose name holds this")
    parser.add_argument("--only", default="", help="ask only questions whose name holds this")
    parser.add_argument("--no-writing", action="store_true", help="leave the writing out")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 110)
    with tempfile.TemporaryDirectory() as folder:
        path = given.keep or Path(folder) / "ledger.db"
        if not path.exists():
            make(path, given.rows, console)
        if hasattr(figures, "top_repeated"):
            roll_up(path, console)
        size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
        console.print(f"{size / 2**30:.2f} GiB", highlight=False)
        table = Table("question", *(f"{span}, {what}" for span in SPANS for what in ("ms", "CPU ms")), box=None)
        for column in table.columns[1:]:
            column.justify = "right"
        for name, ask in questions(path).items():
            if given.without in name or given.only not in name:
                continue
            found = [timed(path, ask, days * DAY_S, given.times) for days in SPANS.values()]
            table.add_row(name, *(f"{ms:,.1f}" for pair in found for ms in pair))
        console.print(table)
        if not given.no_writing:
            rate, longest_ms = written(Path(folder) / "writing.db", 300_000)
            console.print(f"written: {rate:,.0f} rows a second; longest for 4,000 rows {longest_ms:,.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
