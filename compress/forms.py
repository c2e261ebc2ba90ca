"""How far a text is shortened, and the shortening of one text. Pure.

A form is a step from gentle to bold: first other words for the same value, then less and less of it. Rules of this
file: a form is used only where it costs fewer tokens by the count of the model that will read it, and each recoding
only where its decoder gives the equal value back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from farthing.compress.blobs import cut_blobs
from farthing.compress.marker import handles, intact, marker
from farthing.compress.recode import Recoded, recode
from farthing.compress.recode_ansi import AnsiRule
from farthing.compress.recode_json import JsonRows
from farthing.compress.recode_log import LogRule
from farthing.compress.recode_table import Tables
from farthing.compress.removed import Handles
from farthing.compress.repeats import encode_repeats
from farthing.compress.rule import Rule
from farthing.compress.tidy import tidied_text

__all__ = [
    "RECODE",
    "RULES",
    "VERSION",
    "Form",
    "Short",
    "described",
    "forms_of",
    "kept_whole",
    "rules_with",
    "shorten",
]

Count = Callable[[str], int]
Mark = Callable[[str, int], str]

VERSION = 1
"""Of all rules together: what was decided and what was proved under another one counts no more."""

RULES: tuple[Rule, ...] = (AnsiRule(), JsonRows(), Tables(), LogRule())
# What squeeze leaves of a text's tokens, from gentle to bold.
_KEEPS = (0.7, 0.5, 0.3)
# Of a text, where single words are left out.
_WORDS_LEFT = 0.7
_SHORT_CHARS = 200  # nothing to be had


class Form(NamedTuple):
    """`rules`: recodings that may be tried. `keep`: the share of tokens that squeeze leaves; None: it leaves all.
    `least_tokens`: that it leaves in any case. `words`: leaves out single words of what squeeze left, given a text and
    the share of it that stays.
    """

    name: str
    rules: tuple[Rule, ...] = RULES
    keep: float | None = None
    least_tokens: int = 0
    words: Callable[[str, float], str] | None = None


RECODE = Form("recode")


def described(form: Form) -> tuple[object, ...]:
    """All of a form that a decision depends on, as plain values."""
    return (form.name, tuple(rule.name for rule in form.rules), form.keep, form.least_tokens)


class Short(NamedTuple):
    """A text made shorter. `rules`: which did it, in their order. `saved`: tokens, by each of them. `removed`: what was
    left out. Tokens: the text's."""

    text: str
    rules: tuple[str, ...]
    tokens_before: int
    tokens_after: int
    saved: tuple[int, ...]
    removed: tuple[str, ...] = ()


def forms_of(
    *,
    recode: bool,
    squeeze_to: float | None,
    least_tokens: int = 0,
    rules: tuple[Rule, ...] = RULES,
    words: Callable[[str, float], str] | None = None,
) -> tuple[Form, ...]:
    """The forms from gentle to bold: recoding where that is wanted, then squeezing as far as to `squeeze_to`, then by
    single words where there is a model for that."""
    gentle = (Form("recode", rules),) if recode else ()
    if squeeze_to is None:
        return gentle
    keeps = sorted({keep for keep in _KEEPS if keep > squeeze_to} | {squeeze_to}, reverse=True)
    bold = [Form(f"squeeze-{keep:g}", rules if recode else (), keep, least_tokens) for keep in keeps]
    if words is not None:
        bold.append(bold[-1]._replace(name=f"words-{squeeze_to:g}", words=words))
    return (*gentle, *bold)


def rules_with(*, html: bool) -> tuple[Rule, ...]:
    """The recodings; with `html` pages are reduced as well, which can't be undone.

    Raises ImportError where the extra `html` isn't installed: the operator's fault.
    """
    if not html:
        return RULES
    import lxml.etree  # noqa: F401 - said at the start, and not with the first page

    from farthing.compress.reduce_html import HtmlRule

    return (HtmlRule(), *RULES)


def kept_whole(form: Form) -> Form:
    """The form without what can only be had again from a store: pages stay pages."""
    return form._replace(rules=tuple(rule for rule in form.rules if rule.name != "html"))


def shorten(
    text: str, question: str, form: Form, count: Count, earlier: Sequence[str] = (), names: Handles | None = None
) -> Short | None:
    """The text in this form; None where tidy alone does as well. Never raises for any text.

    `question`: what is asked about it. `earlier`: the texts of the messages before it, as the model sees them; only
    such as will stay as they are. `names`: given where the model can ask for what was left out: then markers say where
    something was (removed.named_pieces tells what they name), and blobs are left out too.
    """
    if len(text) < _SHORT_CHARS:
        return None
    tidied = tidied_text(text) or text
    if names is None:
        return _shorter(tidied, question, form, count, earlier, None)

    def mark(piece: str, what: str, tokens: int | None = None) -> str:
        return marker(names.of(piece), what, count(piece) if tokens is None else tokens)

    cut = cut_blobs(tidied, mark)
    body = tidied if cut is None else cut[0]
    short = _shorter(body, question, form, count, earlier, partial(mark, tidied))
    if short is not None and not _legible(body, short):
        short = None
    if cut is None:
        return short
    before, after = count(tidied), count(body) if short is None else short.tokens_after
    if after >= before:
        return None
    blobs = before - count(body)
    if short is None:
        return Short(body, ("blobs",), before, after, (blobs,))
    return Short(short.text, ("blobs", *short.rules), before, after, (blobs, *short.saved), short.removed)


def _shorter(
    text: str, question: str, form: Form, count: Count, earlier: Sequence[str], mark: Mark | None
) -> Short | None:
    """`mark`: the marker that names the whole text, given what is left out of it and its tokens."""
    found: Short | None
    if form.keep is None:
        recoded = _recoded(text, form, count, mark)
        found = Short(*recoded) if recoded is not None else None
    else:
        found = _squeezed(text, question, form, count, mark)
    if form.rules and earlier and (repeated := encode_repeats(text, earlier, count)) is not None:
        before, after = count(text), count(repeated)
        if after < (before if found is None else found.tokens_after):
            return Short(repeated, ("repeats",), before, after, (before - after,))
    return found


def _recoded(text: str, form: Form, count: Count, mark: Mark | None) -> Recoded | None:
    """In other words; a page that lost its markup says how to have that."""
    recoded = recode(text, count, form.rules)
    if recoded is None or mark is None or "html" not in recoded.rules:
        return recoded
    marked = f"{recoded.text}\n{mark('the HTML of this page', recoded.tokens_before - recoded.tokens_after)}"
    after = count(marked)
    if after >= recoded.tokens_before:
        return None
    place = recoded.rules.index("html")
    saved = [*recoded.saved]
    saved[place] -= after - recoded.tokens_after
    return recoded._replace(text=marked, tokens_after=after, saved=tuple(saved))


def _squeezed(text: str, question: str, form: Form, count: Count, mark: Mark | None) -> Short | None:
    """What is left, recoded; None where neither makes it shorter."""
    from farthing.compress.squeeze import Target, squeeze

    assert form.keep is not None
    share = max(form.keep, form.least_tokens / max(1, count(text)))
    chosen = squeeze(text, question, Target(min(1.0, share)), count)
    left, shorter = (text, False) if chosen.reason else (chosen.text, chosen.tokens_after < chosen.tokens_before)
    body = left.removeprefix(chosen.notice) if shorter else left
    notice = chosen.notice if shorter else ""
    if shorter and mark is not None:
        what = f"{chosen.units - chosen.kept} of {chosen.units} {chosen.noun}"
        notice = mark(what, chosen.tokens_before - chosen.tokens_after) + "\n"
        left = notice + body
    recoded = _recoded(body, form, count, mark)
    rules, saved = (recoded.rules, recoded.saved) if recoded is not None else ((), ())
    if recoded is None and form.words is not None and (fewer := form.words(body, _WORDS_LEFT)) != body:
        left, rules, saved = notice + fewer, ("words",), (count(body) - count(fewer),)
    if recoded is not None:
        left = notice + recoded.text
    if not (rules or shorter):
        return None
    after = count(left)
    if after >= chosen.tokens_before:
        return None
    if not shorter:
        return Short(left, rules, chosen.tokens_before, after, saved)
    # Joints cost or save a token: what isn't the recodings' is squeeze's.
    saved = (chosen.tokens_before - after - sum(saved), *saved)
    return Short(left, ("squeeze", *rules), chosen.tokens_before, after, saved, chosen.removed)


def _legible(body: str, short: Short) -> bool:
    """Whether the markers of a text can still be read in its short form: recoding may say once what several share."""
    left_out = "squeeze" in short.rules or "repeats" in short.rules
    return intact(short.text) and (left_out or set(handles(body)) <= set(handles(short.text)))
