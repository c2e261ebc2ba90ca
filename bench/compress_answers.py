"""What a real, small model answers to shorter prompts: `python -m bench.compress_answers [--items N] [--data DIR]`.

Items of the test half, whole and in each form, greedily (temperature 0, 48 tokens at most), asked of SmolLM2-135M
(farthing.proxy.small_model; two servers of one thread each). Prompts that the model's window or the time would not take
are made smaller first (bench.compress_smaller); no form is cut to fit. A run that ended early goes on with --kept.
Exit status 0; 2: the data isn't there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice, zip_longest
from pathlib import Path

import httpx
from rich.console import Console
from scipy.stats import binomtest

from bench.compress import DOCUMENT, RESULTS, ROOT, processor, wilson
from bench.compress_data import Messages, with_texts
from bench.compress_methods import methods
from bench.compress_smaller import Asked, asked, holds, smaller
from bench.report import Report, publish, show
from bench.same_prompt import served
from farthing.cache.embedder import open_embedder
from farthing.policies.agree import agree
from farthing.policies.answer import Answer, read
from farthing.policies.opinion import Agreement, Embed
from farthing.proxy.small_model import MODEL
from farthing.proxy.tokens import Tokenizer

ASKED_SLICES = ("json_tool_output", "tables_csv", "logs_and_stacktraces", "rag_multidoc_qa")
WHOLE, AGAIN = "whole", "whole again"
FORMS = ("tidy", "tidy + recode", "squeeze .5", "squeeze .3", "cut the middle .5")
ALL = "all four"
MAX_TOKENS = 48
SERVERS = 2
AGAIN_EACH = 4  # of a slice's items one in so many is asked whole twice


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said. `prompt_tokens`: as it counts them. `seconds`: until the whole answer was there."""

    text: str
    finish: str
    prompt_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One item in one form. `changed`: the prompt differs from the whole one; where not, it wasn't asked again.
    `right`: the answer holds what is expected. `as_whole`: agreement with the whole prompt's answer."""

    slice: str
    item: str
    form: str
    changed: bool
    right: bool
    as_whole: Agreement
    reply: Reply


class Asker:
    """Asks one server; replies are kept by prompt, in a file too where one is given, so that a run can go on."""

    def __init__(self, client: httpx.Client, kept: dict[str, Reply], file: Path | None, lock: threading.Lock) -> None:
        self._client, self._kept, self._file, self._lock = client, kept, file, lock

    def tokens(self, messages: Messages) -> int:
        """Tokens of the prompt by the model's own template and tokenizer."""
        prompt = self._post("/apply-template", {"messages": messages})["prompt"]
        return len(self._post("/tokenize", {"content": prompt, "add_special": True})["tokens"])

    def ask(self, messages: Messages, time_no: int = 0) -> Reply:
        """The answer to the prompt, nothing of it read from the server's prefix cache; `time_no` asks it anew."""
        key = sha256(json.dumps([time_no, messages]).encode()).hexdigest()
        if key not in self._kept:
            body = {"model": MODEL, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}
            before = time.monotonic()
            told = self._client.post("/v1/chat/completions", json={**body, "cache_prompt": False}).raise_for_status()
            spent_s = time.monotonic() - before
            choices = read(told.content)
            if choices is None:
                raise RuntimeError(f"not an answer: {told.text[:200]}")
            answer = choices[0]
            self._kept[key] = Reply(answer.text, answer.finish, told.json()["usage"]["prompt_tokens"], spent_s)
            if self._file is not None:
                with self._lock, self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, **asdict(self._kept[key])}) + "\n")
        return self._kept[key]

    def _post(self, path: str, body: dict[str, object]) -> dict[str, list[int] | str]:
        found: dict[str, list[int] | str] = self._client.post(path, json=body).raise_for_status().json()
        return found


def main(arguments: list[str]) -> int:
    """Run, print, write."""
    given = parser().parse_args(arguments)
    if not all((given.data / f"{name}.jsonl").exists() for name in ASKED_SLICES):
        print(f"{given.data} holds no compression data: give its folder with --data", file=sys.stderr)
        return 2
    errors = Console(stderr=True)
    kept = read_kept(given.kept)
    lock, tokenizer = threading.Lock(), Tokenizer(64 * 2**20)
    found: list[tuple[Asked, dict[str, tuple[Messages, Reply]]]] = []
    end = time.monotonic() + 60 * given.minutes
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(served()) for _ in range(SERVERS)]
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=600)) for url in urls]
        askers = [Asker(client, kept, given.kept, lock) for client in clients]
        jobs = drawn(given.data, given.items, askers[0], given.tokens)

        def work(asker: Asker) -> None:
            while time.monotonic() < end:
                with lock:
                    job = next(jobs, None)
                if job is None:
                    return
                one, again = job
                replies = answers(one, again, asker, lambda text: tokenizer.count(text, MODEL))
                found.append((one, replies))
                errors.print(f"{one.item.slice} {one.item.id} {replies[WHOLE][1].seconds:.1f} s", highlight=False)

        with ThreadPoolExecutor(SERVERS) as pool:
            list(pool.map(work, askers))
    embed = open_embedder("minilm-int8").embed
    rows = [row for one, replies in found for row in judged(one, replies, embed)]
    report = reported(rows, [one for one, _ in found], given.tokens)
    show(report, Console(width=None if sys.stdout.isatty() else 170))
    write(report, given)
    return 0


def drawn(folder: Path, most: int, asker: Asker, most_tokens: int) -> Iterator[tuple[Asked, bool]]:
    """Up to `most` items of each slice that fit or can be made to, in the order of their ids' hashes, and whether to
    ask them whole twice. A slice's turn each, so that a run that ends early has about as many of each."""

    def fitting(name: str) -> Iterator[Asked]:
        for one in sorted(asked(folder, name), key=lambda one: sha256(one.item.id.encode()).digest()):
            if (made := smaller(one, lambda messages: asker.tokens(messages) <= most_tokens)) is not None:
                yield made

    for number, turn in enumerate(zip_longest(*(islice(fitting(name), most) for name in ASKED_SLICES))):
        yield from ((one, number % AGAIN_EACH == 0) for one in turn if one is not None)


def answers(one: Asked, again: bool, asker: Asker, count: Callable[[str], int]) -> dict[str, tuple[Messages, Reply]]:
    """Prompt and reply of each form. `count`: tokens as the proxy counts them for a model it doesn't know."""
    item = one.item
    found = {WHOLE: (item.messages, asker.ask(item.messages))}
    if again:
        found[AGAIN] = item.messages, asker.ask(item.messages, 1)
    for method in (method for method in methods() if method.name in FORMS):
        short = method(item, count)
        messages = with_texts(item, {place: text for place, (text, _) in short.items()})
        found[method.name] = messages, asker.ask(messages)
    return found


def judged(one: Asked, replies: dict[str, tuple[Messages, Reply]], embed: Embed | None) -> Iterator[Row]:
    """All forms of an item by the same measure."""
    whole, first = replies[WHOLE]
    for form, (messages, reply) in replies.items():
        opinion = agree(_answer(first), _answer(reply), embed)
        changed = messages != whole
        right = holds(reply.text, one.expected)
        yield Row(one.item.slice, one.item.id, form, changed, right, opinion.agreement, reply)


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p of a paired change. Source: McNemar 1947, binomial form."""
    return float(binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0


def reported(rows: Sequence[Row], items: Sequence[Asked], most_tokens: int) -> Report:
    """A row for each slice and form, and for all slices together."""
    columns = ["slice", "form", "items", "changed", "tokens left", "tokens", "time s", "right", "95 %"]
    columns += ["lost", "won", "p", "same", "unsure", "different"]
    report = Report("compress-answers", "What a small model answers", columns, notes=told(items, most_tokens))
    for name in (*ASKED_SLICES, ALL):
        here = [row for row in rows if name in (row.slice, ALL)]
        whole = {row.item: row for row in here if row.form == WHOLE}
        for form in (WHOLE, AGAIN, *FORMS):
            those = [row for row in here if row.form == form]
            if those:
                report.rows.append([name if form == WHOLE else "", form, *cells(those, whole)])
    first = [row for row in rows if row.form == WHOLE]
    again = {row.item: row.reply.text for row in rows if row.form == AGAIN}
    report.notes += [
        f"Of {len(first)} whole prompts {sum(row.right for row in first)} were answered rightly: no form can lose more "
        "than these. Asked again, "
        f"{sum(row.reply.text == again[row.item] for row in first if row.item in again)} of {len(again)} answers were "
        "the same to the letter; the share right of these rows is of that part of the items only."
    ]
    report.raw = [asdict(row) for row in rows]
    return report


def cells(rows: Sequence[Row], whole: dict[str, Row]) -> list[str]:
    """The figures of one form: rows against the same items' whole prompts."""
    total = len(rows)
    right = sum(row.right for row in rows)
    low, high = wilson(right, total)
    lost = sum(whole[row.item].right and not row.right for row in rows)
    won = sum(row.right and not whole[row.item].right for row in rows)
    left = sum(row.reply.prompt_tokens for row in rows) / sum(whole[row.item].reply.prompt_tokens for row in rows)
    shares = [sum(row.as_whole is one for row in rows) / total for one in (Agreement.SAME, Agreement.UNSURE)]
    return [
        str(total),
        str(sum(row.changed for row in rows)),
        f"{left:.3f}",
        f"{statistics.median(row.reply.prompt_tokens for row in rows):.0f}",
        f"{statistics.median(row.reply.seconds for row in rows):.1f}",
        f"{right / total:.2f}",
        f"{low:.2f}-{high:.2f}",
        str(lost),
        str(won),
        f"{mcnemar(lost, won):.3f}",
        *(f"{share:.2f}" for share in shares),
        f"{1 - sum(shares):.2f}",
    ]


def told(items: Sequence[Asked], most_tokens: int) -> list[str]:
    """What a reader must know of these figures."""
    made = {name: [one.made for one in items if one.made and one.item.slice == name] for name in ASKED_SLICES}
    sizes = [
        f"{name} {len(ones)} of {sum(one.item.slice == name for one in items)} (a median of "
        f"{statistics.median(left for left, _ in ones):.0f} of {statistics.median(of for _, of in ones):.0f} units)"
        for name, ones in made.items()
        if ones
    ]
    return [
        f"Test half; prompts of at most {most_tokens} tokens by the model's own count. Made smaller to fit, before any "
        f"form: {', '.join(sizes) or 'none'}. A unit is a record, a row, a line (with its traceback) or a document. "
        "The needed ones stay, with a run of neighbours that keeps the first one's place in proportion. Short texts "
        "leave a compressor less to take: tokens left are not those of the tables above. Questions for every record "
        f"are left out, as {MAX_TOKENS} tokens can't answer them.",
        "changed: items whose prompt this form changes; the others were not asked again and count with the whole "
        f"prompt's answer. whole again: one item in {AGAIN_EACH}. tokens left: prompt tokens that the model reported, "
        "of those of the whole prompts. tokens, time: medians, nothing read from the server's prefix cache; two "
        "servers of one thread each, on a machine that others used too, so that times say which is longer and little "
        "more.",
        "right: the answer holds the expected string as whole words; where the question names it, the needed strings "
        "that it doesn't name. lost, won: right with the whole prompt only, with this form only; p: McNemar, exact, "
        "two-sided, not corrected for the number of forms. same, unsure, different: farthing.policies.agree, against "
        f"the whole prompt's answer; one cut at {MAX_TOKENS} tokens is unsure unless it is the other's beginning.",
        f"{MODEL} is often wrong about the whole prompt. What it can show: whether it finds the same string in another "
        "form of the same data, in pairs, and how many tokens and how much time that takes. What it can't: that a "
        "large model loses nothing (it may read forms that this one doesn't, and miss what this one never used), that "
        "two forms are equal (so few pairs only find large losses: five lost and none won are p = .06), or anything of "
        "reasoning. A form can win here just because it is shorter: the model then recites the passage that holds the "
        "string, which counts as right.",
    ]


def read_kept(file: Path | None) -> dict[str, Reply]:
    """Replies of an earlier run by the keys of their prompts."""
    lines = file.read_text("utf-8").splitlines() if file is not None and file.exists() else []
    rows = [json.loads(line) for line in lines]
    return {row.pop("key"): Reply(**row) for row in rows}


def write(report: Report, given: argparse.Namespace) -> None:
    """As JSON, and into the document."""
    command = f"python -m bench.compress_answers --items {given.items} --tokens {given.tokens}"
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    facts = {"machine": f"two cores of {processor()}, shared", "model": f"{MODEL}, Q4_1, greedy"}
    publish(report, facts, command, when, given.results, None if given.no_docs else DOCUMENT)


def _answer(reply: Reply) -> Answer:
    return Answer(reply.text, finish=reply.finish)  # type: ignore[arg-type]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.compress_answers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--items", type=int, default=20, help="at most so many of each slice")
    made.add_argument("--tokens", type=int, default=500, help="of the longest prompt, by the model's count")
    made.add_argument("--minutes", type=float, default=12, help="after these no other item is begun")
    made.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "compress", help="its folder")
    made.add_argument("--results", type=Path, default=RESULTS, help="where every figure is written as JSON")
    made.add_argument("--kept", type=Path, help="a file of replies: those in it aren't asked again, new ones are added")
    made.add_argument("--no-docs", action="store_true", help="print and save, but leave the document alone")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
