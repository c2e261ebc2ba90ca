"""How much of a labelling job a student takes over, at at most so many differences from its teacher.

The job is 4000 customer messages of BANKING77, 77 labels (../shared/data/semcache/intent.jsonl). The teacher is made
up: it gives the data set's own label, and with probability `--noise` another label that it draws once for each
message, so that it is consistent and sometimes wrong. Messages come in the file's order, one a minute; the last 15 %
are scored once. What a teacher's call takes and costs is declared (`--teacher-ms`, `--usd-in`, `--usd-out`); only
what the student takes is measured: its processor time, embedding and head.

    python -m bench.distill ../shared/data [--noise 0.01] [--bounds 0.01,0.02,0.05]
    python -m bench.distill ../shared/data --rivals       # other heads, by folds of the part for fitting; minutes
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.answers import sibling
from farthing.cache.embedder import MiniLmOnnx
from farthing.proxy.distill_near import vectors_of
from farthing.proxy.distill_rows import Gathered, Wanted, gather
from farthing.proxy.distill_train import Cases, Recipe, Trained, cases_of, train
from farthing.proxy.tokens import Tokenizer

MODEL = "gpt-4o-mini"


class Remembered:
    """Vectors of texts that are known already, so that several students cost one embedding."""

    max_tokens, batch = MiniLmOnnx.max_tokens, 1

    def __init__(self, name: str, texts: list[str], vectors: NDArray[np.float32]) -> None:
        self.name, self.dim = name, vectors.shape[1]
        self._known = dict(zip(texts, vectors, strict=True))

    def count(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        return np.array([self._known[text] for text in texts])


def traffic(data: Path, noise: float, seed: int = 11) -> Iterator[tuple[int, bytes]]:
    """The job as `farthing capture export` would have it, answered by the simulated teacher."""
    rows = [json.loads(line) for line in (sibling(data) / "semcache" / "intent.jsonl").read_text("utf-8").splitlines()]
    labels, rng = sorted({row["answer"] for row in rows}), random.Random(seed)
    for at, row in enumerate(rows):
        label = rng.choice(labels) if rng.random() < noise else row["answer"]
        message = {"role": "assistant", "content": label}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        yield at, json.dumps({
            "id": row["id"], "ts": 1_700_000_000 + 60.0 * at, "tenant": "t", "user": "", "tags": {}, "row": None,
            "endpoint": "chat", "path": "/v1/chat/completions", "status": 200,
            "request": {"model": MODEL, "temperature": 0, "messages": row["messages"]},
            "response": {"object": "chat.completion", "model": MODEL, "choices": [choice]},
        }).encode()  # fmt: skip


def gathered(data: Path, noise: float) -> Gathered:
    return gather(traffic(data, noise), Wanted(refusals=True))


def cpu_ms(work: Callable[[Any], object], things: list[Any]) -> list[float]:
    """Processor milliseconds of this thread for each."""
    took = []
    for thing in things:
        began = time.thread_time()
        work(thing)
        took.append(1000 * (time.thread_time() - began))
    return sorted(took)


def takeover(given: argparse.Namespace, console: Console) -> None:
    found = gathered(given.data, given.noise)
    cases = cases_of(found.rows, {})
    model = MiniLmOnnx()
    vectors, _ = vectors_of(cases.texts, model)
    remembered = Remembered(model.name, list(cases.texts), vectors)
    made = {bound: train(cases, Recipe("s", bound=bound), remembered) for bound in given.bounds}
    shown(made, given, console)
    if (student := next((one.student for one in made.values() if one.student is not None), None)) is None:
        return
    sample = list(cases.texts[-400:])
    student.say(model.embed([sample[0]])[0])
    both = cpu_ms(lambda text: student.say(model.embed([text])[0]), sample)
    head = cpu_ms(student.say, list(vectors[-400:]))
    console.print(
        f"the student: p50 {both[200]:.2f} ms, p99 {both[395]:.2f} ms of processor time a request, of which the head "
        f"{head[200]:.3f} ms; {student.weights.nbytes / 1024:.0f} KiB of weights"
    )
    money(made, cases, both[200], given, console)


def shown(made: dict[float, Trained], given: argparse.Namespace, console: Console) -> None:
    table = Table(title=f"teacher's noise {given.noise:.1%}; scored once on the last part")
    heads = ("bound", "proved on", "threshold", "share", "differ", "scored on", "share taken over", "differ (at most)")
    for head in heads:
        table.add_column(head, justify="right")
    for bound, one in made.items():
        if one.student is None:
            table.add_row(f"{bound:.1%}", str(one.facts["parts"]["proved"]), "none", *["–"] * 5)
            continue
        proved, told = one.facts["proved"], one.facts["told"]
        table.add_row(
            f"{bound:.1%}", str(proved["cases"]), f"{proved['threshold']:.3f}", f"{proved['share']:.1%}",
            f"{proved['wrong']} of {proved['answered']}", str(told["cases"]), f"{told['share']:.1%}",
            f"{told['wrong']} of {told['answered']} ({told['upper']:.1%})",
        )  # fmt: skip
    console.print(table)
    facts = next(iter(made.values())).facts
    console.print(f"{facts['labels']} labels, parts {facts['parts']}, left out {facts['left_out']}")


def money(
    made: dict[float, Trained], cases: Cases, student_ms: float, given: argparse.Namespace, console: Console
) -> None:
    tokenizer = Tokenizer()
    tokens = [tokenizer.count_request("chat", dict(row.body), MODEL) for row in cases.rows[-400:]]
    usd = sum(tokens) / len(tokens) * given.usd_in / 1e6 + 5 * given.usd_out / 1e6
    table = Table(title=f"before and after; a teacher's call is declared as {given.teacher_ms:.0f} ms")
    for head in (
        "bound",
        "$ per 1000 calls before",
        "after",
        "after, audits and teaching paid",
        "mean ms before",
        "after",
    ):
        table.add_column(head, justify="right")
    for bound, one in made.items():
        if one.student is None:
            continue
        share = one.facts["told"]["share"]
        serves = 0.98 * share  # 2 % are left to the teacher
        after_ms = given.teacher_ms * (1 - serves) + student_ms  # whom it abstains from has waited for it
        table.add_row(
            f"{bound:.1%}", f"{1000 * usd:.4f}", f"{1000 * usd * (1 - share):.4f}",
            f"{1000 * usd * (1 - serves + 0.05 * serves):.4f}", f"{given.teacher_ms:.0f}", f"{after_ms:.0f}",
        )  # fmt: skip
    console.print(table)


def rivals(given: argparse.Namespace, console: Console) -> None:
    """Other heads on the first 2200 messages alone, by folds; nothing else is looked at."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    cases = cases_of(gathered(given.data, given.noise).rows, {})
    texts, answers = list(cases.texts[:2200]), [row.answer for row in cases.rows[:2200]]
    vectors, _ = vectors_of(texts, MiniLmOnnx())
    wanted = np.unique(answers, return_inverse=True)[1]
    heads: dict[str, Callable[[], Any]] = {
        "logistic regression, C = 3": lambda: LogisticRegression(C=3.0, max_iter=1000),
        "logistic regression, C = 30": lambda: LogisticRegression(C=30.0, max_iter=1000),
        "gradient boosting, 30 rounds": lambda: HistGradientBoostingClassifier(
            max_iter=30, learning_rate=0.1, max_leaf_nodes=7, random_state=0
        ),
    }
    table = Table("head", "accuracy", "share at 1 % wrong", "at 2 %", "at 5 %", "processor s to fit")
    for name, head in heads.items():
        confidence, wrong = np.zeros(len(texts)), np.ones(len(texts), bool)
        began = time.process_time()
        with threadpool_limits(1):
            for rest, own in StratifiedKFold(3, shuffle=True, random_state=0).split(vectors, wanted):
                fitted = head().fit(vectors[rest], wanted[rest])
                found = fitted.predict_proba(vectors[own])
                confidence[own] = found.max(axis=1)
                wrong[own] = fitted.classes_[found.argmax(axis=1)] != wanted[own]
        took_s = time.process_time() - began
        rates = np.cumsum(wrong[np.argsort(-confidence)]) / np.arange(1, len(texts) + 1)
        shares = [float((np.nonzero(rates <= most)[0][-1:] + 1).sum()) / len(texts) for most in (0.01, 0.02, 0.05)]
        table.add_row(name, f"{1 - wrong.mean():.1%}", *[f"{one:.1%}" for one in shares], f"{took_s:.0f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument(
        "--bounds", type=lambda text: [float(one) for one in text.split(",")], default=[0.01, 0.02, 0.05]
    )
    parser.add_argument("--teacher-ms", type=float, default=600.0)
    parser.add_argument("--usd-in", type=float, default=0.15, help="a million tokens (gpt-4o-mini, 2026-11)")
    parser.add_argument("--usd-out", type=float, default=0.60)
    parser.add_argument("--rivals", action="store_true")
    given = parser.parse_args()
    (rivals if given.rivals else takeover)(given, Console(width=150))


if __name__ == "__main__":
    main()
