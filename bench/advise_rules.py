"""How short rules alone make wordy system prompts, and whether every string that must stay does.

python -m bench.advise_rules ../shared/data/compress
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from farthing.compress.prompt_kept import lost
from farthing.compress.prompt_rules import draft
from farthing.proxy.tokens import Tokenizer

MODEL = "gpt-4o-mini"


def main() -> None:
    """Print one line for each kind of prompt, and one for all."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/compress")
    count = Tokenizer().count
    kinds: dict[str, list[tuple[int, int, bool, bool]]] = {}
    for line in (folder / "verbose_system_prompt.jsonl").read_text("utf-8").splitlines():
        item = json.loads(line)
        text = item["messages"][0]["content"]
        short = draft(text).text
        flat = " ".join(short.split())
        kept = all(" ".join(needed.split()) in flat for needed in item["must_keep"])
        row = (count(text, MODEL), count(short, MODEL), kept, not lost(text, short))
        for kind in ("airline policy" if text.startswith("# Airline") else "generated rules", "all"):
            kinds.setdefault(kind, []).append(row)
    for kind, rows in sorted(kinds.items(), reverse=True):
        before, after = sum(row[0] for row in rows), sum(row[1] for row in rows)
        kept, whole = sum(row[2] for row in rows), sum(row[3] for row in rows)
        print(f"{kind:16} {before:7,} -> {after:7,} tokens ({after / before:.3f}), ", end="")
        print(f"needed strings kept {kept}/{len(rows)}, nothing protected lost {whole}/{len(rows)}")


if __name__ == "__main__":
    main()
