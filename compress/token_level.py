"""Words left out one by one, by LLMLingua-2 through its own package, where that and its weights are installed.

Rules of this file:
1. Nothing is fetched: the weights are read from a folder, and remote code is refused.
2. The model only says which words matter less. They are cut from the original text, so what stays is the original's
   own characters in their order, and protected spans come out byte for byte. The package's own output is not used: it
   writes the text anew from tokens, which breaks identifiers apart.
3. torch and the package are imported when a model is loaded, not before.

Source: Pan et al., "LLMLingua-2: Data Distillation for Efficient and Faithful Task-Agnostic Prompt Compression", 2024.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from farthing.compress.protected import protected

__all__ = ["TokenLevel", "TokenLevelMissing"]

# The package tells its two tokenizers apart by the model's name, here the folder's.
_NAMES = ("bert-base-multilingual-cased", "xlm-roberta-large")
_WORD_SEPARATOR, _LABEL_SEPARATOR = "\n", "\t"


class TokenLevelMissing(RuntimeError):
    """The package or the weights aren't there, or aren't what they should be. The operator is to blame."""


class TokenLevel:
    """One loaded model. Not safe for use by several threads at once; takes about a gigabyte with the larger weights."""

    def __init__(self, folder: Path, count: Callable[[str], int]) -> None:
        """`folder`: of the weights, named as the model is. `count`: tokens of a text, by which words are weighed.

        Raises TokenLevelMissing. Effects: reads files; the package seeds torch's and numpy's global random generators.
        """
        if not any(name in folder.name for name in _NAMES):
            raise TokenLevelMissing(f"{folder}: the folder's name must contain {' or '.join(_NAMES)}")
        if not (folder / "config.json").is_file():
            raise TokenLevelMissing(f"{folder}: no model here; weights are never downloaded")
        try:
            self._compressor = _loaded(folder, count)
        except ImportError as error:
            raise TokenLevelMissing(f"install farthing[llmlingua]: {error}") from error
        except (OSError, ValueError) as error:
            raise TokenLevelMissing(f"{folder}: {error}") from error

    def shorten(self, text: str, rate: float) -> str:
        """The text without the words that matter least; about `rate` of its characters stay, of the protected ones all.

        `rate`: 0 to 1. The text itself where what is protected is more than that already. Cost: one pass of the model
        over the text, seconds for 10,000 tokens on a processor.
        """
        safe = [(span.start, span.end) for span in protected(text)]
        held = sum(end - start for start, end in safe)
        free = len(text) - held
        share = (rate * len(text) - held) / free if free else 0.0
        if not 0.0 < share < 1.0:
            return text
        labelled = self._compressor.compress_prompt_llmlingua2(
            [text],
            rate=share,
            return_word_label=True,
            word_sep=_WORD_SEPARATOR,
            label_sep=_LABEL_SEPARATOR,
        )["fn_labeled_original_prompt"]
        return without(text, safe, _dropped(text, labelled))


def without(text: str, safe: Sequence[tuple[int, int]], dropped: Iterable[tuple[int, int]]) -> str:
    """The text without the dropped spans that touch no safe one, and without a space before each. Both are in order."""
    ends = [end for _, end in safe]
    kept: list[str] = []
    at = 0
    for start, end in dropped:
        place = bisect_right(ends, start)
        if place < len(safe) and safe[place][0] < end:
            continue
        floor = max(at, ends[place - 1] if place else 0)
        kept.append(text[at : start - 1 if start > floor and text[start - 1] == " " else start])
        at = end
    kept.append(text[at:])
    return "".join(kept)


def _dropped(text: str, labelled: str) -> Iterator[tuple[int, int]]:
    """The spans of the words labelled 0. A word that the tokenizer spelled otherwise isn't found, and so stays."""
    at = 0
    for entry in labelled.split(_WORD_SEPARATOR):
        word, _, label = entry.rpartition(_LABEL_SEPARATOR)
        place = text.find(word, at, at + len(word) + 64) if word else -1
        if place >= 0:
            at = place + len(word)
            if label == "0" and _whole(text, place, at):
                yield place, at


def _whole(text: str, start: int, end: int) -> bool:
    """Whether no letter or digit touches the span, so that no part of a word is cut."""
    return not (start and text[start - 1].isalnum() and text[start].isalnum()) and not (
        end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    )


def _loaded(folder: Path, count: Callable[[str], int]) -> Any:
    from llmlingua import PromptCompressor

    class Local(PromptCompressor):  # type: ignore[misc]  # the package has no types
        """As the package's own, but its counting of tokens, which would fetch a vocabulary, is ours."""

        def __init__(self) -> None:
            self.model_name = folder.name
            self.use_llmlingua2 = True
            self.cache_bos_num, self.prefix_bos_num = 10, 100
            self.oai_tokenizer = _Counted(count)
            self.load_model(str(folder), "cpu", {"local_files_only": True, "trust_remote_code": False})
            self.init_llmlingua2()

    return Local()


class _Counted:
    """What the package asks of a tokenizer: something as long as a text has tokens."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count

    def encode(self, text: str) -> range:
        return range(self._count(text))
