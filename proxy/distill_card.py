"""The data card of an export, as Markdown. Pure.

What it tells follows Gebru et al., "Datasheets for Datasets" (2021), as far as a machine can know it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["card"]


def card(facts: Mapping[str, Any]) -> str:
    """The card. `facts`: of distill_export."""
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "# Data card"
    yield ""
    yield "Requests of recorded traffic, each with the answer that its model gave, for fine-tuning another model."
    yield ""
    yield "| part | rows | from (UTC) | to (UTC) | bytes | SHA-256 |"
    yield "|---|---|---|---|---|---|"
    for name, part in facts["parts"].items():
        times = f"{_time(part['from_s'])} | {_time(part['to_s'])}"
        yield f"| {name}.jsonl | {part['rows']:,} | {times} | {part['bytes']:,} | `{part['sha256']}` |"
    yield ""
    yield f"Format: {facts['format']}. Source: {facts['source']}. Made: {_time(facts['made_s'])} UTC by farthing "
    yield f"{facts['version']}. Filters: {facts['filters'] or 'none'}."
    yield ""
    yield "## Who answered"
    yield ""
    for teacher, count in facts["teachers"].items():
        yield f"- {teacher or 'unknown'}: {count:,} rows"
    yield ""
    yield f"Licence: {facts['licence'] or '**not stated.** Whoever passes this on must state it.'}"
    yield "Many providers' terms restrict the use of their models' answers for training other models: read them first."
    yield ""
    yield "## What was left out"
    yield ""
    yield f"Of {facts['read']:,} recorded requests:"
    yield ""
    yield "| rows | reason |"
    yield "|---|---|"
    for reason, count in facts["dropped"].items():
        yield f"| {count:,} | {reason} |"
    yield ""
    yield "## How parts were made"
    yield ""
    yield "Parts follow each other in time. The same last message is in one part only"
    if facts["near_cosine"]:
        yield f"and so are messages whose cosine is {facts['near_cosine']:g} or more ({facts['embedder']})."
        if facts["too_long_to_compare"]:
            yield f"{facts['too_long_to_compare']:,} messages were too long to be compared that way."
    else:
        yield "; near copies were not looked for."
    if facts["consistent_only"]:
        yield "Questions to which the teacher gave different answers at different times were left out."
    yield ""
    yield "## Personal data"
    yield ""
    yield f"Looked for and replaced by `[kind-digest]`: {', '.join(facts['redaction']) or 'nothing'}."
    yield "Patterns find much and not all: names of people, postal addresses and what is spelled oddly stay. Erasing a"
    yield "user from the capture store does not reach this copy."


def _time(seconds: float | None) -> str:
    return "–" if not seconds else datetime.fromtimestamp(seconds, UTC).isoformat(" ", "minutes")[:16]
