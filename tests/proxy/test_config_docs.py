"""docs/configuration.md names every key that there is, and none that there isn't."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from farthing.proxy.config import Config

DOCS = Path(__file__).parents[2] / "docs"
ELSEWHERE = {"limits": "operations.md"}  # sections whose keys another page lists
FREE = ("prices.models", "compress.retrieved")  # tables with a form of their own, in prices.md and the row itself


def rows() -> Iterator[tuple[str, str]]:
    """(first cell, last cell) of each row of the table of keys."""
    text = (DOCS / "configuration.md").read_text("utf-8").partition("## Request headers")[0]
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[0].startswith("`"):
            yield cells[0], cells[2]


def documented() -> set[str]:
    """Dotted keys; `.key` after a whole one is its neighbour. Keys of lists' items are those that their row names."""
    found = set()
    for names, said in rows():
        whole = ""
        for name in re.findall(r"`([^`]+)`", names):
            whole = whole.rpartition(".")[0] + name if name.startswith(".") else name
            found.add(whole)
            if whole in LISTS:
                spoken = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", said))))
                found |= {f"{whole}.{key}" for key in spoken & LISTS[whole]}
    return {name for name in found if not name.startswith(FREE) and not name.endswith("*")}


def inner(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is made of, whatever it is wrapped in."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := inner(part)) is not None), None)


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def keys(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, type[BaseModel] | None]]:
    """Every dotted key, and the model of its items where it is a list of tables."""
    for name, field in model.model_fields.items():
        dotted = before + (field.alias or name)
        if is_section(field.annotation):
            yield from keys(field.annotation, dotted + ".")  # type: ignore[arg-type]
        else:
            yield dotted, inner(field.annotation)


LISTS = {
    name: {field.alias or key for key, field in model.model_fields.items()}
    for name, model in keys(Config)
    if model is not None and name != "upstreams"  # which has the keys of [upstream]
}


def real() -> set[str]:
    every = {name for name, _ in keys(Config) if not name.startswith((*FREE, *(f"{name}." for name in ELSEWHERE)))}
    return every | {f"{name}.{key}" for name, held in LISTS.items() if not name.startswith(FREE) for key in held}


def test_every_key_is_documented_and_every_documented_key_exists() -> None:
    assert sorted(real() - documented()) == []
    assert sorted(documented() - real()) == []


def test_sections_of_other_pages_are_listed_there() -> None:
    for section, page in ELSEWHERE.items():
        text = (DOCS / page).read_text("utf-8")
        field = Config.model_fields[section].annotation
        assert is_section(field)
        missing = [key for key, _ in keys(field) if f"`{key}`" not in text and f"limits.{key}`" not in text]  # type: ignore[arg-type]
        assert missing == []
