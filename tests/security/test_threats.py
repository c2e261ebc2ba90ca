"""docs/security.md's threats, one by one, against a running proxy; smuggling and isolation have files of their own."""

from __future__ import annotations

import ast
import asyncio
import gzip
import json
import logging
import sqlite3
import time
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import structlog

from farthing.cache.store import Selector
from farthing.proxy.config import Log
from farthing.proxy.logs import set_up
from farthing.proxy.openapi import document
from farthing.proxy.tokens import Tokenizer
from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.security.wire import exchange, raw_upstream, requests_in
from tests.wire.test_compress import UNPROVEN, told
from tests.wire.test_compress import body as recoded
from tests.wire.test_semantic import SERVE, learnt, loaded

ROOT = Path(__file__).parent.parent.parent
SECRET, PROMPT = "sk-SECRET-hush", "PROMPT-hush"


# -- what may never be seen


async def test_neither_keys_nor_prompts_leave_by_logs_metrics_screens_errors_or_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every way an exchange can go, then everything that can be looked at is looked through."""
    set_up(Log(level="debug", format="json"), terminal=False)
    try:
        async with scripted() as up, proxied(up.url, tmp_path, upstream__retries=1) as proxy:
            shown = {"Authorization": f"Bearer {SECRET}"}
            failures = [
                Script(),
                Script(status=500),
                Script(status=401),
                Script(reset=True),
                Script(cut_after=20),
                Script(error_event=True),
                Script(body=b"not json " + PROMPT.encode()),
            ]
            for script in failures:
                up.default = script
                for stream in (False, True):
                    try:
                        await proxy.post(chat(f"{PROMPT} {script.status}", stream=stream), **shown)
                    except Exception:
                        assert script.cut_after is not None
            up.default = Script()
            await proxy.post(b'{"model":"m","messages":"' + PROMPT.encode(), **shown)
            await proxy.post({"model": "m", "input": PROMPT}, "/v1/embeddings", **shown)
            told = [(await proxy.post(chat(PROMPT), x_farthing_defer="x", **shown)).text]
            rows = await proxy.rows(5)
            await quiet(proxy)
            details = [f"/farthing/api/requests/{row['id']}" for row in rows]
            told += [(await proxy.client.get(path)).text for path in ("/metrics", "/readyz", *PAGES, *details)]
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    told += capfd.readouterr()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
            if not file.name.startswith("answers.db"):
                assert PROMPT.encode() not in file.read_bytes(), file
    assert not [text[:300] for text in told if SECRET in text or PROMPT in text]


CALLS = {path: set(methods) for path, methods in document("test")["paths"].items() if path.startswith("/farthing/api/")}
PAGES = [
    path for path, methods in CALLS.items() if "get" in methods and "{" not in path and not path.endswith("deferred")
]


async def test_no_header_or_path_chooses_another_host(tmp_path: Path) -> None:
    """SSRF: the configuration alone says where requests go."""
    async with raw_upstream() as up, raw_upstream() as victim, proxied(up.url, tmp_path) as proxy:
        host = victim.url.removesuffix("/v1")
        for headers in (
            {"Host": host.removeprefix("http://")},
            {"x-farthing-upstream": host, "x-farthing-base-url": host, "x-farthing-route": f"{host}/v1"},
            {"helicone-target-url": host, "helicone-openai-api-base": host},
            {"x-portkey-custom-host": host, "x-portkey-config": json.dumps({"custom_host": host})},
            {"cf-aig-custom-host": host, "x-litellm-api-base": host},
            {"X-Forwarded-Host": host, "X-Original-URL": host, "X-Rewrite-URL": host, "Forwarded": f"host={host}"},
        ):
            await proxy.post(chat(base_url=host, api_base=host), **headers)
        for target in ("/v1/../../x", "/v1/%2e%2e/%2e%2e/x", "/v1/@evil/", f"/v1/{host}", f"/v1/?u={host}", "/v1\\x"):
            await proxy.client.get(target)

    assert victim.all == b""
    heads = [head for heard in up.heard for head, _ in requests_in(bytes(heard))]
    assert len(heads) >= 6
    own = up.url.split("/")[2].encode()
    assert all(b"\r\nHost: " + own + b"\r\n" in head + b"\r\n" for head in heads)


async def test_a_redirect_is_the_client_s_to_follow(tmp_path: Path) -> None:
    async with raw_upstream() as victim, scripted() as up, proxied(up.url, tmp_path) as proxy:
        up.default = Script(status=307, headers={"Location": victim.url}, body=b"")
        answer = await proxy.post(chat())

    assert answer.status_code == 307
    assert victim.all == b""


# -- what may never grow


@pytest.mark.parametrize("form", ["gzip", "deflate"])
async def test_a_decompression_bomb_is_passed_on_and_not_unpacked(form: str, tmp_path: Path) -> None:
    """64 MB of nothing in 64 kB: the client asked the upstream for it and gets it; farthing never holds it."""
    plain = b'{"x":"' + b" " * 2**26 + b'"}'
    bomb = gzip.compress(plain) if form == "gzip" else zlib.compress(plain)
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        up.default = Script(headers={"Content-Encoding": form}, body=bomb)
        async with proxy.client.stream("POST", "/v1/chat/completions", json=chat()) as answer:
            got = b"".join([piece async for piece in answer.aiter_raw()])
        await proxy.rows(1)
        stats = await proxy.services.state.store.stats()

    assert got == bomb
    assert stats.entries == 0


@pytest.mark.parametrize("form", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("rest", "kept"), [(b"", 1), (gzip.compress(b"\n"), 0), (b"and more", 0)], ids=["whole", "packed", "open"]
)
async def test_an_answer_that_is_packed_in_pieces_is_passed_on_and_never_stored_in_part(
    form: str, rest: bytes, kept: int, tmp_path: Path
) -> None:
    """RFC 1952, 2.2: clients unpack all members; of the first alone another answer would be made for later ones."""
    said = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    first = json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [said]}).encode()
    whole = (gzip.compress(first) if form == "gzip" else zlib.compress(first)) + rest
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        up.default = Script(headers={"Content-Type": "application/json", "Content-Encoding": form}, body=whole)
        async with proxy.client.stream("POST", "/v1/chat/completions", json=chat()) as answer:
            assert b"".join([piece async for piece in answer.aiter_raw()]) == whole
        await proxy.rows(1)
        assert (await proxy.services.state.store.stats()).entries == kept


async def test_a_packed_request_is_never_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(json.dumps(chat()).encode() + b" " * 2**26)
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        answer = await proxy.post(bomb, Content_Encoding="gzip")

    assert up.calls[0].body == bomb
    assert answer.headers["x-farthing-cache"] == "bypass"


async def test_a_line_of_a_stream_without_an_end_goes_on_uncut_and_is_not_held(tmp_path: Path) -> None:
    """SSE: 24 MB without a line break, where an event may have 4 kB and the buffer 64 kB."""
    line = b"data: " + b"x" * 24 * 2**20
    async with scripted() as up:
        up.default = Script(headers={"Content-Type": "text/event-stream"}, body=line, chunk_bytes=65_536)
        async with proxied(up.url, tmp_path, limits__sse_event_bytes=4096, limits__buffer_bytes=65_536) as proxy:
            answer = await proxy.post(chat(stream=True))
            await proxy.rows(1)
            stats = await proxy.services.state.store.stats()

    assert answer.content == line
    assert stats.entries == 0


REGEXES_MET = [
    "a" * 50_000 + "!", "@" * 50_000, "." * 50_000, ("0-" * 25_000), "sk-" * 20_000, "eyJ." * 15_000,
    "a@" * 25_000, "(((" * 15_000, "<" * 50_000, "<!--" * 12_000, "&#" * 25_000, "```" * 15_000, " \n" * 25_000,
    "\\" * 50_000, '"' * 50_000, "[{" * 100 + "x" * 50_000, "1,1," * 12_000, "::" * 25_000, "|-" * 25_000,
    "\x1b[" * 25_000,
]  # fmt: skip


async def test_no_text_makes_a_pattern_run_away(tmp_path: Path) -> None:
    """ReDoS: texts that patterns are afraid of, through redaction, compression and the semantic stage. In processor
    time: a text that costs more than a second costs no more than thrice what half of it does, and all of them are
    within a bound that only a pattern gone wild exceeds. test_patterns.py tries each pattern by itself."""
    wide: dict[str, Any] = {
        "capture__enabled": True, "compress__recode": "observe", "compress__squeeze": "observe",
        "semantic__mode": "observe",
    }  # fmt: skip
    async with scripted() as up, proxied(up.url, tmp_path, **wide) as proxy:

        async def spent_s(text: str) -> float:
            began = time.process_time()
            tool = {"role": "tool", "tool_call_id": "c", "content": text}
            said = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function",
                    "function": {"name": "f", "arguments": "{}"}}]}  # fmt: skip
            body = {
                "model": "m",
                "messages": [{"role": "user", "content": text}, said, tool, chat(text)["messages"][0]],
            }
            assert (await proxy.post(body)).status_code == 200
            await quiet(proxy)
            return time.process_time() - began

        await spent_s("what is loaded at first")
        all_s = 0.0
        for text in REGEXES_MET:
            all_s += (took_s := await spent_s(text))
            if took_s > 1:
                half = text[: len(text) // 2]
                took_s = min(took_s, *[await spent_s(f"{text}{number}") for number in range(2)])
                half_s = min([await spent_s(f"{half}{number}") for number in range(2)])
                assert took_s <= max(1, 3 * half_s), f"{text[:20]!r}: {took_s:.2f} s, and half of it {half_s:.2f} s"

    assert all_s < 60


# -- who may do what


async def test_answers_cannot_be_poisoned(tmp_path: Path) -> None:
    """What isn't the whole, good answer to that very request is never kept for the next who asks."""
    async with scripted() as up, proxied(up.url, tmp_path, upstream__retries=0) as proxy:
        bad = [
            Script(status=500),
            Script(status=206),
            Script(status=302, headers={"Location": "/"}, body=b"{}"),
            Script(body=b"<html>not an answer</html>", headers={"Content-Type": "text/html"}),
            Script(body=b'{"error":{"message":"overloaded"}}'),
            Script(body=b"{}"),
            Script(cut_after=10),
        ]
        for at, script in enumerate(bad):
            up.default = script
            with_closing = chat(f"poison {at}")
            try:
                await proxy.post(with_closing)
            except Exception:
                assert script.cut_after is not None
            up.default = Script()
            assert (await proxy.post(with_closing)).headers["x-farthing-cache"] == "miss", script


async def test_headers_outside_the_key_reach_the_upstream_only_where_they_cannot_change_the_answer(
    proxy_and_up: tuple[Proxied, ScriptedUpstream],
) -> None:
    """Unkeyed input: a vendor's header makes another key, so that one client's can't poison another's answer."""
    proxy, _ = proxy_and_up
    await proxy.post(chat("unkeyed"), OpenAI_Beta="evil=v9")
    assert (await proxy.post(chat("unkeyed"))).headers["x-farthing-cache"] == "miss"
    await proxy.post(chat("unkeyed"), Anthropic_Beta="evil")
    assert (await proxy.post(chat("unkeyed"), Anthropic_Beta="other")).headers["x-farthing-cache"] == "miss"


async def test_a_miss_says_nothing_of_what_others_have_stored(
    proxy_and_up: tuple[Proxied, ScriptedUpstream],
) -> None:
    """The timing side channel: what one tenant has stored leaves no trace in how another is answered: no hit, no join,
    no similarity, no answer out of `only-if-cached`; and both of them went upstream."""
    proxy, up = proxy_and_up
    other = {"Authorization": "Bearer sk-other"}
    await proxy.post(chat("the merger is on"))
    answer = await proxy.post(chat("the merger is on"), **other)
    probe = await proxy.post(chat("the merger is off"), Cache_Control="only-if-cached", **other)
    twin = await proxy.post(chat("the merger is on"), Cache_Control="only-if-cached", Authorization="Bearer sk-third")

    assert answer.headers["x-farthing-cache"] == "miss"
    assert len(up.calls) == 2
    assert (probe.status_code, twin.status_code) == (504, 504)
    differing = {"x-farthing-id", "date", "x-farthing-overhead-ms"}
    assert {n: v for n, v in probe.headers.items() if n not in differing} == {
        n: v for n, v in twin.headers.items() if n not in differing
    }


async def test_who_asks_is_spared_no_embedding_of_what_another_tenant_sent(tmp_path: Path) -> None:
    """The same side channel where requests wait for the look-up: counted, not timed. Who has an entry in scope, so that
    there is something to look for, has another's text embedded anew, and its own repeat not."""
    embedded: list[str] = []
    text = "how do i merge the two companies"
    mine, theirs = ({"Authorization": f"Bearer sk-{who}"} for who in ("mine", "theirs"))
    async with scripted() as up, proxied(up.url, tmp_path, **SERVE) as proxy:
        await loaded(proxy)
        thread = proxy.services.thread
        assert thread is not None and thread._cache is not None
        model = thread._cache._embedder
        embed = model.embed
        model.embed = lambda texts: embedded.extend(texts) or embed(texts)  # type: ignore[method-assign]
        for number, (said, who) in enumerate(((text, theirs), ("what is the capital of France", mine))):
            await proxy.post(chat(said), **who)
            await learnt(proxy, number + 1)
        assert embedded.count(text) == 1  # theirs
        counts = []
        for _ in range(2):
            answer = await proxy.post(chat(text), **mine)
            assert answer.headers["x-farthing-cache"] == "miss"
            await quiet(proxy)
            counts.append(embedded.count(text))
            await proxy.services.state.store.purge(Selector())  # so that it is looked for again
        rows = await proxy.rows(4)

    assert counts == [2, 2]
    assert all("passed by" not in row["decisions"] for row in rows)


async def test_who_asks_is_spared_no_counting_of_what_another_tenant_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where requests wait until their tokens are counted: before they are shortened, and before the inputs of
    embeddings are put together."""
    counted: list[str] = []
    anew = Tokenizer._anew
    monkeypatch.setattr(Tokenizer, "_anew", lambda self, text, name: counted.append(text) or anew(self, text, name))
    turns = told()
    inputs = [f"the {number} companies that i want to merge before the end of the year" for number in range(3)]
    mine, theirs = ({"Authorization": f"Bearer sk-{who}"} for who in ("mine", "theirs"))
    async with scripted() as up, proxied(up.url, tmp_path, **UNPROVEN | {"cache__mode": "exact"}) as proxy:
        seen = []
        for who in (theirs, mine):
            await proxy.post(recoded(turns), **who)
            await proxy.post({"model": "m", "input": inputs}, "/v1/embeddings", **who)
            await quiet(proxy)
            seen.append(counted.copy())
            counted.clear()

    assert set(inputs) < set(seen[0])
    assert sorted(seen[0]) == sorted(seen[1])


@pytest.fixture
async def proxy_and_up(tmp_path: Path) -> Any:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        yield proxy, up


CHANGING = [
    path.removeprefix("/farthing/api/") for path, methods in CALLS.items() if "post" in methods and "{" not in path
]


@pytest.mark.parametrize("name", CHANGING)
async def test_no_other_site_s_form_reaches_what_changes_something(
    name: str, proxy_and_up: tuple[Proxied, ScriptedUpstream]
) -> None:
    """CSRF: a form sends no header of its own; a script that would must ask first, and is never allowed to."""
    proxy, _ = proxy_and_up
    form = {"Content-Type": "text/plain", "Origin": "https://evil.example"}
    assert (await proxy.client.post(f"/farthing/api/{name}", content="{}", headers=form)).status_code == 403
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "x-farthing-admin"}  # fmt: skip
    preflight = await proxy.client.request("OPTIONS", f"/farthing/api/{name}", headers=asked)
    assert not [header for header in preflight.headers if header.lower().startswith("access-control-")]
    for method in ("PUT", "DELETE", "PATCH", "GET"):
        other = await proxy.client.request(method, f"/farthing/api/{name}", headers={"x-farthing-admin": "1"})
        shown = "get" in CALLS[f"/farthing/api/{name}"]
        assert other.status_code == ((200 if shown else 404) if method == "GET" else 405)


@pytest.mark.parametrize(
    "path", ["/farthing/", "/farthing/static/app.js", "/farthing/api/summary", "/farthing/api/health"]
)
async def test_pages_carry_what_keeps_a_script_out(path: str, proxy_and_up: tuple[Proxied, ScriptedUpstream]) -> None:
    proxy, _ = proxy_and_up
    headers = (await proxy.client.get(path)).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_the_dashboard_never_makes_markup_of_texts() -> None:
    """XSS: tests/browser proves it with hostile texts in a real browser; here no script can even try."""
    for script in sorted((ROOT / "proxy" / "static").glob("*.js")):
        if script.name.startswith("uPlot"):
            continue
        text = script.read_text("utf-8")
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ):
            assert word not in text, f"{script.name} uses {word}"


@pytest.mark.parametrize(
    "name",
    ["../config.py", "..%2fconfig.py", "%2e%2e/config.py", "....//config.py", "/etc/passwd", "..\\config.py",
     "app.js%00", "app.js/", "./app.js", "%2fetc%2fpasswd"],
)  # fmt: skip
async def test_no_path_leads_out_of_the_dashboard_s_folder(
    name: str, proxy_and_up: tuple[Proxied, ScriptedUpstream]
) -> None:
    proxy, _ = proxy_and_up
    ask = f"GET /farthing/static/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    got = await exchange(proxy.url, ask)
    assert got.split()[1] in (b"404", b"400")
    assert b"root:" not in got and b"import" not in got


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


NAMES = [
    "../../evil",
    "..",
    "/etc/passwd",
    "p-../../../evil",
    "..%2f..%2fevil",
    "p-00000000\x00",
    "p-0\n",
    "~/evil",
]


@pytest.mark.parametrize("name", NAMES)
async def test_no_name_leads_out_of_the_state_directory(name: str, tmp_path: Path) -> None:
    """What is looked up by a name that comes over the wire is never a path: no file beyond is read or made."""
    home = tmp_path / "home" / "state"
    (home / "policies").mkdir(parents=True)
    admin = {"x-farthing-admin": "1"}
    (tmp_path / "home" / "evil.json").write_text('{"text": "BEYOND"}')
    async with scripted() as up, proxied(up.url, home) as proxy:
        outside = tree(tmp_path) - {path for path in tree(tmp_path) if path.startswith("home/state")}
        told = [
            await proxy.client.post(f"/farthing/api/{call}", json=body, headers=admin)
            for call, body in (
                ("policy/promote", {"version": name}), ("policy/promote", {"version": name, "gate": name}),
                ("policy/rollback", {"version": name}), ("experiments/stop", {"name": name}),
                ("replicas/drain", {"replica": name}), ("watch/rebase", {"series": name, "slice": name}),
            )
        ]  # fmt: skip
        quoted = quote(name, safe="")
        told += [
            await proxy.client.get(f"/farthing/api/{path}")
            for path in (f"requests/{quoted}", f"deferred/{quoted}", f"deferred/{quoted}/result")
        ]
        now = {path for path in tree(tmp_path) if not path.startswith("home/state")}

    assert {answer.status_code for answer in told} <= {400, 403, 404, 409}, [one.text for one in told]
    assert not [answer.text for answer in told if "BEYOND" in answer.text or "root:" in answer.text]
    assert now == outside


def test_nothing_is_pickled() -> None:
    """Stored answers, index, ledger, captures, traces, a stopped replay and what goes to farthing's own child are JSON,
    SQLite and arrays of numbers. What a replay's state may hold, tests/proxy/test_object_graph.py says."""
    users = set()
    for room in ("proxy", "cache", "compress", "policies"):
        for path in (ROOT / room).glob("*.py"):
            names = {
                name
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in ([alias.name for alias in node.names] + [getattr(node, "module", "") or ""])
            }
            if names & {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}:
                users.add(path.name)
    assert users == set()


def test_a_stored_answer_s_bytes_can_only_be_read(tmp_path: Path) -> None:
    """A foreign row in answers.db, and one whose key was changed, read as nothing."""

    async def served() -> list[str]:
        async with scripted() as up:
            async with proxied(up.url, tmp_path) as proxy:
                await proxy.post(chat("a"))
                await proxy.post(chat("b"))
            with closing(sqlite3.connect(tmp_path / "answers.db")) as db, db:
                first, second = (row[0] for row in db.execute("select bytes from bodies order by id"))
                db.execute("update bodies set bytes = ? where bytes = ?", (b"cos\nsystem\n(S'true'\ntR.", first))
                db.execute("update entries set key = (select key from entries limit 1) where id = 2")
                assert second
            async with proxied(up.url, tmp_path, store__memory_bytes=0) as proxy:
                return [(await proxy.post(chat(text))).headers["x-farthing-cache"] for text in "ab"]

    assert asyncio.run(served()) == ["miss", "miss"]
