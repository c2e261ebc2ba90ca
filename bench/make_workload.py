"""Makes proxy/workload/banking.jsonl, the questions that `farthing demo` replays, out of BANKING77.

    python bench/make_workload.py SOURCE.jsonl

SOURCE holds one object a line with `messages` (the last one is the customer's question) and `answer` (the intent):
a sample of the train split of BANKING77 (PolyAI, task-specific-datasets, CC BY 4.0). Intents and questions are drawn
at random with a fixed seed, never by similarity: questions picked for looking alike would flatter the semantic cache.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

SEED = 77
INTENTS = 25
QUESTIONS_PER_INTENT = 8
OUTPUT = Path(__file__).parent.parent / "proxy" / "workload" / "banking.jsonl"


def draw(rows: list[tuple[str, str]], rng: random.Random) -> list[tuple[str, str]]:
    """INTENTS intents of those with enough questions, QUESTIONS_PER_INTENT of each, shuffled: (text, intent)."""
    by_intent: dict[str, list[str]] = {}
    for text, intent in rows:
        texts = by_intent.setdefault(intent, [])
        if text not in texts:
            texts.append(text)
    enough = sorted(intent for intent, texts in by_intent.items() if len(texts) >= QUESTIONS_PER_INTENT)
    drawn = [
        (text, intent)
        for intent in rng.sample(enough, INTENTS)
        for text in rng.sample(by_intent[intent], QUESTIONS_PER_INTENT)
    ]
    rng.shuffle(drawn)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.source.read_text("utf-8").splitlines()]
    rows = [(" ".join(line["messages"][-1]["content"].split()), line["answer"]) for line in lines]
    drawn = draw(rows, random.Random(SEED))
    text = "".join(json.dumps({"text": text, "intent": intent}, ensure_ascii=False) + "\n" for text, intent in drawn)
    options.output.write_text(text, "utf-8")
    print(
        f"{options.output.name}: {len(drawn)} questions, {len({i for _, i in drawn})} intents, {len(text)} characters"
    )


if __name__ == "__main__":
    main()
