"""What a question asks for, as far as selecting needs to know. Pure.

The word lists are English, but for those that tell that everything is needed: there, a question in one of ten more
languages must not be taken for one that needs little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from farthing.compress.bm25 import Words
from farthing.compress.protected import protected
from farthing.compress.units import Kind

__all__ = ["Question", "read_question"]

_READ_CHARS = 4_000  # the end of a longer question: there, the question itself stands
# Every part is needed for these, so nothing may be left out.
_WHOLE = re.compile(
    r"\b(?:summari[sz]e|summary|overview|outline|translate|rewrite|proofread|convert|reformat|paraphrase|extract"
    r"|(?:list|name|enumerate|compare|describe|explain|show|give|return|find|get|print|collect)(?: me)?"
    r" (?:all|every|each)|list (?:the|of)|all (?:of )?the \w+s|every single|one by one|in order(?! to\b| that\b)"
    r"|in full|complete list|how many times|(?:entire|whole) (?:text|document|log|file|table|list))\b",
    re.IGNORECASE,
)
# And for these in records. In prose, 'how many' and 'the average' ask for a number that is written there.
_COUNTING = re.compile(
    r"\b(?:how (?:many|much|often)|count|number of|sum|total(?:s|ed)?|average|mean|median|percentile|percentage"
    r"|proportion|ratio|share of|fraction|distribution|histogram|deviation|variance|correlation|trends?|group(?:ed)? by"
    r"|per (?:day|hour|minute|user|month|year|category)|for each|distinct|unique|duplicates?"
    r"|(?:most|least) (?:common|frequent|often)|rank(?:ed|ing)?"
    r"|sort(?:ed)?|top \d+|aggregate|list|all|every\w*|each|which (?:\w+ )?(?:are|were|have))\b",
    re.IGNORECASE,
)
_WHOLE_ELSEWHERE = re.compile(
    r"\b(?:zusammenfass\w*|fass\w* .{0,80}zusammen|überblick|übersetz\w*|résum\w+|traduis\w*|aperçu|resumen|resumir"
    r"|tradu[cz]\w*|riassu\w+|riepilog\w*|samenvat\w*|vertaal\w*|streszcz\w*|кратко|перевед\w*|резюм\w*|обобщ\w*)\b"
    r"|总结|概括|概述|翻译|總結|翻譯|要約|まとめ|翻訳|요약|번역",
    re.IGNORECASE,
)
_COUNTING_ELSEWHERE = re.compile(
    r"\b(?:wie ?viele?|wie oft|anzahl|summe|gesamt\w*|durchschnitt\w*|mittelwert|alle[rsnm]?|jede[rsnm]?|sämtliche\w*"
    r"|welche \w+ sind|combien|nombre|somme|moyenne|tous|toutes|chaque|liste\w*|cu[aá]nt[oa]s?|n[uú]mero de|suma"
    r"|promedio|todos|todas|cada|quant[ieo]s?|quante|somma|media|tutt[ie]|ogni|elenca\w*|hoeveel|aantal|gemiddeld\w*"
    r"|elke?|ile|wszystkie|każd\w+|сколько|все|всех|кажд\w+|сумм\w+|средн\w+)\b"
    r"|多少|几个|幾個|所有|全部|每个|每個|总共|总数|平均|いくつ|何件|何個|すべて|全て|合計|몇|모든|합계|평균",
    re.IGNORECASE,
)
# A word with a capital where no sentence begins, which is likely a name.
_NAME = re.compile(r"(?<=[a-z,;:(] )[A-Z][\w'’-]{2,40}(?: [A-Z][\w'’-]{1,40}){0,5}")
_EXTREME = re.compile(
    r"\b(?:(?:high|low|larg|small|bigg|great|long|short|fast|slow|old|young|new|lat|earli|cheap|bright|heavi|light|warm|cold"
    r"|hott|cool|deep|strong|weak|near|clos)\w{0,2}est|most|least|best|worst|max(?:imum)?|min(?:imum)?|peak|top|bottom|first"
    r"|last|exceed\w*|spike\w*|(?:more|less|greater|higher|lower|larger|smaller|longer) than)\b",
    re.IGNORECASE,
)
_TIMELY = re.compile(r"\b(?:latest|newest|earliest|oldest|youngest|first|last|most recent)\b", re.IGNORECASE)
_TROUBLE = re.compile(
    r"\b(?:error|fail|fault|wrong|problem|issue|crash|exception|unhealthy|broken|anomal|odd|unusual|outlier|serious|severe"
    r"|critical|cause|why|spik|stuck|down|timeout|denied|refus|reject|invalid|abnormal|suspicious)",
    re.IGNORECASE,
)
_NUMERIC = re.compile(
    r"\b(?:how (?:many|much|long|old|far|tall|high|deep|large|big|fast|wide|often)|when"
    r"|what (?:year|date|day|time|number|age|percent\w*|amount)"
    r"|(?:which|what) (?:year|century|decade)|population|birthday|average|price|cost)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Question:
    """`folded`: its text without case. `terms`: its words for matching. `literals`: case-folded numbers, identifiers
    and quotations that it names. `names`: case-folded words that look like names.
    `extreme`, `timely`, `trouble`, `numeric`: it asks for the most or the least, for the latest or the earliest, for
    what went wrong, for a number or a date.
    """

    folded: str
    terms: tuple[str, ...]
    literals: tuple[str, ...]
    names: tuple[str, ...]
    extreme: bool
    timely: bool
    trouble: bool
    numeric: bool
    _whole: bool
    _counting: bool

    def needs_all(self, kind: Kind) -> bool:
        """Whether an answer rests on every unit of such a text, so that none may be left out."""
        return self._whole or (self._counting and kind not in ("prose", "documents"))


def read_question(text: str) -> Question:
    """Cost: linear in what is read of the question."""
    text = text[-_READ_CHARS:].strip()
    literals = []
    for span in protected(text):
        if span.kind in ("code", "diff"):
            continue
        held = text[span.start : span.end]
        for piece in held.split(" ") if span.kind == "word" else [held[1:-1]]:
            bare = piece.strip("#.,;:!?()[]{}'\"").casefold()
            if len(bare) > 1 or bare.isdigit():
                literals.append(bare)
    return Question(
        text.casefold(),
        tuple(dict.fromkeys(Words().terms(text))),
        tuple(dict.fromkeys(literals)),
        tuple(dict.fromkeys(name.casefold() for name in _NAME.findall(text))),
        bool(_EXTREME.search(text)),
        bool(_TIMELY.search(text)),
        bool(_TROUBLE.search(text)),
        bool(_NUMERIC.search(text)),
        bool(_WHOLE.search(text) or _WHOLE_ELSEWHERE.search(text)),
        bool(_COUNTING.search(text) or _COUNTING_ELSEWHERE.search(text)),
    )
