"""An experiment's sums after a restart: exact, whatever was kept and however much came since."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farthing.policies.assign import Unit
from farthing.policies.outcome import Outcome
from farthing.proxy.experiment_data import Data
from farthing.proxy.experiment_kept import keep, restore
from farthing.proxy.outcomes import FILE, Outcomes
from farthing.proxy.row import COLUMNS
from tests.fakes.rows import NOW_S, ledger, row
from tests.proxy.test_experiment_data import WANTED, data, sums, taken


def everything(of: Data) -> dict[str, Any]:
    """What is kept, without what is only about the moment, rounded."""
    plain = of.plain()
    for tracker in (plain["assigned"], *plain["trackers"].values(), *(one[2] for one in plain["slices"])):
        tracker["sums"] = [[round(value, 6) for value in one] for one in tracker["sums"]]
        tracker["units"] = sorted([*one[:2], *(round(value, 6) for value in one[2:])] for one in tracker["units"])
        tracker["days"] = [[day, [[round(v, 6) for v in one] for one in found]] for day, found in tracker["days"]]
        tracker["today"] = sorted([*one[:2], *(round(value, 6) for value in one[2:])] for one in tracker["today"])
        if of.alone:
            del tracker["days"]  # two events of one request count there as they come: each alone, or as one
    return plain | {"slices": sorted(plain["slices"], key=lambda one: one[:2])}


@pytest.mark.parametrize("unit", ["user", "request"])
@pytest.mark.parametrize("at", [0, 1, 400, 900, 1000])
def test_it_goes_on_from_what_was_kept_as_if_there_had_been_no_restart(tmp_path: Path, unit: Unit, at: int) -> None:
    dice = random.Random(7)
    rows = [taken(number, tags=f'{{"team":"t{number % 3}"}}') for number in range(1000)]
    rows[500] = rows[500]._replace(experiment="other")  # others' rows stand between
    ledger(tmp_path / "ledger.db", rows).close()
    live = data(tmp_path, unit, sliced=("tag:team",), before={"t u1": 0.5})
    with closing(Outcomes(tmp_path / FILE)) as outcomes:
        outcomes.listeners.append(live.on_changes)
        for number, one in enumerate(rows):
            if number == at:
                keep(tmp_path / "e.sums", live, NOW_S + number)
            live.on_rows([one])
            if dice.random() < 0.3:
                about = f"far-{dice.randrange(max(1, number - 40), number + 1)}"
                said = Outcome(about, "rating", float(dice.random() < 0.5), NOW_S + number, NOW_S + number,
                               event=f"once-{number}")  # fmt: skip
                outcomes.put([said])
        if at == 1000:
            keep(tmp_path / "e.sums", live, NOW_S + at)
    again = data(tmp_path, unit, sliced=("tag:team",), before={"t u1": 0.5})
    restore(tmp_path / "e.sums", again)
    assert everything(again) == everything(live)


@pytest.mark.parametrize("times", [250, pytest.param(4_200, marks=pytest.mark.long)])  # 200,000 were once all
def test_more_rows_than_were_ever_read_at_once_are_all_counted(tmp_path: Path, times: int) -> None:
    others = ", ".join(f'"{column}"' for column in COLUMNS if column != "id")
    with closing(ledger(tmp_path / "ledger.db", (taken(number) for number in range(50)))) as conn, conn:
        conn.execute(
            f"with recursive n(n) as (select 1 union all select n + 1 from n where n < {times - 1}) "
            f"insert into requests (id, {others}) select id || '-' || n, {others} from n, requests"
        )
    path = tmp_path / "ledger.db"
    again = Data("trial", ("a", "b"), "request", NOW_S - 3600, WANTED[:1], most_units=1000, ledger=path)
    restore(tmp_path / "e.sums", again)
    assert [one.units for one in again.assigned.sums] == [25 * times] * 2


def test_sums_of_something_else_or_of_a_row_that_is_gone_are_not_gone_on_from(tmp_path: Path) -> None:
    rows = [taken(number) for number in range(20)]
    ledger(tmp_path / "ledger.db", rows).close()
    live = data(tmp_path)
    live.on_rows(rows)
    path = tmp_path / "e.sums"
    other = data(tmp_path, "request")
    other.on_rows(rows[:5])
    ahead = data(tmp_path)
    ahead.on_rows([*rows[:5], row(id="never-written")])
    for make in (lambda: keep(path, other, NOW_S), lambda: keep(path, ahead, NOW_S), lambda: path.write_bytes(b"{")):
        make()
        again = data(tmp_path)
        restore(path, again)
        assert sums(again) == sums(live)
