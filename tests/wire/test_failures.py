"""When things fail: the table of the design, each line with its fault injected."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest

from farthing.proxy.errors import StoreFault
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, raw_server


async def until(condition: object, seconds: float = 3.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


class TestUpstream:
    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    async def test_is_tried_again_before_the_first_byte(
        self, proxy: Proxied, up: ScriptedUpstream, status: int
    ) -> None:
        up.script(Script(status=status), Script(status=status))
        answer = await proxy.post(chat(stream=True))

        assert (answer.status_code, len(up.calls)) == (200, 3)
        row = (await proxy.rows(1))[0]
        assert row["attempts"] == 3
        assert [attempt["status"] for attempt in json.loads(row["attempts_detail"])] == [status, status, 200]
        assert row["cost_usd"] == up.bill(("2", "1", "8")) * 10**12

    async def test_its_last_error_is_passed_on_unchanged(self, proxy: Proxied, up: ScriptedUpstream) -> None:
        body = b'{"error": {"message": "slow down",  "type": "x"}}'
        up.default = Script(status=429, body=body, headers={"Retry-After": "0", "X-Limit": "7"})
        answer = await proxy.post(chat())

        assert (answer.status_code, answer.content, answer.headers["X-Limit"]) == (429, body, "7")
        assert len(up.calls) == 3

    async def test_a_long_retry_after_is_the_clients_to_keep(self, proxy: Proxied, up: ScriptedUpstream) -> None:
        up.default = Script(status=429, headers={"Retry-After": "30"})
        answer = await proxy.post(chat())
        assert (answer.headers["Retry-After"], len(up.calls)) == ("30", 1)

    async def test_is_not_tried_again_when_every_stage_is_off(self, proxy: Proxied, up: ScriptedUpstream) -> None:
        up.script(Script(status=500))
        assert (await proxy.post(chat(), x_farthing_off="1")).status_code == 500
        assert len(up.calls) == 1

    async def test_a_reset_after_the_body_was_sent_is_not_tried_again(
        self, proxy: Proxied, up: ScriptedUpstream
    ) -> None:
        up.script(Script(reset=True))
        answer = await proxy.post(chat())
        assert (answer.status_code, len(up.calls)) == (502, 1)
        assert answer.json()["error"]["type"] == "upstream_error"

    async def test_but_is_with_an_idempotency_key(self, proxy: Proxied, up: ScriptedUpstream) -> None:
        up.script(Script(reset=True))
        answer = await proxy.post(chat(), Idempotency_Key="k1")
        assert (answer.status_code, len(up.calls)) == (200, 2)
        assert up.calls[1].headers["Idempotency-Key"] == "k1"

    async def test_nobody_there(self, tmp_path: Path) -> None:
        async with proxied("http://127.0.0.1:9/v1", tmp_path) as proxy:
            answer = await proxy.post(chat())
            assert answer.status_code == 502
            assert answer.json()["error"]["code"] == "upstream_connect"
            row = (await proxy.rows(1))[0]
            assert (row["outcome"], row["attempts"], row["cost_usd"]) == ("failed", 3, 0)
            assert (await proxy.client.get("/readyz")).status_code == 200

    async def test_that_hangs_is_given_up(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        up.default.hang = True
        async with proxied(up.url, tmp_path, upstream__first_byte_timeout_s=0.2) as proxy:
            answer = await proxy.post(chat())
            assert answer.status_code == 504
            await until(lambda: up.calls[0].cancelled)

    async def test_that_stalls_in_a_stream_is_given_up(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        up.default.chunk_wait_s = 5
        async with proxied(up.url, tmp_path, upstream__idle_timeout_s=0.2, upstream__first_byte_timeout_s=0.4) as proxy:
            answer = await proxy.post(chat(stream=True))
            assert '"error"' in answer.text
            assert "[DONE]" not in answer.text

    async def test_that_dies_in_mid_stream_leaves_what_came_and_an_error_event(
        self, proxy: Proxied, up: ScriptedUpstream
    ) -> None:
        up.script(Script(cut_after=1200, words=30))
        answer = await proxy.post(chat(stream=True))

        assert answer.status_code == 200
        assert "word1" in answer.text
        assert json.loads(answer.text.strip().split("\n")[-1][6:])["error"]["type"] == "upstream_error"
        row = (await proxy.rows(1))[0]
        assert (row["outcome"], row["usage_source"]) == ("failed", "counted")
        assert row["tokens_out"] > 0

    async def test_that_dies_in_an_anthropic_stream_is_told_as_anthropics_sdk_wants_it(
        self, proxy: Proxied, up: ScriptedUpstream
    ) -> None:
        up.script(Script(cut_after=600, words=30))
        answer = await proxy.post(chat(stream=True, max_tokens=9), "/v1/messages")
        name, told = answer.text.strip().split("\n")[-2:]
        assert name == "event: error"
        assert json.loads(told[6:])["error"]["type"] == "api_error"

    @pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
    async def test_that_dies_where_no_event_can_tell_it_cuts_the_connection(
        self, proxy: Proxied, up: ScriptedUpstream, path: str
    ) -> None:
        up.script(Script(cut_after=600, words=30))
        off = {"x_farthing_off": "1"} if path.endswith("completions") else {}
        with pytest.raises(httpx.RemoteProtocolError):
            await proxy.post(chat(stream=True, store=False, input="x"), path, **off)

    async def test_that_dies_in_a_whole_answer_gives_an_error_and_no_half_answer(
        self, proxy: Proxied, up: ScriptedUpstream
    ) -> None:
        up.script(Script(cut_after=100))
        answer = await proxy.post(chat())
        assert answer.status_code == 502
        assert "error" in answer.json()

    @pytest.mark.parametrize(
        "bytes_sent",
        [b"", b"garbage\r\n\r\n", b"\x00" * 500, b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
         b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n", b"HTTP/1.1 2000 Odd\r\n\r\n"],
    )  # fmt: skip
    async def test_that_sends_garbage_gives_502(self, tmp_path: Path, bytes_sent: bytes) -> None:
        async with raw_server(bytes_sent) as url, proxied(url, tmp_path) as proxy:
            answer = await proxy.post(chat())
            assert answer.status_code == 502
            assert answer.json()["error"]["type"] == "upstream_error"
            assert (await proxy.rows(1))[0]["outcome"] == "failed"


class TestClient:
    async def test_that_leaves_in_mid_stream_ends_the_upstream_call_within_a_second(
        self, proxy: Proxied, up: ScriptedUpstream
    ) -> None:
        up.default = Script(chunk_wait_s=0.05, words=200)
        async with proxy.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
            async for _ in answer.aiter_raw():
                break
        begun = time.monotonic()
        await until(lambda: up.calls[0].cancelled)
        assert time.monotonic() - begun < 1.0
        row = (await proxy.rows(1))[0]
        assert (row["outcome"], row["usage_source"], row["modelled"]) == ("abandoned", "counted", 1)
        assert row["cost_usd"] > 0

    async def test_that_leaves_before_the_head_ends_the_upstream_call(
        self, proxy: Proxied, up: ScriptedUpstream
    ) -> None:
        up.default.wait_s = 30
        with pytest.raises(httpx.ReadTimeout):
            await proxy.client.post("/v1/chat/completions", json=chat(), timeout=0.2)
        await until(lambda: up.calls[0].cancelled)
        assert (await proxy.rows(1))[0]["outcome"] == "abandoned"

    async def test_leader_may_leave_while_others_wait(self, proxy: Proxied, up: ScriptedUpstream) -> None:
        up.default.wait_s = 0.6
        leader = asyncio.create_task(proxy.post(chat()))
        await until(lambda: len(up.calls) == 1)
        follower = asyncio.create_task(proxy.post(chat()))
        await asyncio.sleep(0.1)
        leader.cancel()
        answer = await follower

        assert (answer.status_code, answer.headers["x-farthing-cache"], len(up.calls)) == (200, "joined", 1)
        assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"
        rows = await proxy.rows(3)
        assert sorted(row["outcome"] for row in rows) == ["abandoned", "completed", "completed"]
        assert sum(row["cost_usd"] for row in rows) == up.bill(("2", "1", "8")) * 10**12

    async def test_a_slow_reader_delays_nobody(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        up.default = Script(words=4000, chunk_wait_s=0.0001)
        async with proxied(up.url, tmp_path, limits__buffer_bytes=65_536) as proxy:
            port = int(proxy.url.rpartition(":")[2])
            body = json.dumps(chat(stream=True)).encode()
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-one\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            await until(lambda: len(up.calls) == 1)
            answer = await asyncio.wait_for(proxy.post(chat(stream=True)), 20)
            writer.close()
        assert answer.text.rstrip().endswith("[DONE]")

    async def test_a_follower_keeps_its_own_deadline(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        up.default.wait_s = 0.5
        async with proxied(up.url, tmp_path) as proxy:
            leader = asyncio.create_task(proxy.post(chat()))
            await until(lambda: len(up.calls) == 1)
            object.__setattr__(proxy.services.relay, "_upstream", proxy.services.config.upstream.model_copy(
                update={"first_byte_timeout_s": 0.1}))  # fmt: skip
            follower = await proxy.post(chat())
            assert follower.status_code == 504
            assert (await leader).status_code == 200

    @pytest.mark.parametrize("how", [{}, {"x_farthing_off": "1"}, {"x_farthing_cache": "off"}])
    async def test_that_hangs_up_at_the_end_is_still_in_the_books(
        self, proxy: Proxied, up: ScriptedUpstream, how: dict[str, str]
    ) -> None:
        up.default = Script(no_usage=True)
        port = int(proxy.url.rpartition(":")[2])
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in how.items()).encode()
        for n in range(10):
            body = json.dumps(chat(str(n), stream=True)).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"%bContent-Length: %d\r\n\r\n%b" % (named, len(body), body)
            )
            await reader.readuntil(b"0\r\n\r\n")
            writer.close()
        rows = await proxy.rows(10)
        assert all(row["cost_usd"] > 0 for row in rows)
        assert proxy.services.admit.in_flight == 0


class TestOurselves:
    async def test_a_failing_stage_is_passed_by_and_told(self, proxy: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
        async def broken(*_: object) -> None:
            raise StoreFault("boom")

        monkeypatch.setattr(type(proxy.services.state.store), "get", broken)
        for _ in range(8):
            answer = await proxy.post(chat())
            assert answer.status_code == 200
        rows = await proxy.rows(8)
        assert json.loads(rows[0]["decisions"])[0][:2] == ["exact", "error"]
        assert (rows[0]["cache"], rows[0]["cache_reason"]) == ("bypass", "store failed")

    async def test_a_store_that_is_back_is_asked_at_once(self, proxy: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has a breaker of its own; a second one round its stage would keep it away for half a minute more."""

        async def away(*_: object) -> None:
            raise StoreFault("boom")

        await proxy.post(chat())
        with monkeypatch.context() as patched:
            patched.setattr(type(proxy.services.state.store), "get", away)
            for _ in range(8):
                assert (await proxy.post(chat("another"))).status_code == 200
        assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"

    async def test_a_stage_that_keeps_failing_is_left_out(
        self, proxy: Proxied, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object) -> None:
            raise OSError("boom")

        monkeypatch.setattr(type(proxy.services.state.store), "get", broken)
        for _ in range(8):
            assert (await proxy.post(chat())).status_code == 200
        rows = await proxy.rows(8)
        assert json.loads(rows[-1]["decisions"])[0][:2] == ["exact", "left out"]

    async def test_a_fault_of_our_own_never_leaves_a_stage_out(
        self, proxy: Proxied, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else whoever finds a request that brings it about could switch the cache off for everybody."""

        async def broken(*_: object) -> None:
            raise TypeError("boom")

        with monkeypatch.context() as patched:
            patched.setattr(type(proxy.services.state.store), "get", broken)
            for _ in range(8):
                assert (await proxy.post(chat())).status_code == 200
        assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"

    async def test_only_if_cached_never_goes_upstream_whatever_fails(
        self, proxy: Proxied, up: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_: object) -> None:
            raise StoreFault("boom")

        monkeypatch.setattr(type(proxy.services.state.store), "get", broken)
        for _ in range(8):
            assert (await proxy.post(chat(), Cache_Control="only-if-cached")).status_code == 504
        assert up.calls == []

    async def test_the_switch_turns_everything_off_and_on_again(self, proxy: Proxied, up: ScriptedUpstream) -> None:
        await proxy.post(chat())
        proxy.services.state.switch.path.touch()
        await asyncio.sleep(0.3)
        answer = await proxy.post(chat())
        assert answer.headers["x-farthing-cache"] == "bypass"
        headers = {"x-farthing-admin": "1"}
        assert (await proxy.client.post("/farthing/api/policy/on", headers=headers)).json() == {"switched_off": False}
        assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"
        assert (await proxy.rows(3))[1]["policy"] == "off"

    async def test_beyond_the_budget_misses_are_refused_and_hits_served(
        self, up: ScriptedUpstream, tmp_path: Path
    ) -> None:
        async with proxied(up.url, tmp_path, spend__daily_usd="0.00000001") as proxy:
            assert (await proxy.post(chat())).status_code == 200
            await proxy.rows(1)
            refused = await proxy.post(chat("more"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")
            assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"
        async with proxied(up.url, tmp_path, spend__daily_usd="0.00000001") as proxy:
            assert (await proxy.post(chat("more"))).status_code == 402

    async def test_too_many_at_once(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        up.default.wait_s = 0.3
        async with proxied(up.url, tmp_path, limits__max_in_flight=2) as proxy:
            answers = await asyncio.gather(*(proxy.post(chat(str(n))) for n in range(5)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]

    async def test_client_keys(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        import hashlib

        keys = [{"name": "app", "sha256": hashlib.sha256(b"sk-one").hexdigest()}]
        async with proxied(up.url, tmp_path, auth__client_keys=keys, upstream__api_key="sk-up") as proxy:
            assert (await proxy.post(chat())).status_code == 200
            refused = await proxy.post(chat(), Authorization="Bearer sk-no")
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert len(up.calls) == 1

    async def test_a_second_proxy_on_the_same_state_is_refused(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        from farthing.proxy.errors import ConfigFault

        async with proxied(up.url, tmp_path):
            with pytest.raises(ConfigFault, match="another farthing uses"):
                async with proxied(up.url, tmp_path):
                    pass
