"""Squeeze on logs and records of other sources than its rules were tuned on: `python -m bench.compress_elsewhere`.

Logs in six other formats (access log, Python's logging, pytest, make, syslog, JSON lines), and records that this
Python holds (packages, error numbers, HTTP statuses, MIME types, entities, files), asked by a word of theirs, by what
is odd, by an extreme, and in other words than theirs. Needs nothing but the installation; the same items each time.
"""

from __future__ import annotations

import errno
import html.entities
import http
import importlib.metadata
import json
import mimetypes
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from farthing.compress.squeeze import Target, squeeze
from farthing.proxy.tokens import Tokenizer

RATIOS = (0.5, 0.4, 0.3, 0.2)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """`needed`: strings that must still stand after the squeeze."""

    kind: str
    text: str
    question: str
    needed: tuple[str, ...]


def main() -> int:
    """Run and print: items, share with every needed string, tokens left (cl100k), for each kind and ratio."""
    tokenizer = Tokenizer()
    items = [*logs(random.Random(7)), *records(random.Random(7)), *in_other_words()]
    table = Table("kind", "items", *(f"{what} at {ratio}" for ratio in RATIOS for what in ("kept", "left")))
    for kind in dict.fromkeys(item.kind for item in items):
        these = [item for item in items if item.kind == kind]
        cells = [kind, str(len(these))]
        for ratio in RATIOS:
            found = [
                squeeze(item.text, item.question, Target(ratio=ratio), lambda text: tokenizer.count(text, "gpt-4"))
                for item in these
            ]
            held = sum(all(piece in one.text for piece in item.needed) for item, one in zip(these, found, strict=True))
            left = sum(one.tokens_after for one in found) / sum(one.tokens_before for one in found)
            cells += [f"{held / len(these):.2f}", f"{left:.2f}"]
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 0


def logs(rng: random.Random) -> Iterator[Item]:
    """Logs with one thing worth knowing in each."""
    for _ in range(6):
        lines = [
            f"10.{rng.randrange(255)}.{rng.randrange(255)}.{rng.randrange(255)} - -"
            f" [12/Mar/2026:10:{j // 60:02d}:{j % 60:02d} +0000]"
            f' "GET /{rng.choice(["index.html", "app.js", f"api/items/{rng.randrange(999)}"])} HTTP/1.1"'
            f' {rng.choice([200, 200, 304])} {rng.randrange(200, 9000)} "-" "Mozilla/5.0"'
            for j in range(260)
        ]
        address = f"198.51.100.{rng.randrange(255)}"
        lines[rng.randrange(20, 240)] = (
            f'{address} - - [12/Mar/2026:10:02:11 +0000] "POST /api/checkout HTTP/1.1" 502 157 "-" "curl/8"'
        )
        yield Item("access log", "\n".join(lines), "Which request met a bad gateway?", ("/api/checkout", address))
    for _ in range(6):
        lines = [
            rng.choice(
                [
                    f"DEBUG:http.pool:https://h{rng.randrange(9)}.internal:443 GET /v1/x 200 {rng.randrange(999)}",
                    f"INFO:worker.{rng.randrange(4)}:processed batch of {rng.randrange(100)} rows",
                    f"INFO:scheduler:next run in {rng.randrange(60)} s",
                ]
            )
            for _ in range(200)
        ]
        line = rng.randrange(20, 99)
        trace = (
            "ERROR:worker.2:could not parse manifest\nTraceback (most recent call last):\n"
            f'  File "/srv/load.py", line {line}, in load\n    return json.loads(raw)\n'
            f"json.decoder.JSONDecodeError: Expecting value: line {line} column 7 (char 6)"
        )
        lines.insert(rng.randrange(20, 180), trace)
        yield Item("logging", "\n".join(lines), "Why did the worker stop?", (f"Expecting value: line {line}",))
    for _ in range(4):
        bad = rng.randrange(20, 200)
        lines = ["============ test session starts ============", "collected 220 items", ""]
        lines += [
            f"tests/test_{rng.choice(['io', 'api', 'db'])}_{j // 20}.py::test_case_{j}"
            f" {'FAILED' if j == bad else 'PASSED'} [{j * 100 // 220:3d}%]"
            for j in range(220)
        ]
        lines += [
            "",
            "    def test_x():",
            ">       assert total(3) == 7",
            f"E       assert {bad} == 7",
            "1 failed, 219 passed",
        ]
        yield Item("pytest", "\n".join(lines), "Is the suite green?", (f"test_case_{bad} FAILED", "1 failed"))
    for _ in range(4):
        lines = [f"  CC      src/mod{rng.randrange(40)}/file{j}.o" for j in range(150)]
        for j in range(0, 150, 5):
            lines.insert(j, f"src/file{j}.c:{rng.randrange(900)}:4: warning: unused variable 'tmp{j}'")
        symbol = f"frob_{rng.randrange(999)}"
        lines.insert(rng.randrange(30, 130), f"src/a.c:12:9: error: implicit declaration of function '{symbol}'")
        yield Item("make", "\n".join(lines), "Why does the build not go through?", (symbol,))
    for turn in range(6):
        lines = [
            f"Mar 12 10:{j // 60:02d}:{j % 60:02d} host{rng.randrange(3)} "
            + rng.choice(
                [
                    f"systemd[1]: Started Session {rng.randrange(9999)} of User deploy.",
                    f"CRON[{rng.randrange(9999)}]: (root) CMD (run-parts /etc/cron.hourly)",
                    f"sshd[{rng.randrange(9999)}]: Accepted publickey for deploy from 10.0.0.{rng.randrange(255)}",
                ]
            )
            for j in range(240)
        ]
        serial = f"203.0.113.{rng.randrange(255)}"
        event, question = (
            (f"sshd[99]: Accepted password for root from {serial}", "Was there any login that looks strange?")
            if turn % 2
            else (f"kernel: usb 1-1: new device attached serial {serial}", "Has hardware been changed?")
        )
        lines[rng.randrange(20, 220)] = f"Mar 12 10:02:02 host1 {event}"
        yield Item("syslog", "\n".join(lines), question, (serial,))
    for _ in range(4):
        rows = [{"ts": 1767200000 + j, "svc": rng.choice("abc"), "msg": "served", "ms": 40 + j % 9} for j in range(220)]
        place = rng.randrange(20, 200)
        rows[place]["ms"] = 9321
        text = "\n".join(map(json.dumps, rows))
        yield Item("JSON lines", text, "What was wrong with the service?", (str(rows[place]["ts"]), "9321"))


def packages() -> list[Row]:
    """What is installed here, each name once."""
    found = {
        one.metadata["Name"]: {
            "package": one.metadata["Name"],
            "version": one.version,
            "summary": (one.metadata["Summary"] or "")[:60],
        }
        for one in importlib.metadata.distributions()
    }
    return [found[name] for name in sorted(found)]


def numbers() -> list[Row]:
    """The system's error numbers."""
    return [{"code": code, "name": name, "text": os.strerror(code)} for code, name in sorted(errno.errorcode.items())]


def statuses() -> list[Row]:
    """HTTP's status codes."""
    return [{"status": one.value, "phrase": one.phrase, "description": one.description} for one in http.HTTPStatus]


def records(rng: random.Random) -> Iterator[Item]:
    """Rows asked for by a word of theirs, by what is odd, and by an extreme."""
    types = [{"suffix": one, "type": two} for one, two in sorted(mimetypes.types_map.items())]
    points = [{"entity": one, "codepoint": two} for one, two in html.entities.name2codepoint.items()]
    for rows, key, value, question in (
        (packages(), "package", "version", "Which version of {} is there?"),
        (packages(), "package", "summary", "What is {} for?"),
        (numbers(), "name", "text", "What does {} mean?"),
        (numbers(), "text", "name", "Which constant stands for '{}'?"),
        (statuses(), "phrase", "status", "Which status code means {}?"),
        (types, "suffix", "type", "What is the MIME type of {} files?"),
        (points, "entity", "codepoint", "What is the code point of {}?"),
    ):
        for turn in range(5):
            row = rng.choice(rows)
            text = json.dumps(rows, indent=2, ensure_ascii=False) if turn % 2 else separated(rows)
            yield Item("a word of theirs", text, question.format(row[key]), (str(row[value]),))
    files = [
        {"path": path.name, "bytes": path.stat().st_size, "lines": path.read_text("utf-8", "replace").count("\n")}
        for path in sorted(Path(os.__file__).parent.glob("*.py"))
    ]
    for question, key, pick in (
        ("Which file is the biggest?", "bytes", max),
        ("Which module has the most lines?", "lines", max),
        ("What's the smallest file?", "bytes", min),
    ):
        yield Item("extreme", json.dumps(files), question, (pick(files, key=lambda row: row[key])["path"],))
    for change, question in (
        ({"kernel": "5.4.0-2"}, "What is wrong with these hosts?"),
        ({"agent": "unreachable"}, "Which host has a problem?"),
        ({"load": 41.7}, "Is one of the hosts behaving abnormally?"),
        ({"note": "drained"}, "Which host is suspicious?"),
    ):
        for _ in range(3):
            hosts: list[Row] = [
                {"host": f"web{j:03d}", "kernel": "6.1.0-18", "load": round(rng.uniform(0.1, 2), 2), "agent": "ok"}
                for j in range(120)
            ]
            odd = rng.randrange(5, 115)
            hosts[odd] |= change
            yield Item("odd", json.dumps(hosts), question, (f"web{odd:03d}",))


def in_other_words() -> Iterator[Item]:
    """Questions that share few words or none with the row that answers them: what choosing by words can't do."""
    for rows, question, needed in (
        (numbers(), "Which errno do I get when the disk is full?", "ENOSPC"),
        (numbers(), "What do I get when the other side turned my connection away?", "ECONNREFUSED"),
        (numbers(), "Which one says that a file isn't there?", "ENOENT"),
        (numbers(), "Which one when RAM is exhausted?", "ENOMEM"),
        (numbers(), "I may not read this file; which code?", "EACCES"),
        (numbers(), "The peer hung up on us", "ECONNRESET"),
        (numbers(), "Which code if the folder still has files in it?", "ENOTEMPTY"),
        (numbers(), "Two threads wait for each other", "EDEADLK"),
        (statuses(), "Which code says the page moved for good?", "Moved Permanently"),
        (statuses(), "Which one if you must pay first?", "Payment Required"),
        (statuses(), "Which code tells a client that it asks too often?", "Too Many Requests"),
        (statuses(), "Login needed, which code?", "Unauthorized"),
        (statuses(), "The server is overloaded right now", "Service Unavailable"),
        (statuses(), "The proxy waited too long for the backend", "Gateway Timeout"),
        (statuses(), "The upload was too big", "Too Large"),
        (statuses(), "It's a joke from April", "eapot"),
    ):
        yield Item("in other words", json.dumps(rows), question, (needed,))


def separated(rows: Sequence[Row]) -> str:
    """Rows as text with tabs between the cells."""
    lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
