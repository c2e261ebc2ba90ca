"""How the semantic cache's policy is had from its configuration, and what its evidence hangs on."""

from __future__ import annotations

import hashlib

from farthing.cache.verifier_model import MODEL, VERSION
from farthing.policies import agree_measured, judge
from farthing.policies.agree_measured import comparator
from farthing.policies.ladder import Ladder
from farthing.policies.reuse import Bound, Policy
from farthing.policies.static import Static
from farthing.policies.vcache import VCache
from farthing.policies.verified import Settings, Verified
from farthing.proxy.config import Semantic
from farthing.proxy.learnt import Recipe

__all__ = ["PRIOR", "REUSE", "made_with", "new_policy"]

# Where the tests of a route begin: scores of the verifier that ships, and how much of the level lies on each. Chosen on
# the texts that it learned from, before any label of any route is seen, so that none is used up for choosing.
PRIOR = Ladder((0.88, 0.84, 0.80, 0.70, 0.50), (0.1, 0.5, 0.2, 0.1, 0.1))


def new_policy(semantic: Semantic) -> Policy:
    """The policy that the configuration asks for, knowing nothing yet."""
    bound = Bound(semantic.max_wrong, semantic.per, semantic.confidence)
    if semantic.unproven:
        return Static(semantic.threshold, on="score", bound=bound, mode=semantic.mode, audit_share=semantic.audit_share)
    if semantic.policy == "vcache":
        return VCache(bound, mode=semantic.mode)
    floor = min(semantic.audit_share, 0.01)
    share = semantic.audit_share
    return Verified(
        Settings(bound, semantic.mode, comparator=comparator(), audit_share=share, audit_floor=floor, prior=PRIOR)
    )


def kind(semantic: Semantic) -> str:
    """Which policy it is."""
    return "static" if semantic.unproven else semantic.policy


def made_with(semantic: Semantic) -> str:
    """What the evidence hangs on."""
    scorer = "guard" if semantic.unproven else f"{VERSION}/{hashlib.sha256(MODEL.read_bytes()).hexdigest()[:8]}"
    evidence = f"{scorer} {semantic.model} {agree_measured.VERSION}"
    if semantic.second_stage == "off":
        return evidence
    low, high = semantic.judge_band
    return f"{evidence} {semantic.second_stage} {judge.VERSION} {low:g}-{high:g}"


REUSE: Recipe[Semantic] = Recipe(
    about="near-duplicates",
    file=lambda semantic: f"reuse-{kind(semantic)}.json",
    kind=kind,
    made_with=made_with,
    new=new_policy,
    off=lambda semantic: semantic.mode == "off",
)
