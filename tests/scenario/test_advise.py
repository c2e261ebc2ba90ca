"""`farthing compress advise` as a user runs it: a program of its own, a server that answers, exit status and words."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.advise_requests import PROMPT
from farthing.proxy import small_model
from farthing.proxy.demo_servers import Server, free_port
from tests.fakes.commands import ran
from tests.fakes.upstream import Script, scripted

PRICES = '[prices.models."m"]\ninput_usd_per_mtok = 1.0\ncached_usd_per_mtok = 0.1\noutput_usd_per_mtok = 4.0\n'
# Stands in the wordy prompt and in no draft of it.
WORDY = "Please note that"


async def farthing(*argv: str | Path, stdin: str = "", timeout_s: float = 100) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `farthing compress advise ...`."""
    words = ("compress", *map(str, argv))
    ended = await asyncio.to_thread(ran, *words, stdin=stdin, timeout_s=timeout_s)
    return ended.returncode, ended.stdout, ended.stderr


def traffic(path: Path, count: int = 120, model: str = "m", **more: Any) -> Path:
    lines = []
    for number in range(count):
        turns = [{"role": "system", "content": PROMPT}, {"role": "user", "content": f"Question number {number}?"}]
        tags = {"tags": {"team": "a" if number % 3 else "b"}}
        lines.append(json.dumps({"body": {"model": model, "messages": turns, "stream": True, "n": 2} | more} | tags))
    path.write_text("\n".join(lines), "utf-8")
    return path


def priced(folder: Path) -> tuple[str, Path]:
    path = folder / "farthing.toml"
    path.write_text(PRICES, "utf-8")
    return "--config", path


async def advised(tmp_path: Path, url: str, *options: str) -> dict[str, Any]:
    """The one advice, as JSON."""
    file = traffic(tmp_path / "requests.jsonl")
    status, out, err = await farthing("advise", file, *priced(tmp_path), "--upstream", url, "--json", *options)
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    assert found["parts"][0]["requests"] == 120 and found["parts"][0]["share"] > 0.8
    advice: dict[str, Any] = found["advice"][0]
    return advice


async def test_a_draft_whose_answers_are_the_same_is_recommended(tmp_path: Path) -> None:
    file = traffic(tmp_path / "requests.jsonl")
    saved = tmp_path / "report.json"
    async with scripted() as up:
        up.default = Script(says="cards")
        status, out, err = await farthing(
            *("advise", file, *priced(tmp_path), "--upstream", up.url, "--max-worse", "0.05", "--out", saved)
        )
        assert status == 0, err
        assert "verdict  recommended" in out
        assert "team=a" in out and "team=b" in out
        assert "Nothing was changed" in out
        report = json.loads(saved.read_text("utf-8"))["advice"][0]
        assert report["tokens_after"] < 0.75 * report["tokens_before"]
        assert WORDY not in report["draft"] and report["before"] == PROMPT
        assert report["trial"]["differ"] == 0 and report["trial"]["differ_upper"] <= 0.05
        sent = [call.json for call in up.calls]
        assert len(sent) == 2 * report["trial"]["cases"] + report["trial"]["asked_twice"]
        assert all(body["temperature"] == 0 and "n" not in body and "stream" not in body for body in sent)
        systems = {body["messages"][0]["content"] for body in sent}
        assert systems == {PROMPT, report["draft"]}
        charged = up.bill(("1.0", "0.1", "4.0"))
        assert report["trial_usd"] == pytest.approx(float(charged))
    assert file.read_text("utf-8").count(WORDY) >= 120, "the file is as it was"


async def test_too_few_cases_are_said_to_be_too_few(tmp_path: Path) -> None:
    async with scripted() as up:
        up.default = Script(says="cards")
        advice = await advised(tmp_path, up.url, "--cases", "20")
    more = advice["trial"]["more_cases"]
    assert more > 100
    assert advice["verdict"] == f"not shown to be as good: {more:,} more cases needed"


async def test_a_draft_that_changes_answers_is_worse_and_the_trial_ends_early(tmp_path: Path) -> None:
    async with scripted() as up:
        up.default = Script(says="payments")
        up.by_text[WORDY] = Script(says="cards")
        advice = await advised(tmp_path, up.url, "--noise", "1")
    assert advice["verdict"] == "worse"
    assert advice["trial"]["cases"] == advice["trial"]["differ"] < 120
    assert "surely worse" in advice["trial"]["stopped"]
    apart = advice["trial"]["apart"]
    assert len(apart) == advice["trial"]["differ"]
    assert {(one["long"].strip(), one["short"].strip()) for one in apart} == {("cards", "payments")}
    assert all(1 <= one["line"] <= 120 for one in apart)


async def test_a_judge_may_find_other_words_as_good(tmp_path: Path) -> None:
    async with scripted() as up:
        up.default = Script(says="payments")
        up.by_text = {"You compare two answers": Script(says="yes"), WORDY: Script(says="cards")}
        advice = await advised(tmp_path, up.url, "--judge", "m", "--cases", "10")
        judged = [call for call in up.calls if b"You compare two answers" in call.body]
    assert advice["trial"]["differ"] == 0
    assert advice["trial"]["found_as_good_by_judge"] == 10
    assert len(judged) == 20


async def test_the_budget_is_never_passed(tmp_path: Path) -> None:
    async with scripted() as up:
        up.default = Script(says="cards")
        advice = await advised(tmp_path, up.url, "--max-usd", "0.05")
        charged = float(up.bill(("1.0", "0.1", "4.0")))
    assert advice["trial"]["stopped"] == "the budget is used up"
    assert 0 < charged <= 0.05
    assert advice["verdict"].startswith("not shown to be as good")


GOOD = (
    "Sort each customer message to one team: cards: getting, linking, activating or replacing a card. "
    "payments: a payment, transfer, top-up, fee or exchange rate. accounts: opening, verifying or closing an "
    "account, or personal details. security: a lost or stolen card, a PIN, passcode or payment that the "
    "customer didn't make. Read the whole message before you decide. Answer with the name of the team alone. "
    "You must never answer the question itself. Each message goes to exactly one team, whether or not it "
    "mentions several topics. If a message is about a stolen card, the team is always security."
)


@pytest.mark.parametrize(("said", "taken"), [(GOOD, True), (GOOD.replace("You must never answer", "Answer"), False)])
async def test_a_models_draft_is_taken_only_where_nothing_is_lost(tmp_path: Path, said: str, taken: bool) -> None:
    async with scripted() as up:
        up.default = Script(says="cards")
        up.by_text["You shorten prompts"] = Script(says=said)
        advice = await advised(tmp_path, up.url, "--drafter", "model", "--cases", "5")
        orders = [call.json for call in up.calls if b"You shorten prompts" in call.body]
    if taken:
        assert advice["draft"] == said and advice["drafter"] == "model m"
        assert len(orders) == 1
    else:
        assert WORDY not in advice["draft"] and advice["draft"].startswith("# Support triage")
        assert advice["drafter"].startswith("rules, since the model's draft was not taken: it lost")
        assert len(orders) == 2 and "rule: You must never answer" in orders[1]["messages"][3]["content"]


async def test_without_an_upstream_it_drafts_and_says_that_nothing_was_tried(tmp_path: Path) -> None:
    file = traffic(tmp_path / "requests.jsonl", 3)
    status, out, _ = await farthing("advise", "-", "--diff", stdin=file.read_text("utf-8"))
    assert status == 0
    assert "verdict  not evaluated" in out and "--upstream" in out
    assert "-You are a helpful" in out and "No price is known for m" in out


async def test_what_recurs_nowhere_is_said(tmp_path: Path) -> None:
    status, out, _ = await farthing("advise", traffic(tmp_path / "requests.jsonl", 1))
    assert status == 0
    assert "Nothing recurs" in out


@pytest.mark.parametrize(
    ("content", "options", "status", "said"),
    [
        ("hello", (), 2, "holds no JSON"),
        ('{"a": 1}', (), 2, "holds no request"),
        (None, ("--drafter", "model"), 2, "needs --upstream"),
        (None, ("--upstream", "http://127.0.0.1:9", "--max-usd", "1"), 2, "no price is known for 'm'"),
        (None, ("--upstream", "http://127.0.0.1:9"), 3, "does not answer"),
    ],
)
async def test_what_cant_be_done_is_said(
    tmp_path: Path, content: str | None, options: tuple[str, ...], status: int, said: str
) -> None:
    file = traffic(tmp_path / "requests.jsonl", 30)
    if content is not None:
        file.write_text(content, "utf-8")
    ended, _, err = await farthing("advise", file, *options)
    assert ended == status, err
    assert said in " ".join(err.split())


async def test_an_upstream_that_refuses_is_quoted(tmp_path: Path) -> None:
    async with scripted() as up:
        up.default = Script(status=401)
        ended, _, err = await farthing("advise", traffic(tmp_path / "r.jsonl", 60), "--upstream", up.url)
        assert len(up.calls) <= 25
    assert ended == 3
    assert "status 401" in err


async def test_a_model_that_takes_no_temperature_is_asked_without(tmp_path: Path) -> None:
    refusal = Script(status=400, body=b'{"error": {"message": "temperature is not supported", "type": "x"}}')
    async with scripted() as up:
        up.default = Script(says="cards")
        up.by_text['"temperature"'] = refusal
        advice = await advised(tmp_path, up.url, "--cases", "10", "--at-once", "1")
    assert advice["trial"]["cases"] == 10
    assert advice["trial"]["failed"] == 0


async def test_the_command_for_one_file_is_still_there(tmp_path: Path) -> None:
    file = tmp_path / "advise"
    file.write_text('{"messages": [{"role": "tool", "tool_call_id": "1", "content": "{\\"a\\":  1}"}]}', "utf-8")
    status, out, _ = await farthing(file)
    assert status == 0
    assert "tool result" in out


@pytest.mark.long
@pytest.mark.model
@pytest.mark.skipif(bool(small_model.missing()), reason=f"{small_model.missing()} (see small_model.INSTALL)")
async def test_a_real_model_is_asked_under_both_versions(tmp_path: Path) -> None:
    port = free_port()
    argv = [sys.executable, "-m", "farthing.proxy.small_model", "--port", str(port)]
    server = await Server.start("the small model", argv, tmp_path / "model.log")
    try:
        await server.ready(f"http://127.0.0.1:{port}/health", 60)
        grammar = 'root ::= "cards" | "payments" | "accounts" | "security"'
        file = traffic(tmp_path / "requests.jsonl", 6, small_model.MODEL, grammar=grammar, max_tokens=8)
        status, out, err = await farthing(
            *("advise", file, "--upstream", f"http://127.0.0.1:{port}", "--json", "--cases", "6", "--at-once", "1")
        )
    finally:
        await server.stop()
    assert status == 0, err
    trial = json.loads(out)["advice"][0]["trial"]
    assert (trial["cases"], trial["failed"]) == (6, 0)
    assert trial["differ_by_noise"] == 0, "greedy answers repeat"
