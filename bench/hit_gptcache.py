"""GPTCache itself on the held-out streams, in an environment of its own; its results as lines of JSON.

    python -m venv elsewhere && elsewhere/bin/pip install gptcache==0.1.44 faiss-cpu sqlalchemy
    python -m bench.hit_gptcache --dump texts.npz         (with farthing's environment: texts, classes, vectors, orders)
    elsewhere/bin/python bench/hit_gptcache.py texts.npz

Its way of use is that of its README: the last message's text is the key, SQLite and FAISS keep it, the search distance
judges. Its threshold t stands for a cosine of 2t - 1; the default, 0.8, for 0.6.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

THRESHOLDS = (0.8, 0.9, 0.95, 0.975, 0.995)
STREAMS = ("adv", "qa", "conv", "tenant")
SHUFFLES = 5


def dump(path: Path, folder: Path) -> None:
    """Everything that the other environment needs, in one file."""
    from bench.hit_rate import RESULTS
    from bench.hit_traffic import Traffic, held_out, orders
    from bench.verifier_data import Vectors
    from farthing.cache.embedder import open_embedder

    vectors = Vectors(open_embedder("minilm-int8"), RESULTS / "hit_vectors.npz")
    kept = {}
    for stream, rows in held_out(folder, vectors).items():
        if stream in STREAMS:
            rows = [one for one in rows if vectors.of(one.text) is not None]
            kept[f"{stream}_texts"] = np.array([one.text for one in rows])
            kept[f"{stream}_answers"] = np.array([one.answer for one in rows])
            kept[f"{stream}_walls"] = np.array(["|".join(one.walls) for one in rows])
            kept[f"{stream}_vectors"] = np.array([vectors.of(one.text) for one in rows])
            kept[f"{stream}_orders"] = np.array([*orders(Traffic(stream, tuple(rows)), SHUFFLES)])
    np.savez(path, **kept)


def replay(kept: dict[str, np.ndarray], stream: str, order: np.ndarray, threshold: float) -> tuple[int, int, int]:
    """Hits, wrong ones, and those from behind a wall, of one order."""
    from gptcache import Cache, Config
    from gptcache.adapter.api import get, put
    from gptcache.manager import CacheBase, VectorBase, get_data_manager
    from gptcache.processor.pre import get_prompt
    from gptcache.similarity_evaluation import SearchDistanceEvaluation

    texts, answers, walls = (kept[f"{stream}_{what}"].tolist() for what in ("texts", "answers", "walls"))
    known = dict(zip(texts, kept[f"{stream}_vectors"], strict=True))
    hits = wrong = crossed = 0
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache()
        store = CacheBase("sqlite", sql_url=f"sqlite:///{folder}/cache.db")
        index = VectorBase("faiss", dimension=384, index_path=f"{folder}/faiss.index")
        cache.init(
            pre_embedding_func=get_prompt,
            embedding_func=lambda text, **_: known[text],
            data_manager=get_data_manager(store, index, max_size=100_000),
            similarity_evaluation=SearchDistanceEvaluation(),
            config=Config(similarity_threshold=threshold),
        )
        for number in order:
            found = get(texts[number], cache_obj=cache)
            if found is None:
                put(texts[number], str(number), cache_obj=cache)
            else:
                hits += 1
                wrong += answers[int(found)] != answers[number]
                crossed += walls[int(found)] != walls[number]
    return hits, wrong, crossed


def main(arguments: list[str]) -> None:
    if arguments[0] == "--dump":
        dump(Path(arguments[1]), Path(arguments[2] if len(arguments) > 2 else "../shared/data/semcache"))
        return
    with np.load(arguments[0], allow_pickle=False) as held:
        kept = dict(held)
    for stream in STREAMS:
        for threshold in THRESHOLDS:
            orders = kept[f"{stream}_orders"]
            found = [replay(kept, stream, order, threshold) for order in orders]
            hits, wrong, crossed = (sum(column) for column in zip(*found, strict=True))
            row = {"stream": stream, "threshold": threshold, "requests": int(orders.size), "hits": hits}
            print(json.dumps(row | {"wrong": wrong, "crossed": crossed}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
