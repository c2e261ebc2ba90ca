"""What goes to the sender's process and comes back: the same values, whatever rows and bodies hold."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from farthing.proxy.capture_record import Said
from farthing.proxy.config_capture import Capture, OwnPattern
from farthing.proxy.config_otlp import Otlp
from farthing.proxy.otlp_names import Target
from farthing.proxy.otlp_wire import Batch, Start, Status, Told, batch_in, read_frame, start_in
from farthing.proxy.row import Row
from farthing.proxy.traces import Parent
from tests.fakes.rows import row

TARGET = Target("openai", "api.example", 443)
CHOSEN = Capture(redact=("key",), patterns=(OwnPattern(name="badge", pattern=r"B-\d+"),), share=0.5)


def sent(batch: Batch) -> Batch:
    frame = read_frame(io.BytesIO(batch.frame()))
    assert frame is not None
    return batch_in(frame)


TEXTS = st.text(max_size=20)
ROWS = st.builds(
    lambda **changes: row(**changes),
    model_requested=TEXTS,
    tags=TEXTS,
    cost_usd=st.none() | st.integers(-(2**63), 2**63 - 1),
    similarity=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    latency_ms=st.floats(0, 1e9),
)
PARENTS = st.builds(Parent, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255))
SAID = st.builds(Said, TEXTS, st.binary(max_size=50), st.none() | st.binary(max_size=50))


@given(st.lists(st.builds(Told, ROWS, st.none() | PARENTS, st.none() | SAID), max_size=5))
def test_a_batch_arrives_as_it_was_sent(rows: list[Told]) -> None:
    got = sent(Batch(rows, TARGET, CHOSEN))

    assert [*got.rows] == rows and got.target == TARGET
    assert got.chosen == (CHOSEN if any(one.said for one in rows) else None)


def test_a_row_that_json_cannot_hold_arrives_washed_and_the_others_whole() -> None:
    odd = row(id="odd", model_requested="a\ud800b", cost_usd=2**70)
    plain = row(id="plain", cost_usd=7)
    got = sent(Batch([Told(odd, None, None), Told(plain, None, Said("/p", b"\xff{", None))], TARGET, CHOSEN))

    assert [*got.rows] == [
        Told(odd._replace(model_requested="a?b", cost_usd=None), None, None),
        Told(plain, None, Said("/p", b"\xff{", None)),
    ]
    assert all(isinstance(one.row, Row) for one in got.rows)


def test_the_settings_arrive_with_their_keys() -> None:
    settings = Otlp(
        endpoint="http://c:4318", headers={"x-api-key": SecretStr("hush")}, content=True, attributes={"a": "b"}
    )
    frame = read_frame(io.BytesIO(Start(settings, b"\x00\xff").frame()))

    assert frame is not None
    assert start_in(frame) == Start(settings, b"\x00\xff")
    assert start_in(frame).settings.headers["x-api-key"].get_secret_value() == "hush"


@pytest.mark.parametrize("missing", [1, 30, 10_000])
def test_a_frame_that_was_cut_is_the_end(missing: int) -> None:
    frame = Batch([Told(row(), None, Said("/p", b"{}" * 20, b"{}"))], TARGET, CHOSEN).frame()

    assert read_frame(io.BytesIO(frame[: max(0, len(frame) - missing)])) is None


def test_a_status_is_read_as_it_was_told() -> None:
    status = Status(5, 2, "ok", "away", 1000, 1)

    assert Status.of(status.line()) == status
    with pytest.raises(ValueError, match="unpack"):
        Status.of(b"[1, 2]")
