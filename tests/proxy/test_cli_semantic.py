"""`farthing cache explain` and `calibrate` as a user runs them: a program of its own, and its exit status."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from farthing.proxy.cli_semantic import explained
from farthing.proxy.state import announce
from tests.fakes.commands import ran
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import scripted
from tests.wire.test_semantic import learnt, loaded

VERBS = ("clean", "repair", "replace", "return")
THINGS = ("password", "invoice", "passport", "router", "charger", "garden", "kettle", "bicycle", "camera", "engine")


async def farthing(*argv: str | Path, stdin: str = "") -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    ended = await asyncio.to_thread(ran, "cache", *map(str, argv), stdin=stdin)
    return ended.returncode, ended.stdout, ended.stderr


def trace(path: Path, *, wrong: bool) -> Path:
    lines = []
    for number, (verb, thing) in enumerate((verb, thing) for verb in VERBS for thing in THINGS):
        for again in (False, True):
            text = f"How {'can' if again else 'do'} I {verb} my {thing}?"
            truth = f"c{number}{again if wrong else ''}"
            lines.append(json.dumps({"messages": [{"role": "user", "content": text}], "class": truth}))
    path.write_text("\n".join(lines), "utf-8")
    return path


async def test_explain_asks_the_running_farthing(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(
        json.dumps({"body": chat("How can I clean my kettle?"), "headers": {"authorization": "Bearer sk-one"}})
    )
    state = tmp_path / "state"
    async with scripted() as up, proxied(up.url, state, semantic__mode="serve") as proxy:
        await loaded(proxy)
        announce(state, proxy.url)
        await proxy.post(chat("How do I clean my kettle?"))
        await learnt(proxy, 1)
        shown = await farthing("explain", request, "--state", state)
        machine = await farthing("explain", "-", "--state", state, "--json", stdin=request.read_text())
        fresh = await farthing("explain", "-", "--state", state, stdin=json.dumps(chat("What is the latest news?")))

    assert shown[0] == 0, shown
    assert "observing" in shown[1]
    said = " ".join(shown[1].split())
    assert "asked How {+can+} I clean my kettle?" in said
    assert "stored How [-do-] I clean my kettle?" in said
    assert "thresholds, which the first comparisons choose" in said
    found = json.loads(machine[1])
    assert found["nearest"][0]["cosine"] > 0.9
    assert found["serving"] is False
    assert (fresh[0], "freshness" in fresh[1]) == (0, True)


@pytest.mark.parametrize(
    ("given", "said"), [("{", "can't read a request"), ("[]", "is no JSON object"), ("{}", "no farthing runs with")]
)
async def test_what_can_not_be_explained_is_said(tmp_path: Path, given: str, said: str) -> None:
    status, _, told = await farthing("explain", "-", "--state", tmp_path, stdin=given)
    assert status in (2, 3)
    assert said in " ".join(told.split())


async def test_calibrate_marks_the_lowest_safe_score(tmp_path: Path) -> None:
    path = trace(tmp_path / "trace.jsonl", wrong=False)
    status, shown, _ = await farthing("calibrate", path, "--max-wrong", "0.3")
    assert status == 0
    assert shown.count("the lowest safe one") == 1
    status, told, _ = await farthing("calibrate", path, "--max-wrong", "0.3", "--json")
    rows = json.loads(told)
    safe = [row["threshold"] for row in rows if row["safe"]]
    marked = next(line for line in shown.splitlines() if "the lowest safe one" in line)
    assert f"{min(safe):.2f}" in marked
    assert all(row["bound"] <= 0.3 for row in rows if row["safe"])


async def test_calibrate_ends_with_1_where_nothing_is_proved(tmp_path: Path) -> None:
    status, shown, _ = await farthing("calibrate", trace(tmp_path / "trace.jsonl", wrong=True))
    assert status == 1
    assert "No score is proved safe" in shown


async def test_calibrate_names_a_line_that_can_not_be_used(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n{\n", "utf-8")
    status, _, told = await farthing("calibrate", path)
    assert status == 2
    assert "line 2" in " ".join(told.split())
    path.write_text("", "utf-8")
    assert (await farthing("calibrate", path))[0] == 2


def test_prompts_mean_nothing_to_the_terminal() -> None:
    nasty = "[red]a\x1b[31mb\u202ec"
    near: dict[str, Any] = {"score": 0.5, "cosine": 0.9, "asked": [[nasty, True]], "stored": [[nasty, False]],
        "against": [{"kind": nasty, "asked": [nasty], "stored": []}]}  # fmt: skip
    on = Console(width=200, force_terminal=True, color_system=None)
    with on.capture() as said:
        told = {"verdict": nasty, "route": nasty, "serving": False, "needs": [nasty], "nearest": [near, near]}
        on.print(*explained(told), sep="\n")
    assert "\x1b[31m" not in said.get()
    assert "\u202e" not in said.get()
    # Verdict, route, both texts, a kind and its word; the other's text, kind and word; what is needed.
    assert said.get().count("[red]a\ufffd") == 10
