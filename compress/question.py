"""What a question asks for, as far as selecting needs to know. Pure; the word lists are English."""

from __future__ import annotations

import re
from dataclasses import dataclass

from farthing.compress.bm25 import terms
from farthing.compress.protected import protected
from farthing.compress.units import Kind

__all__ = ["Question", "read_question"]

_READ_CHARS = 4_000  # the end of a longer question: there, the question itself stands
# Every record is needed for these, so nothing may be left out. In prose, 'how many' asks for a number that is written
# there; in records it asks for a count.
_WHOLE = re.compile(
    r"\b(?:summari[sz]e|summary|overview|outline|translate|rewrite|proofread|convert|reformat|paraphrase|extract all"
    r"|list (?:all|every|each|the|of)|name (?:all|every|each)|(?:enumerate|compare|describe|explain|show|give|return|find|get|print)"
    r" (?:me )?(?:all|every|each)|all (?:of )?the|every(?:thing| (?:single )?\w+)|for each|one by one|in order|in full|complete list"
    r"|entire|whole (?:text|document|log|file|table|list)|how many times)\b",
    re.IGNORECASE,
)
_COUNTING = re.compile(
    r"\b(?:how (?:many|much|often)|count|number of|sum|total(?:s|ed)?|average|mean|median|percentile|percentage|proportion"
    r"|ratio|share of|fraction|distribution|histogram|standard deviation|variance|correlation|trend\w*|group(?:ed)? by"
    r"|per (?:day|hour|minute|user|month|year|category)|distinct|unique|duplicates?|most (?:common|frequent|often)"
    r"|least (?:common|frequent|often)|rank(?:ed|ing)?|sort(?:ed)?|top \d+|aggregate|list|all|any|which (?:\w+ )?(?:are|were|have)\b)\b",
    re.IGNORECASE,
)
_EXTREME = re.compile(
    r"\b(?:(?:high|low|larg|small|bigg|great|long|short|fast|slow|old|young|new|lat|earli|cheap|bright|heavi|light|warm|cold"
    r"|hott|cool|deep|strong|weak|near|clos)\w{0,2}est|most|least|best|worst|max(?:imum)?|min(?:imum)?|peak|top|bottom|first"
    r"|last|exceed\w*|spike\w*|(?:more|less|greater|higher|lower|larger|smaller|longer) than)\b",
    re.IGNORECASE,
)
_TROUBLE = re.compile(
    r"\b(?:error|fail|fault|wrong|problem|issue|crash|exception|unhealthy|broken|anomal|odd|unusual|outlier|serious|severe"
    r"|critical|cause|why|spik|stuck|down|timeout|denied|refus|reject|invalid|abnormal|suspicious)",
    re.IGNORECASE,
)
_NUMERIC = re.compile(
    r"\b(?:how (?:many|much|long|old|far|tall|high|deep|large|big|fast|wide|often)|when|what (?:year|date|day|time|number|age"
    r"|percent\w*|amount)|(?:which|what) (?:year|century|decade)|population|birthday|average|price|cost)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Question:
    """`terms`: its words for matching. `literals`: case-folded numbers, identifiers and quotations that it names.
    `extreme`, `trouble`, `numeric`: it asks for the most or the least, for what went wrong, for a number or a date.
    """

    terms: tuple[str, ...]
    literals: tuple[str, ...]
    extreme: bool
    trouble: bool
    numeric: bool
    _whole: bool
    _counting: bool

    def needs_all(self, kind: Kind) -> bool:
        """Whether an answer rests on every unit of such a text, so that none may be left out."""
        return self._whole or (kind not in ("prose", "lines") and self._counting) or (kind == "lines" and self._counting and not self.literals)


def read_question(text: str) -> Question:
    """Cost: linear in what is read of the question."""
    text = text[-_READ_CHARS:].strip()
    literals = []
    for span in protected(text):
        if span.kind in ("code", "diff"):
            continue
        for piece in text[span.start : span.end].split(" ") if span.kind == "word" else [text[span.start + 1 : span.end - 1]]:
            bare = piece.strip("#.,;:!?()[]{}'\"").casefold()
            if len(bare) > 1 or bare.isdigit():
                literals.append(bare)
    return Question(
        tuple(dict.fromkeys(terms(text))),
        tuple(dict.fromkeys(literals)),
        bool(_EXTREME.search(text)),
        bool(_TROUBLE.search(text)),
        bool(_NUMERIC.search(text)),
        bool(_WHOLE.search(text)),
        bool(_COUNTING.search(text)),
    )
