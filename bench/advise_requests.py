"""A file of requests for `farthing compress advise`: the demo's questions behind one wordy system prompt.

    python -m bench.advise_requests > requests.jsonl

An app that sorts questions of a bank's customers; each request asks for one of four words, by llama.cpp's grammar, so
that a very small model can be asked too.
"""

from __future__ import annotations

import json
from importlib.resources import files

TEAMS = ("cards", "payments", "accounts", "security")
PROMPT = """# Support triage

You are a helpful, friendly, professional and knowledgeable assistant. In order to be able to help our customers in \
the best possible way, it is necessary for you to read all of the following instructions carefully.

Please note that your task is to sort each message of a customer to the one team that answers it.

- **cards**: anything about getting, linking, activating or replacing a card.
- **payments**: anything about a payment, a transfer, a top-up, a fee or an exchange rate.
- **accounts**: anything about opening, verifying or closing an account, or about personal details.
- **security**: anything about a lost or stolen card, a PIN, a passcode or a payment that the customer didn't make.

You are a helpful, friendly, professional and knowledgeable assistant.

---

## How to answer

It is important to note that the customer experience is the thing that matters the most to us as a company. \
Please keep in mind that you should read the whole message before you decide. Please answer with the name of the \
team alone. You must never answer the question itself. Please note that each and every message goes to exactly \
one team, whether or not it mentions several topics. In the event that a message is about a stolen card, the team is \
always security.

You must never answer the question itself. You are a helpful, friendly, professional and knowledgeable assistant.

---

## Before you answer

In order to be able to help our customers in the best possible way, it is necessary for you to read all of the \
following instructions carefully. Due to the fact that customers write in a hurry, their messages may have mistakes. \
Please make sure that you understand what the customer means. You must never answer the question itself. \
You are a helpful, friendly, professional and knowledgeable assistant.

Thank you very much in advance for your help!"""


def main() -> None:
    """Write one request a line to standard output."""
    text = (files("farthing.proxy") / "workload" / "banking.jsonl").read_text("utf-8")
    grammar = "root ::= " + " | ".join(f'"{team}"' for team in TEAMS)
    for line in text.splitlines():
        question = json.loads(line)["text"]
        turns = [{"role": "system", "content": PROMPT}, {"role": "user", "content": question}]
        body = {"model": "smollm2-135m-instruct", "messages": turns, "max_tokens": 8, "grammar": grammar}
        print(json.dumps({"body": body, "path": "/v1/chat/completions"}))


if __name__ == "__main__":
    main()
