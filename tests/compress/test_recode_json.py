"""JSON as rows: what it looks like, that the equal value comes back, and that nothing odd is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.compress.json_part import json_part
from farthing.compress.recode import recode
from farthing.compress.recode_json import JsonRows
from farthing.compress.rows import LEGEND, LEGEND_LINES, decode_rows
from farthing.proxy.tokens import Tokenizer
from tests.fakes.examples import examples
from tests.fakes.json_texts import json_texts
from tests.fakes.like_objects import damaged, like_objects, pairs

ROWS = JsonRows()
TOKENIZER = Tokenizer()


def short_of(value: Any) -> list[str]:
    """The lines after the legend of a value that can be written as rows."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    short = ROWS.encode(text)
    assert short is not None
    assert ROWS.restores(text, short)
    return short.split("\n")[1:]


def orders(count: int = 12, **more: Any) -> list[dict[str, Any]]:
    return [{"order": f"ord-{n}", "amount": n * 10, **more} for n in range(count)]


def test_a_list_of_objects_is_a_head_and_rows() -> None:
    assert short_of(orders(4, note="as agreed by telephone"))[:3] == [
        "#1 order,amount,note=as agreed by telephone",
        "ord-0,0",
        "ord-1,10",
    ]


def test_a_row_that_differs_says_so_at_its_end() -> None:
    rows = orders(12, status="shipped", refund=None)
    rows[5] |= {"status": "failed", "refund": {"reason": "chargeback"}}
    lines = short_of(rows)

    assert lines[0] == "#1 order,amount,status=shipped,refund{reason}=null"
    assert lines[6] == "ord-5,50,status=failed,refund={chargeback}"


def test_an_envelope_keeps_its_other_members() -> None:
    lines = short_of({"data": orders(), "total": 12, "text": "#1", "next": None})

    assert lines[:3] == ['{"data":#1,"total":12,"text":"#1","next":null}', "#1 order,amount", "ord-0,0"]


def test_several_lists_are_numbered() -> None:
    lines = short_of({"a": orders(), "b": {"c": orders(8)}})

    assert lines[0] == '{"a":#1,"b":{"c":#2}}'
    assert lines[14] == "#2 order,amount"


def test_an_object_of_like_objects_keeps_its_names() -> None:
    lines = short_of({f"host-{n}": {"cpu": n, "zone": "eu-west-1"} for n in range(8)} | {"9": {"cpu": 1, "zone": "x"}})

    assert lines[0] == "#1 {key},cpu,zone=eu-west-1"
    assert lines[1] == "host-0,0"
    assert lines[-1] == "9,1,zone=x"


def test_a_list_of_short_lists_has_a_row_for_each() -> None:
    legs = [[{"from": "ATL", "seats": n}, {"from": "LGA", "seats": n + 1}] for n in range(6)]

    assert short_of(legs)[:2] == ["#1 [from,seats]", "[ATL,0;LGA,1]"]
    assert short_of({f"route {n}": leg for n, leg in enumerate(legs)})[:2] == [
        "#1 {key},[from,seats]",
        "route 0,[ATL,0;LGA,1]",
    ]
    assert short_of({"a": [orders(20), orders(20)]})[0] == '{"a":[#1,#2]}'


def test_sub_objects_are_flattened_and_lists_stand_in_cells() -> None:
    rows = [
        {
            "id": n,
            "user": {"name": f"n{n}", "on": True},
            "tags": ["x", "y"][: n % 3],
            "items": [{"sku": "s", "n": n}] * 2,
        }
        for n in range(9)
    ]
    lines = short_of(rows)

    assert lines[0] == "#1 id,user.name,user.on=true,tags[],items[sku=s,n]"
    assert lines[1:4] == ["0,n0,[],[0;0]", "1,n1,[x],[1;1]", "2,n2,[x;y],[2;2]"]


def test_absent_and_null_and_empty_are_kept_apart() -> None:
    rows: list[dict[str, Any]] = [{"name": f"n-{n}", "left": n, "right": n} for n in range(9)]
    rows[1]["left"], rows[2]["left"] = None, ""
    del rows[3]["left"]
    lines = short_of(rows)

    assert lines[:5] == ["#1 name,left,right", "n-0,0,0", "n-1,null,1", 'n-2,"",2', "n-3,,3"]


def test_a_rare_member_is_absent_unless_named() -> None:
    rows = orders(12)
    rows[7]["gift"] = "yes"
    lines = short_of(rows)

    assert lines[0] == "#1 order,amount,gift?"
    assert lines[8] == "ord-7,70,gift=yes"


def test_strings_that_look_like_something_else_are_told_apart() -> None:
    values = ["1", "true", "null", "a,b", "#1", '"', "[", "line\nend", " pad", "plain", 1, 1.5, True]
    lines = short_of([{"name": f"name-{n}", "value": value, "const": "constant"} for n, value in enumerate(values)])

    assert [line.partition(",")[2] for line in lines[1:]] == [
        *('"1"', '"true"', '"null"', '"a,b"', '"#1"', '"\\""', '"["', '"line\\nend"', '" pad"', "plain", "1", "1.5"),
        "true",
    ]


def test_a_column_of_strings_that_look_like_numbers_says_it_once() -> None:
    lines = short_of([{"zip": str(10000 + n), "town": f"t{n}"} for n in range(9)])

    assert lines[:2] == ["#1 zip:text,town", "10000,t0"]


def test_names_that_are_not_plain_are_quoted() -> None:
    lines = short_of([{"a.b": n, "": n + 1, "0": n, "a": {"b": 1 + n, "c.d": n}, "x=y": 0} for n in range(20)])

    assert lines[0] == '#1 "a.b","",0,a.b,a."c.d","x=y"=0'


def test_numbers_keep_their_spelling() -> None:
    numbers = ["1.0", "1.00", "1e5", "1E+2", "-0", "123456789012345678901234567890", "1e400"]
    text = "[" + ",".join(f'{{"number":{n},"other":"constant value"}}' for n in numbers) + "]"

    assert short_of(text)[1:] == numbers


def test_json_lines_and_blocks_in_prose() -> None:
    rows = [json.dumps(row) for row in orders(12, status="shipped")]
    lines = ROWS.encode("\n".join(rows) + "\n")
    prose = f"Result:\n```json\n[{', '.join(rows)}]\n```\nEnd.\n"
    block = ROWS.encode(prose)

    assert lines is not None and lines.startswith(LEGEND_LINES + ";") and ROWS.restores("\n".join(rows), lines)
    assert block is not None and block.startswith(f"Result:\n```json\n{LEGEND};") and ROWS.restores(prose, block)
    assert block.endswith("ord-11,110\n#end\n```\nEnd.\n")
    assert (after_colon := ROWS.encode(f"Result: [{','.join(rows)}]")) is not None
    assert after_colon.startswith(f"Result: {LEGEND};") and after_colon.endswith("ord-11,110\n#end")
    assert ROWS.restores(f"Result: [{','.join(rows)}]", after_colon)
    assert decode_rows(block) == prose.replace(", ", ",").replace('": ', '":')


LEFT_ALONE = [
    "",
    "no json at all, " * 20,
    json.dumps({"a": 1, "b": ["x"] * 50}),
    json.dumps(list(range(200))),
    json.dumps(orders(1)),
    json.dumps(orders())[:-1],
    "\ufeff" + json.dumps(orders()),
    json.dumps(orders()).replace('"amount": 50', '"amount": NaN'),
    json.dumps(orders()).replace('"amount": 50', '"amount": 50, "amount": 50'),
    json.dumps(orders()).replace("ord-5", "\ud800"),
    json.dumps(orders()).replace("ord-5", "\\ud800"),
    "[" * 300 + json.dumps(orders()) + "]" * 300,
    json.dumps([{"a": n, "b": n} if n % 2 else {"b": n, "a": n} for n in range(40)]),
    json.dumps([{f"k{n}": 1} for n in range(40)]),
    json.dumps([{}] * 60),
    json.dumps(orders(12, note=LEGEND)),
    "{}\n" * 60,
]


@pytest.mark.parametrize("text", LEFT_ALONE, ids=range(len(LEFT_ALONE)))
def test_what_has_no_rows_or_is_ambiguous_is_left_alone(text: str) -> None:
    assert ROWS.encode(text) is None


@given(text=like_objects())
@settings(max_examples=examples(80), deadline=None)
def test_every_form_decodes_to_the_equal_value(text: str) -> None:
    short = ROWS.encode(text)
    if short is None:
        return
    part = json_part(text)

    assert part is not None
    assert ROWS.restores(text, short)
    assert pairs(decode_rows(short)[len(part.before) : -len(part.after) or None]) == pairs(part.compact)
    assert ROWS.encode(text) == short
    assert ROWS.encode(short) is None


@given(text=st.one_of(damaged(like_objects()), damaged(json_texts()), json_texts("container"), st.text(max_size=300)))
@settings(max_examples=examples(60), deadline=None)
def test_it_never_raises_and_never_errs(text: str) -> None:
    short = ROWS.encode(text)

    assert short is None or ROWS.restores(text, short)
    assert not ROWS.restores(text, text)


@given(text=like_objects(), data=st.data())
@settings(max_examples=examples(60), deadline=None)
def test_damaged_rows_are_refused_or_unequal(text: str, data: st.DataObject) -> None:
    short = ROWS.encode(text)
    if short is None:
        return
    broken = data.draw(damaged(st.just(short)))
    try:
        decoded = decode_rows(broken)
    except ValueError:
        assert not ROWS.restores(text, broken)
    else:
        part = json_part(text)
        assert part is not None
        equal = decoded.startswith(part.before) and decoded.endswith(part.after)
        if not equal:
            assert not ROWS.restores(text, broken)


@given(text=like_objects())
@settings(max_examples=examples(50), deadline=None)
def test_chosen_by_tokens_it_is_never_longer_and_comes_to_rest(text: str) -> None:
    found = recode(text, TOKENIZER.count, [ROWS])
    if found is None:
        return

    assert found.tokens_after == TOKENIZER.count(found.text) < found.tokens_before == TOKENIZER.count(text)
    assert found.rules == ("rows",)
    assert recode(found.text, TOKENIZER.count, [ROWS]) is None


def test_a_head_with_nothing_behind_it_is_refused() -> None:
    with pytest.raises(ValueError, match="end too early"):
        decode_rows(
            "JSON as rows; #1 stands for what the rows under #1 hold; name=value in a head: so in each row\n#end\n"
        )
