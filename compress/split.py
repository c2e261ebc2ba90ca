"""Which kind of text it is, and its units. Pure."""

from __future__ import annotations

import re

from farthing.compress.protected import code_blocks
from farthing.compress.units import Kind, Unit, Units
from farthing.compress.units_json import json_lines_units, json_units
from farthing.compress.units_lines import log_units, table_units
from farthing.compress.units_prose import prose_units

__all__ = ["split"]

_SHORT_CHARS = 400  # nothing to be gained below a hundred tokens
_MOST_CHARS = 4_000_000
_LONGEST_CODE_LINE, _CODE_SHARE = 300, 0.4
_TAG = re.compile(r"<[!/?]?[A-Za-z][^<>]{0,300}>")
_CODE_LINE = re.compile(
    r"\s*+(?:(?:async\s)?def\s|class\s|import\s|from\s\S+\simport\b|return\b|if\s.*[:{]\s*$|elif\s|else\s?[:{]|for\s.*[:{]\s*$"
    r"|while\s.*[:{]\s*$|try\s?[:{]|except\b|finally\s?[:{]|with\s.*:\s*$|@\w|raise\s|yield\s|assert\s|pass\s*$|break\s*[;]?$"
    r"|continue\s*;?$|#include\b|#define\b|func\s|fn\s|pub\s|let\s|var\s|const\s|function\b|public\s|private\s|static\s"
    r"|package\s|use\s\w|using\s|namespace\s|struct\s|enum\s|interface\s|export\s|switch\s?\(|case\s.*:|//|/\*|\*/|\}"
    r"|SELECT\s|INSERT\s|CREATE\s|\w[\w.\[\]\"']*(?:\(.*\))?\s?(?:[-+*/|&:]?=)\s?\S|[\w.]+\(.*\)\s*[;{]?$|.*[;{]\s*$|[\])}]+[,;:]?\s*$)"
)
# What only a program has, at the beginning of a line: a few of these tell it even where most of it is documentation.
_DEFINITION = re.compile(
    r"\s*+(?:(?:async\s)?def\s\w+\(|class\s\w+[^.!?]{0,80}:\s*$|from\s[\w.]+\simport\s|import\s[\w.]+(?:\sas\s\w+)?;?\s*$"
    r"|#include\s[<\"]|func\s\w*\(|fn\s\w+[(<]|(?:export\s)?(?:async\s)?function\s\w+\(|(?:public|private)\s\w+\s\w+|package\s[\w.]+;?$)"
)
_FEWEST_DEFINITIONS, _DEFINITIONS_SHARE = 3, 0.02
_HASH_COMMENT = re.compile(r"\s*+#(?!#)\s?\S")


def split(text: str) -> Units:
    """The text's units. Cost: linear. What is short, code, a diff or markup is one fixed unit."""
    if not _SHORT_CHARS <= len(text) <= _MOST_CHARS:
        return _whole("short" if len(text) < _SHORT_CHARS else "long", text)
    rows = json_units(text) or json_lines_units(text)
    if rows is not None:
        return rows
    if text.lstrip()[:1] in ("{", "[") and text.rstrip()[-1:] in ("}", "]") and _looks_json(text):
        return _whole("object", text)
    blocks = code_blocks(text)
    if sum(block.end - block.start for block in blocks if block.kind == "diff") > 0.5 * len(text):
        return _whole("diff", text)
    if sum(map(len, _TAG.findall(text))) > 0.1 * len(text):
        return _whole("markup", text)
    table = table_units(text)
    if table is not None:
        return table
    log = log_units(text)
    if _is_code(text):
        return _whole("code", text)
    return log if log is not None else prose_units(text)


def _whole(kind: Kind, text: str) -> Units:
    return Units(kind, "", (Unit(text, "fixed"),) if text else ())


def _looks_json(text: str) -> bool:
    """Whether a text in brackets that has no rows to choose from is JSON or cut-off JSON all the same."""
    return text.count('":') + text.count('" :') > 2


def _is_code(text: str) -> bool:
    """Whether most lines are program text. Prose about code, with code in fences, isn't."""
    full, fenced = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif line.strip() and not fenced and len(line) < _LONGEST_CODE_LINE:
            full.append(line)
    if len(full) < 5:
        return False
    definitions = sum(1 for line in full if _DEFINITION.match(line))
    if definitions >= max(_FEWEST_DEFINITIONS, _DEFINITIONS_SHARE * len(full)):
        return True
    code = sum(1 for line in full if _CODE_LINE.match(line) or _HASH_COMMENT.match(line))
    return code > _CODE_SHARE * len(full)
