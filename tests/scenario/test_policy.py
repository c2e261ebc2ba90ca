"""`farthing policy` through the real command line, beside a farthing that runs."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.commands import farthing
from tests.fakes.upstream import Script, scripted
from tests.scenario.test_serve import ask, serving

QUIET = {"FARTHING_SEMANTIC__MODE": "off"}
BETTER = '[semantic]\nmode = "off"\n[cache]\nttl_s = 60\n[server]\nport = 1\n'
WORSE = '[semantic]\nmode = "off"\n[aliases]\nm = "broken-model"\n'


async def policy(cwd: Path, *arguments: str, status: int = 0) -> Any:
    """The command's JSON; what it says on standard error where it isn't to succeed."""
    given = ("policy", *arguments, "--state", "state", "--json")
    done = await asyncio.to_thread(lambda: farthing(*given, cwd=cwd, **QUIET))
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout) if status in (0, 1) and done.stdout else done.stderr


async def answered(client: httpx.AsyncClient, count: int) -> set[str]:
    """The policies that answered so many requests."""
    return {(await ask(client, f"question {n}")).headers["x-farthing-policy"] for n in range(count)}


async def test_a_good_policy_comes_to_all_traffic_and_a_bad_one_is_taken_back(tmp_path: Path) -> None:
    (tmp_path / "better.toml").write_text(BETTER)
    (tmp_path / "worse.toml").write_text(WORSE)
    quick = {"FARTHING_ROLLOUT__HOLD_S": "0", "FARTHING_ROLLOUT__MIN_REQUESTS": "3", "FARTHING_UPSTREAM__RETRIES": "0"}
    async with scripted() as up, serving(up, tmp_path, **quick) as (_, client):
        up.by_text["broken-model"] = Script(status=500)
        first = (await policy(tmp_path, "list"))["active"]["version"]
        assert await answered(client, 3) == {first}

        changes = (await policy(tmp_path, "diff", "better.toml", status=1))["changes"]
        assert changes == [{"path": "cache.ttl_s", "before": 86_400, "after": 60}]
        begun = await policy(tmp_path, "promote", "better.toml", "--steps", "30%,60%,100%", "--note", "shorter")
        better = begun["candidate"]["version"]
        assert (await policy(tmp_path, "show", "candidate"))["sections"]["cache"]["ttl_s"] == 60
        while (await client.get("/farthing/api/policy")).json()["candidate"] is not None:
            await answered(client, 5)
        assert await answered(client, 5) == {better}

        begun = await policy(tmp_path, "promote", "worse.toml", "--steps", "0.2,1", "--hold", "600")
        worse = begun["candidate"]["version"]
        failed = 0
        for number in range(400):
            failed += (await ask(client, f"then {number}")).status_code == 500
            if (await client.get("/farthing/api/policy")).json()["candidate"] is None:
                break
        assert 0 < failed < 40
        assert await answered(client, 5) == {better}
        (incident,) = (await client.get("/farthing/api/incidents")).json()["incidents"]
        assert (incident["kind"], incident["policy"]) == ("rollback", worse)
        assert json.loads((tmp_path / "state" / "incidents.jsonl").read_text()) == incident

        back = await policy(tmp_path, "rollback", "--why", "no need")
        assert back["active"]["version"] == first
        assert await answered(client, 3) == {first}
        assert [one["what"] for one in back["changes"]] == [
            "rolled back to", "candidate rolled back by the guard", "roll-out begun", "roll-out finished",
            "step to 60%", "roll-out begun", "started",
        ]  # fmt: skip
    shown = await asyncio.to_thread(lambda: farthing("policy", "list", "--state", "state", cwd=tmp_path))
    assert "no farthing runs here" in shown.stdout
    assert all(version in shown.stdout for version in (first, better, worse, "no need", "shorter"))


async def test_a_roll_out_and_a_promotion_outlive_a_kill_and_a_changed_file_ends_them(tmp_path: Path) -> None:
    (tmp_path / "better.toml").write_text(BETTER)
    (tmp_path / "worse.toml").write_text(WORSE)
    config = tmp_path / "farthing.toml"
    config.write_text("[rollout]\nhold_s = 600\n")
    async with scripted() as up:
        async with serving(up, tmp_path) as (child, client):
            first = (await policy(tmp_path, "list"))["active"]["version"]
            done = await policy(tmp_path, "promote", "better.toml", "--now")
            better = done["active"]["version"]
            begun = await policy(tmp_path, "promote", "worse.toml", "--unit", "user", "--steps", "0.5,1")
            before = await users(client)
            assert set(before.values()) == {better, begun["candidate"]["version"]}
            await asyncio.sleep(0.5)
            child.send_signal(signal.SIGKILL)
            await child.wait()
        async with serving(up, tmp_path) as (child, client):
            assert await users(client) == before
            now = (await client.get("/farthing/api/policy")).json()
            assert (now["active"]["version"], now["candidate"]["share"]) == (better, 0.5)
            assert now["candidate"]["since"] == begun["candidate"]["since"]
        config.write_text("[cache]\nttl_s = 9\n")
        async with serving(up, tmp_path) as (child, client):
            now = (await client.get("/farthing/api/policy")).json()
            assert now["candidate"] is None
            assert now["active"]["version"] not in (first, better)
            config.write_text("")
            child.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.5)
            assert await answered(client, 2) == {first}
            assert (await policy(tmp_path, "rollback"))["active"]["version"] == now["active"]["version"]


async def users(client: httpx.AsyncClient) -> dict[str, str]:
    """Which policy answers each of some users."""
    found = {}
    for number in range(24):
        answer = await client.post(
            "/v1/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
            headers={"x-farthing-user": f"u{number}"},
        )
        found[f"u{number}"] = answer.headers["x-farthing-policy"]
    return found


async def test_exit_statuses(tmp_path: Path) -> None:
    (tmp_path / "better.toml").write_text(BETTER)
    (tmp_path / "bad.toml").write_text("[cache]\nttl = 5\n")
    assert "no farthing runs" in await policy(tmp_path, "promote", "better.toml", status=3)
    assert "no farthing runs" in await policy(tmp_path, "rollback", status=3)
    assert "no one policy version" in await policy(tmp_path, "show", "p-none", status=2)
    async with scripted() as up, serving(up, tmp_path):
        assert "did you mean 'ttl_s'" in await policy(tmp_path, "promote", "bad.toml", status=2)
        assert "no policy version" in await policy(tmp_path, "promote", "p-none", status=2)
        assert "shares that rise" in await policy(tmp_path, "promote", "better.toml", "--steps", "0.5", status=2)
        assert "no shares" in await policy(tmp_path, "promote", "better.toml", "--steps", "half", status=2)
        assert "no version before" in await policy(tmp_path, "rollback", status=1)
        assert "can't read" in await policy(tmp_path, "promote", "better.toml", "--gate", "suite.yaml", status=1)
        same = await policy(tmp_path, "diff", "active", "active")
        assert same["changes"] == []
        assert await policy(tmp_path, "off") == {"switched_off": True}
        assert (await policy(tmp_path, "list"))["switched_off"]
        assert await policy(tmp_path, "on") == {"switched_off": False}


async def test_what_a_person_sees(tmp_path: Path) -> None:
    (tmp_path / "better.toml").write_text(BETTER)
    shown = {}
    async with scripted() as up, serving(up, tmp_path):
        for name, given in (
            ("promote", ["better.toml", "--steps", "0.1,1", "--note", "shorter"]),
            ("list", []),
            ("diff", ["candidate"]),
            ("show", ["candidate"]),
        ):
            command = ("policy", name, *given, "--state", "state")
            done = await asyncio.to_thread(lambda command=command: farthing(*command, cwd=tmp_path))
            shown[name] = done.stdout + done.stderr

    assert "left aside, no part of a policy: server" in shown["promote"]
    for words in (
        "active ",
        "candidate ",
        "10% of requests",
        "step 1 of 2 (10%, 100%)",
        "evidence against it",
        "shorter",
    ):
        assert words in shown["list"]
    assert "cache.ttl_s" in shown["diff"]
    assert "semantic.mode" in shown["show"]


def test_the_switch_names_its_file_only_while_it_is_there(tmp_path: Path) -> None:
    said = {name: farthing("policy", name, "--state", "state", cwd=tmp_path).stdout.strip() for name in ("off", "on")}
    file = Path("state") / "OFF"
    assert said == {
        "off": f"optimisation is off: requests pass through unchanged ({file})",
        "on": "optimisation is on, as configured",
    }
    assert not (tmp_path / file).exists()
