"""Property: however a request is spelt, the short way of a hit says what the pipeline says, and never another's answer.

Two proxies, one of them without the short way, get the same requests in the same order. What the upstream says names
the request that it was asked for, so that an answer tells whose it is.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from farthing.proxy.clock import FakeClock
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.wire.test_repeat import _OWN_COLUMNS, plain, shown, taken

__all__ = ["taken"]

EXAMPLES, LEAST_SHORT = 25, 15
_PATH = "/v1/chat/completions"
_GAPS = ("", " ", "\n", "\t ", "\r\n")
_TEXTS = ("hello there", 'a "quoted" / slashed\\ one', "naïve café\n", "\U0001f600 fi")
_HEADERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Authorization", ("Bearer sk-two",)),
    ("Content-Type", ("application/json; charset=utf-8", "Application/JSON")),
    ("x-farthing-scope", ("a", "b")),
    ("Cache-Control", ("max-age=1000", "no-cache", "no-store", "only-if-cached")),
    ("OpenAI-Beta", ("x=1",)),
    ("Accept", ("*/*", "application/json")),
    ("x-farthing-off", ("1",)),
)


@dataclass(frozen=True)
class Spelt:
    """One request: its bytes, with a mark where each example's own number goes, its headers and its path."""

    body: str
    headers: dict[str, str]
    path: str


def number(draw: st.DrawFn, value: int | float) -> str:
    """The number, in one of its spellings."""
    plain_ = json.dumps(value)
    if isinstance(value, int):
        return draw(st.sampled_from((plain_, plain_, f"{value}.0", f"{value}e0", f"{value * 10}E-1", f"{value}.00e+0")))
    hundredths = round(value * 100)
    return draw(st.sampled_from((plain_, f"{plain_}0", f"{hundredths}e-2", f"{hundredths}.0E-02")))


def text(draw: st.DrawFn, value: str) -> str:
    """The string, with as many escapes as one likes."""
    match draw(st.sampled_from(("plain", "ascii", "lower", "upper", "slash"))):
        case "plain":
            return json.dumps(value, ensure_ascii=False)
        case "ascii":
            return json.dumps(value)
        case "slash":
            return json.dumps(value, ensure_ascii=False).replace("/", "\\/")
        case case:
            shape = "04x" if case == "lower" else "04X"
            units = value.encode("utf-16-be", "surrogatepass")
            pairs = zip(units[::2], units[1::2], strict=True)
            return '"' + "".join(f"\\u{high << 8 | low:{shape}}" for high, low in pairs) + '"'


def spelt(draw: st.DrawFn, value: Any, *, doubled: bool = False) -> str:
    """The value as JSON: members in any order, any white space, any spelling. `doubled`: one member comes twice."""
    gap = draw(st.sampled_from(_GAPS))
    match value:
        case dict():
            members = [(key, spelt(draw, one)) for key, one in draw(st.permutations(list(value.items())))]
            if doubled:
                key = draw(st.sampled_from(list(value)))
                other = draw(st.sampled_from([spelt(draw, value[key]), '"other"', "null"]))
                members.insert(draw(st.integers(0, len(members))), (key, other))
            shown_ = (f"{gap}{text(draw, key)}{gap}:{gap}{one}" for key, one in members)
            return "{" + f"{gap},".join(shown_) + gap + "}"
        case list():
            return "[" + f"{gap},".join(gap + spelt(draw, one) for one in value) + gap + "]"
        case str():
            return text(draw, value)
        case bool() | None:
            return json.dumps(value)
        case _:
            return number(draw, value)


@st.composite
def value(draw: st.DrawFn) -> dict[str, Any]:
    """What is asked."""
    body = chat(draw(st.sampled_from(_TEXTS)) + " NUMBER")
    optional: dict[str, st.SearchStrategy[Any]] = {
        "temperature": st.sampled_from([0, 1, 0.5]),
        "max_tokens": st.sampled_from([16, 100]),
        "seed": st.sampled_from([0, 7]),
        "stream": st.booleans(),
        "stop": st.sampled_from([None, "x", ["x", "y"]]),
        "logit_bias": st.sampled_from([{}, {"50": 1, "51": 0.25}]),
        "unheard_of": st.sampled_from([{"b": 1, "a": 0.5}, {"a": 0.5, "b": 1}]),
    }
    return body | draw(st.fixed_dictionaries({}, optional=optional))


@st.composite
def traffic(draw: st.DrawFn) -> list[tuple[Spelt, float]]:
    """Requests with the seconds before each: a value or two in up to three spellings, each as bytes with some headers
    or others, most again and again."""
    values = draw(st.lists(value(), min_size=1, max_size=2))
    bodies = [
        spelt(draw, draw(st.sampled_from(values)), doubled=draw(st.integers(0, 9)) == 0)
        for _ in range(draw(st.integers(1, 3)))
    ]
    plain_ = {"Authorization": "Bearer sk-one", "Content-Type": "application/json"}
    found = [Spelt(bodies[0], plain_, _PATH)]
    for _ in range(draw(st.integers(1, 3))):
        name, choices = draw(st.sampled_from(_HEADERS))
        headers = plain_ | {name: draw(st.sampled_from(choices))}
        match draw(st.sampled_from(("headers", "body", "path", "all"))):
            case "headers":
                found.append(Spelt(bodies[0], headers, _PATH))
            case "body":
                found.append(Spelt(draw(st.sampled_from(bodies)), plain_, _PATH))
            case "path":
                found.append(Spelt(bodies[0], plain_, f"{_PATH}?a=1"))
            case _:
                found.append(Spelt(draw(st.sampled_from(bodies)), headers, f"{_PATH}?a=2"))
    order = draw(st.lists(st.integers(0, len(found) - 1), min_size=2, max_size=5))
    pauses = st.sampled_from([0.001, 0.001, 0.001, 0.001, 15.0])
    # The third time goes short; what differs from it in one thing comes next.
    return [(found[at], draw(pauses)) for at in (0, 0, 0, 1, *order)]


async def test_no_spelling_gets_another_answer_by_the_short_way(tmp_path: Path, taken: list[str]) -> None:
    clock, loop = FakeClock(), asyncio.get_running_loop()
    asked: list[tuple[Any, str]] = []
    ours: list[str] = []

    async def sent(
        proxies: tuple[Proxied, Proxied], ups: tuple[ScriptedUpstream, ScriptedUpstream], one: Spelt
    ) -> None:
        for up in ups:
            up.default = Script(says=f"answer {len(asked)} ends")
        body = one.body.encode()
        asked.append((_value(body), one.headers["Authorization"]))
        left, right = [await proxy.client.post(one.path, content=body, headers=one.headers) for proxy in proxies]
        assert (left.status_code, shown(left)) == (right.status_code, shown(right))
        assert plain(left) == plain(right)
        if left.headers["x-farthing-cache"].startswith("hit"):
            whose = next(at for at in range(len(asked)) if _says(left.text, at))
            assert asked[whose] == asked[-1]
            ours.append("hit")

    async with scripted() as first, scripted() as second:
        common: dict[str, Any] = {"clock": clock, "cache__ttl_s": 40, "compress__recode": "off"}
        short = proxied(first.url, tmp_path / "short", **common)
        long = proxied(second.url, tmp_path / "long", limits__repeat_bytes=0, **common)
        async with short as with_it, long as without:
            numbers = itertools.count()

            @given(traffic())
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            )
            def agree(requests: list[tuple[Spelt, float]]) -> None:
                mark = f"{next(numbers):04d}"  # nothing of an earlier example is met again

                async def all_of_them() -> None:
                    for one, pause_s in requests:
                        clock.advance(pause_s)
                        named = Spelt(_marked(one.body, mark), one.headers, one.path)
                        await sent((with_it, without), (first, second), named)

                asyncio.run_coroutine_threadsafe(all_of_them(), loop).result(60)

            await asyncio.to_thread(agree)
            rows = await with_it.rows(len(asked)), await without.rows(len(asked))

    assert len(taken) > LEAST_SHORT
    assert len(ours) > len(taken)  # hits by the pipeline too, of another spelling or the second time
    ignored = _OWN_COLUMNS | {"tenant", "key_hash", "config_id"}
    for mine, theirs in zip(*rows, strict=True):
        assert {k: v for k, v in mine.items() if k not in ignored} == {
            k: v for k, v in theirs.items() if k not in ignored
        }


def _marked(body: str, mark: str) -> str:
    """The body with the example's number in each spelling of the place that is kept for it."""
    for spelling in ("NUMBER", *("".join(f"\\u{ord(one):{shape}}" for one in "NUMBER") for shape in ("04x", "04X"))):
        body = body.replace(spelling, mark)
    return body


def _value(body: bytes) -> Any:
    """What the bytes mean: numbers by value, members in no order."""
    return json.loads(body, parse_float=Decimal, parse_int=Decimal)


def _says(answer: str, at: int) -> bool:
    """Whether that is what the upstream said to request `at`; of a stream the pieces together."""
    if answer.startswith("data: "):
        pieces = [json.loads(line[6:]) for line in answer.split("\n") if line.startswith("data: {")]
        answer = "".join(one["choices"][0]["delta"].get("content") or "" for one in pieces if one["choices"])
    return f"answer {at} ends" in answer
