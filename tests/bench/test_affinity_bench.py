"""The conversations of the affinity bench: what is shared, and what isn't."""

from __future__ import annotations

from bench.affinity import SYSTEM_WORDS, conversations


def test_conversations_of_one_app_share_its_prompt_and_apps_share_nothing_long() -> None:
    begun = conversations(apps=3, each=2, seed=1)
    systems = [said[0]["content"] for said in begun]

    assert len(begun) == 6
    assert systems[:3] == systems[3:]
    assert len(set(systems)) == 3
    assert len(systems[0].split()) > SYSTEM_WORDS
    assert conversations(3, 2, 1) == begun
    assert conversations(3, 2, 2) != begun
