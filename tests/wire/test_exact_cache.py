"""The exact cache on the wire: what hits, what doesn't, and that a hit is the answer that the miss was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import Script, ScriptedUpstream, scripted


def how(response: Any) -> str:
    return str(response.headers["x-farthing-cache"])


def events(text: str) -> list[Any]:
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def spoken(text: str) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events(text)
        if event != "[DONE]"
        for choice in event["choices"]
    )


def same_but_identity(left: dict[str, Any], right: dict[str, Any]) -> bool:
    own = ("id", "created")
    return {k: v for k, v in left.items() if k not in own} == {k: v for k, v in right.items() if k not in own}


async def test_a_repeat_is_a_hit_with_the_same_answer_and_a_new_identity(proxy: Proxied, up: ScriptedUpstream) -> None:
    miss = await proxy.post(chat())
    hit = await proxy.post(chat())

    assert (how(miss), how(hit), len(up.calls)) == ("miss", "hit-exact", 1)
    assert same_but_identity(miss.json(), hit.json())
    assert miss.json()["id"] != hit.json()["id"]
    assert hit.headers["Cache-Status"].startswith("farthing; hit; ttl=")
    assert hit.headers["Age"] == "0"


async def test_a_stream_serves_a_whole_request_and_the_other_way_round(proxy: Proxied, up: ScriptedUpstream) -> None:
    stream = await proxy.post(chat(stream=True))
    whole = await proxy.post(chat())
    assert (how(stream), how(whole)) == ("miss", "hit-exact")
    assert whole.json()["choices"][0]["message"]["content"] == spoken(stream.text)

    first = await proxy.post(chat("other"))
    second = await proxy.post(chat("other", stream=True, stream_options={"include_usage": True}))
    assert (how(first), how(second)) == ("miss", "hit-exact")
    assert spoken(second.text) == first.json()["choices"][0]["message"]["content"]
    assert events(second.text)[-2]["usage"] == first.json()["usage"]
    assert events(second.text)[-1] == "[DONE]"
    assert len(up.calls) == 2


@pytest.mark.parametrize("asked", [False, True])
async def test_usage_is_asked_for_and_shown_only_to_who_asked(
    proxy: Proxied, up: ScriptedUpstream, asked: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    for _ in range(2):
        answer = await proxy.post(chat(stream=True, **options))
        assert ("usage" in answer.text) is asked
    assert up.calls[0].json["stream_options"] == {"include_usage": True}
    rows = await proxy.rows(2)
    assert [row["usage_source"] for row in rows] == ["upstream", "upstream"]
    assert rows[0]["tokens_in_sent"] == up.calls[0].tokens_in


async def test_tool_calls_survive_every_shape(proxy: Proxied, up: ScriptedUpstream) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    stream = await proxy.post(chat("use a tool", tools=tools, stream=True))
    whole = await proxy.post(chat("use a tool", tools=tools))
    again = await proxy.post(chat("use a tool", tools=tools, stream=True))

    call = whole.json()["choices"][0]["message"]["tool_calls"][0]
    assert call == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
    }
    assert whole.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert [how(stream), how(whole), how(again)] == ["miss", "hit-exact", "hit-exact"]
    assert "call_1" in again.text


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/chat/completions"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_understood_endpoint_is_cached_in_its_own_shape(
    proxy: Proxied, up: ScriptedUpstream, path: str, stream: bool
) -> None:
    if stream and path == "/v1/embeddings":
        return
    body: dict[str, Any] = chat() if path.endswith(("completions", "messages")) else {"model": "m", "input": "hi"}
    body |= {"prompt": "p"} if path == "/v1/completions" else {}
    body |= {"store": False} if path == "/v1/responses" else {}
    body |= {"max_tokens": 9} if path == "/v1/messages" else {}
    body |= {"stream": True} if stream else {}
    first = await proxy.post(body, path)
    await quiet(proxy)  # the first vectors of a process are kept a moment later, when numpy has come
    second = await proxy.post(body, path)

    assert (how(first), how(second), len(up.calls)) == ("miss", "hit-exact", 1)
    if not stream:
        assert same_but_identity(first.json(), second.json())
    else:
        assert len(first.text) > 100
        assert [e.get("type") for e in events(first.text) if e != "[DONE]"] == [
            e.get("type") for e in events(second.text) if e != "[DONE]"
        ]
    rows = await proxy.rows(2)
    assert [row["baseline_usd"] for row in rows] == [rows[0]["cost_usd"]] * 2
    assert rows[0]["cost_usd"] == up.bill(("2", "1", "8")) * 10**12 > 0
    assert (rows[1]["cost_usd"], rows[1]["saved_exact_usd"]) == (0, rows[0]["cost_usd"])


async def test_embeddings_in_another_encoding_are_another_answer(proxy: Proxied, up: ScriptedUpstream) -> None:
    body = {"model": "m", "input": ["a", "b"]}
    await proxy.post(body, "/v1/embeddings")
    other = await proxy.post(body | {"encoding_format": "base64"}, "/v1/embeddings")

    assert how(other) == "miss"
    assert isinstance(other.json()["data"][0]["embedding"], str)


async def test_what_a_client_may_say_with_cache_control(proxy: Proxied, up: ScriptedUpstream) -> None:
    assert (await proxy.post(chat(), Cache_Control="only-if-cached")).status_code == 504
    assert how(await proxy.post(chat())) == "miss"
    assert how(await proxy.post(chat(), Cache_Control="no-cache")) == "miss"
    assert how(await proxy.post(chat(), Cache_Control="no-store")) == "bypass"
    assert how(await proxy.post(chat(), Cache_Control="only-if-cached")) == "hit-exact"
    assert how(await proxy.post(chat(), Cache_Control="max-age=100")) == "hit-exact"
    assert how(await proxy.post(chat(), x_farthing_cache="off")) == "bypass"
    assert how(await proxy.post(chat(), x_farthing_scope="mine")) == "miss"
    assert len(up.calls) == 5


async def test_cache_control_on_two_lines_is_one(proxy: Proxied) -> None:
    await proxy.post(chat())
    lines = [("Cache-Control", "max-age=1000"), ("Cache-Control", "no-store")]
    assert how(await proxy.client.post("/v1/chat/completions", json=chat(), headers=lines)) == "bypass"


@pytest.mark.parametrize(
    ("name", "shared", "own"),
    [
        ("Cookie", "theme=dark", ("session=alice", "session=bob")),
        ("Authorization", "Basic gateway", ("Bearer alice", "Bearer bob")),
        ("x-auth-token", "t", ("alice", "bob")),
    ],
)
async def test_every_line_of_a_credential_tells_who_calls(
    proxy: Proxied, name: str, shared: str, own: tuple[str, str]
) -> None:
    for value in own:
        lines = [(name, shared), (name, value)]
        request = proxy.client.build_request("POST", "/v1/chat/completions", json=chat(), headers=lines)
        assert how(await proxy.client.send(request)) == "miss"


async def test_a_responses_hit_repeats_only_what_this_request_said(proxy: Proxied, up: ScriptedUpstream) -> None:
    """The answer echoes metadata and user: another request's must not come back."""
    body = {"model": "m", "input": "hi", "store": False, "metadata": {"ticket": "A"}, "user": "alice"}
    assert how(await proxy.post(body, "/v1/responses")) == "miss"
    assert how(await proxy.post(body, "/v1/responses")) == "hit-exact"
    assert how(await proxy.post(body | {"metadata": {"ticket": "B"}}, "/v1/responses")) == "miss"
    assert how(await proxy.post(body | {"user": "bob"}, "/v1/responses")) == "miss"
    await proxy.post(chat(user="alice"))
    assert how(await proxy.post(chat(user="bob"))) == "hit-exact"


@pytest.mark.parametrize(
    "malformed", [{"stream": "banana"}, {"stream": 1}, {"stream_options": {"include_usage": True}}]
)
async def test_a_hit_hides_no_fault_of_the_request(
    proxy: Proxied, up: ScriptedUpstream, malformed: dict[str, Any]
) -> None:
    await proxy.post(chat())
    assert how(await proxy.post(chat(**malformed))) == "bypass"
    assert len(up.calls) == 2


async def test_an_answer_that_is_not_kept_is_not_joined_later(proxy: Proxied, up: ScriptedUpstream) -> None:
    for _ in range(2):
        assert how(await proxy.post(chat(), x_farthing_ttl="0")) == "miss"
    assert len(up.calls) == 2


async def test_no_store_leaves_nothing_behind(proxy: Proxied) -> None:
    await proxy.post(chat(), Cache_Control="no-store")
    assert how(await proxy.post(chat())) == "miss"


async def test_answers_age_and_expire(up: ScriptedUpstream, tmp_path: Path) -> None:
    from farthing.proxy.clock import FakeClock

    clock = FakeClock()
    async with proxied(up.url, tmp_path, clock=clock) as proxy:
        await proxy.post(chat(), x_farthing_ttl="50")
        clock.advance(40)
        hit = await proxy.post(chat())
        assert (how(hit), hit.headers["Age"]) == ("hit-exact", "40")
        assert how(await proxy.post(chat(), Cache_Control="max-age=39")) == "miss"
        clock.advance(60 * 60 * 24)
        assert how(await proxy.post(chat())) == "miss"


async def test_a_credential_sees_only_its_own(proxy: Proxied, up: ScriptedUpstream) -> None:
    await proxy.post(chat())
    assert how(await proxy.post(chat(), Authorization="Bearer sk-two")) == "miss"
    assert how(await proxy.post(chat(), Authorization="Bearer sk-two", x_farthing_scope="sk-one")) == "miss"
    assert how(await proxy.post(chat(), Authorization="Bearer sk-one")) == "hit-exact"


async def test_a_named_scope_is_shared_when_the_operator_says_so(up: ScriptedUpstream, tmp_path: Path) -> None:
    import hashlib

    digests = [hashlib.sha256(key.encode()).hexdigest() for key in ("sk-one", "sk-two")]
    async with proxied(up.url, tmp_path, auth__scopes=[{"name": "team", "credentials_sha256": digests}]) as proxy:
        await proxy.post(chat())
        assert how(await proxy.post(chat(), Authorization="Bearer sk-two")) == "hit-exact"
        assert how(await proxy.post(chat(), Authorization="Bearer sk-three")) == "miss"


async def test_a_refused_credential_gets_no_hits_until_a_success(proxy: Proxied, up: ScriptedUpstream) -> None:
    await proxy.post(chat())
    up.script(Script(status=401))
    assert (await proxy.post(chat("other"))).status_code == 401
    assert how(await proxy.post(chat())) == "miss"  # upstream accepts it: barred no longer
    assert how(await proxy.post(chat())) == "hit-exact"


@pytest.mark.parametrize(
    "script",
    [
        Script(status=500),
        Script(status=429, headers={"x-should-retry": "false"}),
        Script(status=400),
        Script(body=b"not json"),
        Script(body=b'{"error": {"message": "oh"}}'),
        Script(body=b'{"choices": []}'),
        Script(
            body=b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": null}]}'
        ),
    ],
)
async def test_what_is_no_complete_answer_is_never_stored(up: ScriptedUpstream, tmp_path: Path, script: Script) -> None:
    async with proxied(up.url, tmp_path, upstream__retries=0) as proxy:
        up.script(script)
        first = await proxy.post(chat())
        assert first.status_code == script.status
        if script.body:
            assert first.content == script.body
        assert how(await proxy.post(chat())) == "miss"


@pytest.mark.parametrize("script", [Script(cut_after=300), Script(error_event=True)])
async def test_a_broken_stream_is_never_stored(proxy: Proxied, up: ScriptedUpstream, script: Script) -> None:
    up.script(script)
    await proxy.post(chat(stream=True))
    assert how(await proxy.post(chat(stream=True))) == "miss"


async def test_five_hundred_at_once_make_one_call(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.default.wait_s = 0.5
    answers = await asyncio.gather(*(proxy.post(chat()) for _ in range(500)))

    assert len(up.calls) == 1
    assert {answer.status_code for answer in answers} == {200}
    assert sorted({how(answer) for answer in answers}) == ["joined", "miss"]
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    rows = await proxy.rows(500)
    assert sum(row["cost_usd"] for row in rows) == up.bill(("2", "1", "8")) * 10**12
    assert len({row["flight_id"] for row in rows}) == 1


async def test_streams_join_live_and_whole_requests_join_streams(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.default.chunk_wait_s = 0.03
    first = asyncio.create_task(proxy.post(chat(stream=True)))
    await asyncio.sleep(0.1)
    joined = await asyncio.gather(*(proxy.post(chat(stream=True)) for _ in range(20)), proxy.post(chat()))
    leader = await first

    assert len(up.calls) == 1
    assert {how(answer) for answer in joined} == {"joined"}
    assert {spoken(answer.text) for answer in joined[:-1]} == {spoken(leader.text)}
    assert joined[-1].json()["choices"][0]["message"]["content"] == spoken(leader.text)


async def test_a_stream_does_not_join_a_whole_answer(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.default.wait_s = 0.2
    answers = await asyncio.gather(proxy.post(chat()), proxy.post(chat(stream=True)))

    assert [how(answer) for answer in answers] == ["miss", "miss"]
    assert len(up.calls) == 2


async def test_no_cache_neither_leads_nor_joins(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.default.wait_s = 0.1
    await asyncio.gather(*(proxy.post(chat(), Cache_Control="no-cache") for _ in range(5)))
    assert len(up.calls) == 5


async def test_credentials_never_share_a_flight(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.default.wait_s = 0.2
    answers = await asyncio.gather(*(proxy.post(chat(), Authorization=f"Bearer sk-{n}") for n in range(4)))

    assert {how(answer) for answer in answers} == {"miss"}
    assert len(up.calls) == 4


async def test_variants_keep_several_answers(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, cache__variants=3) as proxy:
        answers = [how(await proxy.post(chat())) for _ in range(60)]

    assert answers.count("miss") == 3 == len(up.calls)


async def test_sampled_answers_may_be_left_out(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, cache__sampled=False) as proxy:
        assert [how(await proxy.post(chat())) for _ in range(2)] == ["bypass", "bypass"]
        assert [how(await proxy.post(chat(temperature=0))) for _ in range(2)] == ["miss", "hit-exact"]


async def test_answers_survive_a_restart(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        first = await proxy.post(chat())
    async with proxied(up.url, tmp_path) as proxy:
        second = await proxy.post(chat())

    assert how(second) == "hit-exact"
    assert same_but_identity(first.json(), second.json())


async def test_purge(proxy: Proxied, up: ScriptedUpstream) -> None:
    async def purge(body: dict[str, str]) -> int:
        answer = await proxy.client.post("/farthing/api/cache/purge", json=body, headers={"x-farthing-admin": "1"})
        return int(answer.json()["purged"])

    await proxy.post(chat("a"))
    await proxy.post(chat("b"))
    await proxy.post(chat("c") | {"model": "other"})
    key = (await proxy.rows(3))[0]["key_hash"]

    assert await purge({"key": key}) == 1
    assert how(await proxy.post(chat("a"))) == "miss"
    assert await purge({"model": "other"}) == 1
    assert await purge({}) == 2
    assert how(await proxy.post(chat("b"))) == "miss"


async def test_a_purge_of_a_scope_leaves_the_others(proxy: Proxied) -> None:
    async def purge(**body: str) -> int:
        answer = await proxy.client.post("/farthing/api/cache/purge", json=body, headers={"x-farthing-admin": "1"})
        return int(answer.json()["purged"])

    for scope in ("shop", "desk"):
        await proxy.post(chat(), x_farthing_scope=scope)
    await proxy.post(chat())
    tenant = (await proxy.rows(3))[0]["tenant"]

    assert await purge(scope="shop", tenant="somebody") == 0
    assert await purge(scope="shop", tenant=tenant) == 1
    assert how(await proxy.post(chat(), x_farthing_scope="shop")) == "miss"
    assert how(await proxy.post(chat(), x_farthing_scope="desk")) == "hit-exact"
    assert await purge(scope="desk") == 1
    assert await purge(tenant=tenant) == 2


async def test_an_answer_cut_by_its_own_limit_is_a_whole_answer(proxy: Proxied, up: ScriptedUpstream) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "cut"}, "finish_reason": "length"}
    up.script(Script(body=json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m",
                                      "choices": [choice]}).encode()))  # fmt: skip
    await proxy.post(chat(max_tokens=1))
    assert how(await proxy.post(chat(max_tokens=1))) == "hit-exact"
    assert how(await proxy.post(chat(max_tokens=2))) == "miss"


async def test_a_compressed_answer_is_stored_plain_and_reaches_the_client(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.script(Script(gzip=True))
    first = await proxy.post(chat())
    second = await proxy.post(chat())

    assert first.headers["content-encoding"] == "gzip"
    assert (how(second), "content-encoding" in second.headers) == ("hit-exact", False)
    assert same_but_identity(first.json(), second.json())


async def test_a_joined_client_gets_an_encoding_that_it_takes(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.default = Script(wait_s=0.4, gzip=True)
    leader = asyncio.create_task(proxy.post(chat(), Accept_Encoding="gzip"))
    while not up.calls:
        await asyncio.sleep(0.01)
    joined = await proxy.post(chat(), Accept_Encoding="identity")

    assert (await leader).headers["content-encoding"] == "gzip"
    assert (how(joined), "content-encoding" in joined.headers, len(up.calls)) == ("joined", False, 1)
    assert joined.json() == (await leader).json()


async def test_cache_control_speaks_to_us_and_not_to_the_upstream(proxy: Proxied, up: ScriptedUpstream) -> None:
    await proxy.post(chat(), Cache_Control="no-cache")
    assert "cache-control" not in {name.lower() for name in up.calls[0].headers}


async def test_a_stream_without_usage_serves_no_client_that_relies_on_it(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.script(Script(no_usage=True))
    await proxy.post(chat(stream=True))
    assert how(await proxy.post(chat(stream=True))) == "hit-exact"
    assert "usage" in (await proxy.post(chat(stream=True, stream_options={"include_usage": True}))).text
    whole = await proxy.post(chat())
    assert whole.json()["usage"]["completion_tokens"] > 0


async def test_nor_does_joining_such_a_stream(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.script(Script(no_usage=True, chunk_wait_s=0.05))
    leader = asyncio.create_task(proxy.post(chat(stream=True)))
    while not up.calls:
        await asyncio.sleep(0.01)
    whole = await proxy.post(chat())
    await leader
    assert "usage" in whole.json()
    assert len(up.calls) == 2


async def test_who_wants_only_exact_answers_does_not_join_who_allows_others(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:
        up.default.wait_s = 0.2
        answers = await asyncio.gather(
            proxy.post(chat()),
            proxy.post(chat(), x_farthing_cache="exact"),
            proxy.post(chat(), x_farthing_cache="exact"),
        )
        assert sorted(how(answer) for answer in answers) == ["joined", "miss", "miss"]
        assert len(up.calls) == 2


@pytest.mark.parametrize("header", ["Ocp-Apim-Subscription-Key", "X-Auth-Token", "Cookie", "X-Api-Key", "X-Session-Id"])
async def test_whatever_says_who_calls_keeps_callers_apart(proxy: Proxied, header: str) -> None:
    del proxy.client.headers["Authorization"]
    await proxy.client.post("/v1/chat/completions", json=chat(), headers={header: "a"})
    other = await proxy.client.post("/v1/chat/completions", json=chat(), headers={header: "b"})
    again = await proxy.client.post("/v1/chat/completions", json=chat(), headers={header: "a", "Idempotency-Key": "1"})

    assert (how(other), how(again)) == ("miss", "hit-exact")
