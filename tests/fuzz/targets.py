"""What is fuzzed: for each target, bytes in, and an exception only where farthing is wrong.

`make fuzz` makes the bytes by coverage (tests/fuzz/run.py); tests/fuzz/test_corpus.py feeds what was kept of them. A
target says what must hold whatever the bytes are; where two ways lead to one thing, both are taken and compared.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from farthing.cache import codec, reshape
from farthing.cache.key import canonical
from farthing.cache.log_redis_wire import unpack
from farthing.compress.decided import decode as decided
from farthing.compress.forms import forms_of, rules_with, shorten
from farthing.compress.prompt_rules import draft
from farthing.compress.removed import Handles
from farthing.compress.tidy import tidied_text, tidy
from farthing.proxy.adapt_shared import Refused
from farthing.proxy.config import effective, load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.exchange import Endpoint
from farthing.proxy.jsontext import loads_loosely, too_deep
from farthing.proxy.object_graph import graph_of
from farthing.proxy.observe import StreamObserver, read_whole
from farthing.proxy.replay_formats import FORMATS, recorded
from farthing.proxy.replay_read import decoded, open_trace
from farthing.proxy.replay_values import NotARequest
from farthing.proxy.sse import Splitter, events
from farthing.proxy.wire import _exact, read_body
from tests.fakes.adapters import TO_CHAT, TO_MESSAGES

__all__ = ["TARGETS"]

_SPOKEN = ("chat", "messages", "responses")
_RULES = rules_with(html=True)
_FORMS = forms_of(recode=True, squeeze_to=0.3, rules=_RULES)
_NAMES = Handles(b"s" * 32, "t")


def sse(data: bytes) -> None:
    """Events are the same wherever the borders fall, no byte is lost, and who reads them never fails."""
    step, text = (data[0] % 7 + 1 if data else 1), data[1:]
    splitter = Splitter(1_000)
    pieces = [piece for at in range(0, len(text), step) for piece in splitter.feed(text[at : at + step])]
    pieces.append(splitter.rest())
    assert b"".join(pieces) == text
    if not splitter.overflown:
        cut = [(event.name, event.data) for piece in pieces for event in events(piece)]
        assert cut == [(event.name, event.data) for event in events(text)]
    for endpoint in Endpoint:
        observer = StreamObserver(endpoint)
        for piece in pieces:
            observer.see(piece)
        read_whole(endpoint, loads_loosely(text))
        reshape.assemble(text, endpoint)


def key(data: bytes) -> None:
    """A body read the short way and the long way is the same request."""
    read = read_body(data)
    if isinstance(read, str) or read.exact is None:
        return
    slow = _exact(data, sure=False)
    assert isinstance(slow, dict), slow
    for endpoint in Endpoint:
        short = canonical(read.exact, endpoint, plain=read.plain)
        assert short == canonical(read.exact, endpoint) == canonical(slow, endpoint)


def tidied(data: bytes) -> None:
    """What was tidied means the same to a letter of each number, and is tidy."""
    text = data.decode("utf-8", "replace")
    short = tidied_text(text)
    if short is not None:
        assert len(short) < len(text) and _spelt(short) == _spelt(text)
        assert tidied_text(short) is None
    loads_loosely(data)
    with suppress(ValueError):
        payload = orjson.loads(data)
        if isinstance(payload, dict) and not too_deep(data):
            for endpoint in _SPOKEN:
                made = tidy(endpoint, payload, data)
                again = tidy(endpoint, orjson.loads(made.body), made.body)
                assert (again.body, again.edits) == (made.body, 0)


def _spelt(text: str) -> Any:
    return json.loads(text, parse_float=lambda n: f"n{n}", parse_int=lambda n: f"n{n}", object_pairs_hook=list)


def compressed(data: bytes) -> None:
    """Every rule and every form takes any text; what a rule calls restored is not longer than before."""
    question, _, text = data.decode("utf-8", "replace").partition("\0")
    for rule in _RULES:
        short = rule.encode(text)
        if short is not None:
            rule.restores(text, short)
    for form in _FORMS:
        for names in (None, _NAMES):
            found = shorten(text, question, form, len, [text[: len(text) // 2]], names)
            assert found is None or found.text != text
    draft(text)


def config(data: bytes) -> None:
    """A file is a configuration, or is refused in words."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            effective(load(Path(file.name), {}, {}))
        except ConfigFault as fault:
            assert str(fault).strip()


def importers(data: bytes) -> None:
    """A trace's lines are requests, or say why not; a file is read, or refused in words."""
    for line in data.split(b"\n"):
        for form in ("", *FORMATS):
            with suppress(ValueError, NotARequest):
                found = recorded(decoded(line), form)
                assert found.usage is None or found.usage.tokens_in >= 0
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(ConfigFault):
            for block in open_trace(Path(file.name)).blocks():
                assert block.lines or block.share


def adapters(data: bytes) -> None:
    """Between the two APIs, nothing but Refused is raised, in whole answers and in streams."""
    for which in (TO_MESSAGES, TO_CHAT):
        works: tuple[Callable[[], object], ...] = (
            lambda which=which: which.request(data),
            lambda which=which: which.answer(200, data),
            lambda which=which: which.answer(500, data),
        )
        for work in works:
            with suppress(Refused):
                work()
        way, splitter = which.stream(), Splitter(2**20)
        with suppress(Refused):
            for event in [*splitter.feed(data), splitter.rest()]:
                way.feed(event)
            way.finish()


def stored(data: bytes) -> None:
    """Bytes of a store are what was written there, or nothing."""
    codec.decode(data)
    codec.peek(data)
    unpack("k", data, 4, None)
    assert decided(b"k" * 24, data) is None or data[8:]
    header, _, body = data.partition(b"\0")
    length = len(header).to_bytes(4, "big")
    codec.decode(b"".join((b"FTH\x01", codec._digest(length, header, body), length, header, body)))
    with suppress(ValueError):
        graph_of(data.split(b"\n"), {})


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (sse, key, tidied, compressed, config, importers, adapters, stored)
}
