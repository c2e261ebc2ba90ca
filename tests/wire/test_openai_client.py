"""The official OpenAI client works through the proxy unchanged; a hit is to it what the miss was.

By default with the client of this environment; `make test-clients` runs it with openai-python 2 and 3, each in an
environment of its own (FARTHING_TEST_CLIENT names its python).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import proxied
from tests.fakes.upstream import Script, scripted

pytestmark = pytest.mark.clients
SCRIPT = Path(__file__).parent / "openai_client.py"


async def run(url: str) -> dict[str, Any]:
    python = os.environ.get("FARTHING_TEST_CLIENT", sys.executable)
    child = await asyncio.create_subprocess_exec(
        Path(python).absolute(), SCRIPT, f"{url}/v1", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()[-2000:]
    found: dict[str, Any] = json.loads(out)
    return found


async def test_everything_an_app_does_twice(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, upstream__retries=0) as proxy:
        up.by_text = {"/status/400": Script(status=400), "/status/429": Script(status=429)}
        first = await run(proxy.url)
        calls = len(up.calls)
        second = await run(proxy.url)

        assert first["chat"][0] == "miss"
        assert second["chat"][0] == "hit-exact"
        first["chat"].pop(0)
        second["chat"].pop(0)
        assert first == second
        assert len(up.calls) == calls + 3  # errors and the list of models are asked for again; all else was a hit
        rows = await proxy.rows(2 * (calls + 1))

    assert first["stream"].startswith("You said")
    assert first["stream_usage"] is False
    assert len(first["usage_wanted"]) == 1
    assert first["tool"] == ["weather", '{"city": "Paris"}', "tool_calls"]
    assert first["tool_stream"] == '{"city": "Paris"}'
    assert first["structured"] == {"name": "Ada", "age": 36}
    assert first["embeddings"] == [[1.0, 0.0, 0.5], [3.0, 1.0, 0.5]]
    assert first["responses"] and first["responses_stream"]
    assert first["models"] == ["m"]
    assert [error[:2] for error in first["errors"]] == [[True, 400], [True, 429], ["invalid_request", "x-farthing-ttl"]]
    assert sum(row["cost_usd"] or 0 for row in rows) == up.bill(("2", "1", "8")) * 10**12
    hits = [row for row in rows if row["cache"] == "hit-exact"]
    assert len(hits) == calls - 3
    assert all(row["saved_exact_usd"] == row["baseline_usd"] > 0 for row in hits)
