"""Versions on disk, incidents, and policies put into another configuration."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from farthing.policies.guard import Outcome
from farthing.policies.version import version_of
from farthing.proxy.clock import FakeClock
from farthing.proxy.config import Config, load
from farthing.proxy.errors import ConfigFault
from farthing.proxy.incidents import Incidents
from farthing.proxy.rollout_rows import outcomes_of
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.versions import Book, Standing, policy_version, sections_of, with_policy_of, with_sections
from tests.fakes.rows import row

ROUTED = {
    "variants": [{"name": "small", "model": "s"}],
    "routes": [{"name": "all", "mode": "serve", "variants": ["small"]}],
}


@pytest.mark.parametrize(
    "given", [{}, {"cache": {"ttl_s": 5}}, ROUTED, {"semantic": {"mode": "serve", "max_wrong": 0.1}}]
)
def test_a_version_that_was_kept_is_built_again_as_it_was(given: dict[str, object], tmp_path: Path) -> None:
    config, book = Config.model_validate(given), Book(tmp_path)
    kept = book.keep(config, 5.0, "why")
    found = book.find(kept.version)

    assert found == kept
    assert kept.version == policy_version(config) == version_of(kept.sections)
    assert sections_of(with_sections(Config(), kept.given)) == kept.sections
    assert policy_version(with_policy_of(Config(), config)) == kept.version


def test_a_version_is_never_written_again(tmp_path: Path) -> None:
    book = Book(tmp_path)
    first = book.keep(Config(), 5.0, "first")

    assert book.keep(Config(), 6.0, "second") == first
    assert [one.note for one in book.all()] == ["first"]


def test_an_operators_note_takes_the_place_of_a_versions_own(tmp_path: Path) -> None:
    book = Book(tmp_path)
    first = book.keep(Config(), 5.0)
    book.noted(first.version, "shorter")
    book.noted("p-0123456789ab", "nobody")

    assert book.all() == [replace(first, note="shorter")]
    file = tmp_path / f"{first.version}.json"
    file.write_bytes(file.read_bytes().replace(b"86400", b"86401"))
    before = file.read_bytes()
    book.noted(first.version, "of another policy by now")
    assert file.read_bytes() == before


def test_only_what_optimises_names_the_version() -> None:
    plain = policy_version(Config())

    assert policy_version(load(None, {}, {"limits.max_in_flight": 9, "server.port": 1})) == plain
    assert policy_version(load(None, {}, {"cache.ttl_s": 9})) != plain
    assert policy_version(load(None, {}, {"cache.ttl_s": 86_400})) == plain


def test_the_rest_of_the_configuration_stays_secrets_included() -> None:
    base = load(None, {}, {"upstream.api_key": "sk-secret", "upstream.url": "http://127.0.0.1:9/v1", "cache.ttl_s": 7})
    made = with_sections(base, {"cache": {"mode": "off"}})

    assert made.upstream == base.upstream
    assert made.upstream.api_key is not None
    assert made.upstream.api_key.get_secret_value() == "sk-secret"
    assert (made.cache.mode, made.cache.ttl_s) == ("off", 86_400)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"upstream": {}}, "upstream: no part of a policy"),
        ({"cache": {"ttl": 1}}, "did you mean 'ttl_s'"),
        ({"cache": {"ttl_s": "soon"}}, "cache.ttl_s"),
        ({"cache": 5}, "cache"),
        (ROUTED | {"variants": [{"name": "small", "model": "s", "upstream": "elsewhere"}]}, "elsewhere"),
    ],
)
def test_a_policy_that_is_not_valid_is_refused_with_the_keys_path(sections: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigFault, match=says):
        with_sections(Config(), sections)


def test_damaged_files_are_passed_by(tmp_path: Path) -> None:
    book = Book(tmp_path)
    kept = book.keep(Config(), 5.0)
    (tmp_path / "p-000000000000.json").write_text("{")
    (tmp_path / "standing.json").write_text("[]")
    (tmp_path / "log.jsonl").write_bytes(b'{"at": 1}\n{"at"')

    assert [one.version for one in book.all()] == [kept.version]
    assert book.standing() is None
    assert book.changes() == [{"at": 1}]
    assert book.find("../../secret") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [('"mode": "exact"', '"mode": "off"'), ('"tidy": false', '"tidy": true'), ('"version": "p-', '"version": "q-')],
)
def test_an_edited_file_is_refused(before: str, after: str, tmp_path: Path) -> None:
    book = Book(tmp_path)
    config = Config.model_validate({"compress": {"tidy": False}, "aliases": {"a": "b"}, "cache": {"mode": "exact"}})
    kept, other = book.keep(config, 5.0), book.keep(Config(), 6.0)
    path = tmp_path / f"{kept.version}.json"
    text = path.read_text()
    for edited in (text.replace(before, after, 1), after.join(text.rsplit(before, 1))):
        assert edited != text
        path.write_text(edited)
        with pytest.raises(ConfigFault, match="was edited"):
            book.find(kept.version)
        assert [one.version for one in book.all()] == [other.version]
    assert book.keep(config, 7.0).sections == kept.sections  # and is whole again
    assert book.find(kept.version) == book.all()[-1]


def test_going_back_forgets_what_came_after() -> None:
    standing = Standing("a", 0.0, "a")
    for version in "bcd":
        standing.take(version, 1.0, "")
    standing.take("b", 2.0, "", back=True)

    assert (standing.active, standing.before) == ("b", ["a"])


async def test_what_is_in_force_is_read_again(tmp_path: Path) -> None:
    book, standing = Book(tmp_path), Standing("a", 1.0, "b", "note", ["c"], {"version": "d"})
    book.save(standing)

    assert book.standing() == standing


async def test_incidents_are_kept_told_and_read_again(tmp_path: Path) -> None:
    tasks, told = TaskGroup(), []
    path = tmp_path / "incidents.jsonl"
    path.write_bytes(b'{"ts": 1, "kind": "old", "what": "w", "why": "y"}\n{"ts": 2, "ki')
    log = Incidents(path, FakeClock(), tasks.spawn)
    log.tell = told.append
    path.write_bytes(path.read_bytes() + b"\n")
    log.note("rollback", "it went", "worse", {"errors": 0.5}, policy="p-1", route="r")
    await tasks.drain(5)

    assert [one["kind"] for one in log.latest()] == ["rollback", "old"]
    assert log.latest(1)[0] == orjson.loads(path.read_bytes().splitlines()[-1])
    assert told == [{"event": "incident"} | log.latest(1)[0]]
    assert log.latest(1)[0] == {
        "ts": 1_800_000_000.0, "kind": "rollback", "what": "it went", "why": "worse", "evidence": {"errors": 0.5},
        "policy": "p-1", "route": "r",
    }  # fmt: skip
    assert [one["kind"] for one in Incidents(path, FakeClock(), tasks.spawn).latest()] == ["rollback", "old"]


async def test_an_incident_that_cannot_be_written_is_still_told(tmp_path: Path) -> None:
    tasks = TaskGroup()
    log = Incidents(tmp_path / "nowhere" / "incidents.jsonl", FakeClock(), tasks.spawn)
    log.note("drift", "it drifts", "far")
    await tasks.drain(5)
    await asyncio.sleep(0)

    assert log.count == len(log.latest()) == 1


COMMON = {
    "experiment": "rollout",
    "arm": "candidate",
    "latency_ms": 5.0,
    "cost_usd": 2 * 10**12,
    "tenant": "t",
    "user": "",
}


@pytest.mark.parametrize(
    ("more", "unit", "expected"),
    [
        ({}, "request", Outcome(True, False, 5.0, 2.0)),
        ({"arm": "active"}, "request", Outcome(False, False, 5.0, 2.0)),
        ({"status": 500}, "request", Outcome(True, True, None, 2.0)),
        ({"outcome": "failed"}, "request", Outcome(True, True, None, 2.0)),
        ({"outcome": "abandoned"}, "request", Outcome(True, False, None, 2.0)),
        ({"cache": "joined", "cost_usd": 0}, "request", Outcome(True, False, 5.0, None)),
        ({"cost_usd": None}, "tenant", Outcome(True, False, 5.0, None, "t")),
        ({"user": "u"}, "user", Outcome(True, False, 5.0, 2.0, "t u")),
        ({"decisions": '[["assign","unit","ab"]]'}, "session", Outcome(True, False, 5.0, 2.0, "session ab")),
        ({}, "session", Outcome(True, False, 5.0, 2.0, "t")),
        ({"experiment": ""}, "request", None),
        ({"endpoint": "audit"}, "request", None),
    ],
)
def test_what_the_guard_is_told_of_a_row(more: dict[str, object], unit: str, expected: Outcome | None) -> None:
    found = outcomes_of([row(**(COMMON | more))], unit)  # type: ignore[arg-type]

    assert found == ([] if expected is None else [(found[0][0], expected)])
