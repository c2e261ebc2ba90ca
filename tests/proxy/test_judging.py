"""Judges that need something: a model over HTTP, a process for code, the operator's own function."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from farthing.policies.answer import Answer
from farthing.policies.judge_code import Code
from farthing.policies.judges import JudgeCase, Score
from farthing.proxy.errors import ConfigFault
from farthing.proxy.judge_code import CodeLimits, run_code
from farthing.proxy.judge_custom import load
from farthing.proxy.judging import Means, any_judge, http_sender, judged

ADD = "def add(a, b):\n    return a + b"
LIMITS = CodeLimits(seconds=20.0)


def case(answer: str, reference: str | None = None) -> JudgeCase:
    return JudgeCase({"messages": [{"role": "user", "content": "?"}]}, Answer(answer), reference and Answer(reference))  # type: ignore[arg-type]


# By a table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"judge": "pairwize"}, "did you mean 'pairwise'"),
        ({"judge": "costum", "path": "a:b"}, "did you mean 'custom'"),
        ({"judge": "pairwise"}, "model must name"),
        ({"judge": "pairwise", "modell": "m"}, "did you mean 'model'"),
        ({"judge": "similar", "at_last": 0.5}, "did you mean 'at_least'"),
        ({"judge": "similar", "embed": 1}, "unknown key 'embed'"),
        ({"judge": "code", "tests": 1}, "must be a str"),
        ({"judge": "custom"}, "takes one key"),
        ({"judge": "custom", "path": "nowhere"}, "module:function"),
        ({"judge": "custom", "path": "no_such_module_here:judge"}, "can't be imported"),
        ({"judge": "custom", "path": "math:no_such"}, "has no function"),
        ({"judge": "custom", "path": "math:pi"}, "has no function"),
    ],
)
def test_a_wrong_table_is_refused_with_the_nearest_name(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigFault, match=message):
        any_judge(table)


@pytest.mark.parametrize("name", ["exact", "similar", "pairwise", "code", "agree"])
def test_every_kind_is_declared_by_a_table(name: str) -> None:
    found = any_judge({"judge": name} | ({"model": "m"} if name == "pairwise" else {}))

    assert found.name == name


# A model


async def test_a_model_is_asked_twice_and_its_cost_is_the_judges() -> None:
    bodies: list[dict[str, Any]] = []

    async def prefers_right(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        first = '"answer_1": "right"' in bodies[-1]["messages"][1]["content"]
        said = {"choices": [{"message": {"content": "1" if first else "2"}}]}
        return web.json_response(said, headers={"x-farthing-cost-usd": "0.000001"})

    async with _serving(prefers_right) as client:
        means = Means(http_sender(client))
        judge = any_judge({"judge": "pairwise", "model": "m"})
        better = await judged(judge, case("right", "wrong"), means)
        worse = await judged(judge, case("wrong", "right"), means)
        equal = await judged(judge, case("right", "right"), means)

    assert better == Score(1.0, "better", 2_000_000)
    assert worse == Score(0.0, "worse", 2_000_000)
    assert equal == Score(0.5, "equal", 0)
    assert len(bodies) == 4


@pytest.mark.parametrize(("status", "text"), [(500, "{}"), (200, "no JSON"), (200, "[]"), (429, "{}")])
async def test_a_model_that_fails_says_nothing(status: int, text: str) -> None:
    async def fails(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers={"x-farthing-cost-usd": "much"})

    async with _serving(fails) as client:
        judge = any_judge({"judge": "pairwise", "model": "m"})
        found = await judged(judge, case("a", "b"), Means(http_sender(client)))

    assert found == Score(None, "the judge gave no verdict", None)


async def test_without_means_nothing_is_asked_and_nothing_run() -> None:
    assert (await judged(any_judge({"judge": "pairwise", "model": "m"}), case("a", "b"))).value is None
    found = await judged(any_judge({"judge": "code", "tests": "assert add(1, 1) == 2"}), case(ADD))
    assert found == Score(None, "running code isn't allowed here")
    assert (await judged(any_judge({"judge": "exact"}), case("a", "a"))).value == 1.0


class _serving:  # noqa: N801 - reads as a verb
    def __init__(self, answer: Any) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        self.server = TestServer(app, host="127.0.0.1")

    async def __aenter__(self) -> httpx.AsyncClient:
        await self.server.start_server()
        self.client = httpx.AsyncClient(base_url=str(self.server.make_url("/v1/")))
        return self.client

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        await self.server.close()


# Code


@pytest.mark.parametrize(
    ("code", "tests", "value", "reason"),
    [
        (ADD, "assert add(1, 2) == 3", 1.0, "passes its tests"),
        (ADD, "assert add(1, 2) == 4", 0.0, "fails its tests"),
        (ADD, "assert add(", 0.0, "fails its tests"),
        ("raise SystemExit(0)", "pass", 0.0, "fails its tests"),
        ("import os\nos._exit(0)", "assert False", 0.0, "ended before its tests were through"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "pass", 0.0, "ended before its tests were through"),
        ("print('x' * 10_000_000)", "pass", 1.0, "passes its tests"),
        ("x = bytearray(10 << 30)", "pass", 0.0, "fails its tests"),
        ("open('big', 'wb').write(b'x' * (2 << 20))", "pass", 0.0, "tests"),
        ("import os\nassert os.listdir('.') == []", "assert 'PATH' not in os.environ", 1.0, "passes its tests"),
        ("import sys\nassert sys.stdin.read() == ''", "pass", 1.0, "passes its tests"),
    ],
)
async def test_code_is_run_against_its_tests(code: str, tests: str, value: float, reason: str) -> None:
    found = await run_code(Code(tests=tests), case(code), LIMITS)

    assert found.value == value
    assert reason in found.reason


async def test_where_limits_cant_be_set_nothing_is_run() -> None:
    found = await run_code(Code(tests="pass"), case(ADD), CodeLimits(memory_bytes=1 << 80))

    assert found == Score(None, "its limits can't be set on this machine")


@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(60)"])
async def test_code_that_doesnt_end_is_ended(code: str) -> None:
    found = await run_code(Code(tests="pass"), case(code), CodeLimits(seconds=1.0))

    assert found == Score(0.0, "did not end in time")


async def test_what_the_code_began_is_ended_with_it(tmp_path: Path) -> None:
    """As root the limit on processes doesn't hold, and a child is begun; else the code fails there. Neither stays."""
    began = tmp_path / "pid"
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(began)!r}, 'w').write(str(child.pid))\n"
        "child.wait()"
    )
    found = await run_code(Code(tests="pass"), case(code), CodeLimits(seconds=2.0))

    assert found.value == 0.0
    if began.exists():
        for _ in range(100):
            if not _runs(int(began.read_text())):
                break
            await asyncio.sleep(0.05)
        assert not _runs(int(began.read_text()))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# The operator's own


async def test_a_custom_judge_of_every_form(tmp_path: Path) -> None:
    (tmp_path / "my_own_judge.py").write_text(
        "def polite(case): return 'please' in case.answer.text\n"
        "def told(case): return 0.25, 'a quarter'\n"
        "async def later(case): return 0.5\n"
        "def unsure(case): return None\n"
        "def text(case): return 'good'\n"
        "def beyond(case): return 1.5\n"
        "def nan(case): return float('nan')\n"
        "def raises(case): raise RuntimeError(case.answer.text)\n"
    )
    found = {}
    for name in ("polite", "told", "later", "unsure", "text", "beyond", "nan", "raises"):
        judge = any_judge({"judge": "custom", "path": f"my_own_judge:{name}"}, folder=tmp_path)
        found[name] = await judged(judge, case("please"))

    values = {name: score.value for name, score in found.items()}
    assert values == {"polite": 1.0, "told": 0.25, "later": 0.5} | dict.fromkeys(
        ("unsure", "text", "beyond", "nan", "raises")
    )
    assert found["told"].reason == "a quarter"
    assert found["raises"].reason == "my_own_judge:raises raised RuntimeError"  # without the answer's text
    assert {score.cost_pico for score in found.values()} == {None}


def test_a_module_that_raises_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken_judge.py").write_text("raise KeyError('x')")

    with pytest.raises(ConfigFault, match="broken_judge can't be imported: KeyError"):
        load("broken_judge:judge", tmp_path)
