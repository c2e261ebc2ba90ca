"""`farthing keys` through the real command line, beside a farthing that runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.commands import farthing
from tests.fakes.upstream import scripted
from tests.fakes.valkey import ValkeyProcess
from tests.scenario.test_serve import ask, serving

CONFIG = """
[auth]
virtual_keys = true
[[budgets]]
name = "each-key"
usd = 1
of = "key"
[spend]
unpriced = "pass"
"""


@pytest.mark.parametrize("kind", ["file", "redis"])
async def test_create_use_list_revoke(kind: str, tmp_path: Path) -> None:
    (tmp_path / "farthing.toml").write_text(CONFIG)
    with ValkeyProcess() as server:
        env = {"FARTHING_STORE__URL": server.url} if kind == "redis" else {}

        async def keys(*arguments: str) -> Any:
            done = await asyncio.to_thread(
                lambda: farthing("keys", *arguments, "--state", "state", "--json", cwd=tmp_path, **env)
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        async with (
            scripted() as up,
            serving(up, tmp_path, FARTHING_UPSTREAM__API_KEY="sk-operator", **env) as (
                _,
                client,
            ),
        ):
            assert (await ask(client)).status_code == 401
            made = await keys("create", "--name", "ann", "--tenant", "acme", "--budget", "day=2.5", "--expires", "30d")
            client.headers["Authorization"] = f"Bearer {made['key']}"
            await asyncio.sleep(0.8)
            assert (await ask(client)).status_code == 200
            assert up.calls[0].headers["Authorization"] == "Bearer sk-operator"

            (listed,) = await keys("list")
            assert listed == {name: value for name, value in made.items() if name != "key"}
            told = (await client.get("/farthing/api/budgets")).json()["budgets"]
            assert {one["name"] for one in told} == {"each-key", f"key.{made['id']}.day"}

            assert await keys("revoke", made["id"]) == {"id": made["id"], "revoked": True}
            await asyncio.sleep(1)
            refused = await ask(client)
            assert refused.status_code == 401
            assert "was revoked" in refused.json()["error"]["message"]
        assert "asked for" in (tmp_path / "serve.old.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "year=5"], "day, week or month"),
        (["--budget", "day=0"], "day, week or month"),
        (["--budget", "day=1e-9"], "day, week or month"),
        (["--budget", "day=NaN"], "day, week or month"),
        (["--budget", "day=5", "--budget", "week=100"], "--budget week=100: is never reached: day=5 ends before"),
        (["--budget", "week=8", "--budget", "week=7"], "--budget week=8: is never reached: week=7 ends before"),
        (["--expires", "yesterday"], "no span of time"),
        (["--expires", "2020-01-01"], "in the past"),
    ],
)
def test_bad_words_are_refused(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = farthing("keys", "create", "--name", "ann", *arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["day=5", "--budget", "week=35"], ["day=5", "--budget", "week=100", "--soft"]])
def test_budgets_that_can_be_reached_are_taken(arguments: list[str], tmp_path: Path) -> None:
    assert farthing("keys", "create", "--name", "ann", "--budget", *arguments, cwd=tmp_path).returncode == 0


def test_exit_statuses(tmp_path: Path) -> None:
    assert farthing("keys", "revoke", "nobody", cwd=tmp_path).returncode == 1
    away = farthing("keys", "list", cwd=tmp_path, FARTHING_STORE__URL="redis://127.0.0.1:1")
    assert away.returncode == 3
    assert "can't be reached" in away.stderr
    made = farthing("keys", "create", "--name", "ann", cwd=tmp_path)
    assert made.returncode == 0
    assert made.stdout.startswith("fk-")
    assert "auth.virtual_keys" in made.stderr
    shown = farthing("keys", "list", cwd=tmp_path)
    assert "ann" in shown.stdout
    assert made.stdout.strip() not in shown.stdout
