"""What a span says of an exchange's texts where `otlp.content` is on: looked through, and cut to a bound. Pure but for
redaction's clock.

Rules of this file: it belongs to the process that sends; nothing leaves it before the capture store's own redaction,
under the capture store's own settings, has looked through it; what can't be looked through is left out, and the span
says so. Each attribute is whole JSON, however much of it had to go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from farthing.cache.exact_json import dumps, loads
from farthing.proxy.capture import redactor_of
from farthing.proxy.capture_record import Said, is_chosen, whole
from farthing.proxy.clock import Clock
from farthing.proxy.config_capture import Capture
from farthing.proxy.otlp_cut import as_far_as_it_came
from farthing.proxy.otlp_parts import answered, asked
from farthing.proxy.redact import Unredacted
from farthing.proxy.row import Row

__all__ = ["LEFT_OUT", "Content", "Value", "bounded"]

Value = str | bool | list[str]

LEFT_OUT = "farthing.content.left_out"
"""Why there is no content, or no answer among it: redaction, unreadable, answer."""
_CUT = "farthing.content.cut"
_FINISH_REASONS = "gen_ai.response.finish_reasons"
_OUTPUT, _INPUT = "gen_ai.output.messages", "gen_ai.input.messages"
_INSTRUCTIONS, _TOOLS = "gen_ai.system_instructions", "gen_ai.tool.definitions"
_LEAST_CHARS = 64  # that a text is cut to, before whole messages go
_WORTH: Mapping[str, Callable[[int], dict[str, Any]]] = {
    _OUTPUT: lambda count: {"role": "farthing", "parts": [{"type": "left_out", "messages": count}]},
    _INPUT: lambda count: {"role": "farthing", "parts": [{"type": "left_out", "messages": count}]},
    _INSTRUCTIONS: lambda count: {"type": "left_out", "parts": count},
    _TOOLS: lambda count: {"type": "left_out", "name": f"{count} tools"},
}
"""What goes last comes first; with each, what stands for so many that are gone."""


class Content:
    """Makes attributes of texts. `most_bytes`: of all of a span's together. Belongs to one thread."""

    def __init__(self, most_bytes: int, secret: bytes, clock: Clock) -> None:
        self._most = most_bytes
        self._secret = secret
        self._clock = clock
        self._chosen = Capture()
        self._redactor = redactor_of(self._chosen, secret, clock)

    def use(self, chosen: Capture) -> None:
        """Choose and look through as these settings say from now on."""
        if chosen != self._chosen:
            self._chosen, self._redactor = chosen, redactor_of(chosen, self._secret, self._clock)

    def of(self, said: Said, row: Row) -> dict[str, Value]:
        """The attributes; none where the conversation isn't in the share, or the conventions know no content of it.

        Never raises for what a body holds: `LEFT_OUT` says why there is nothing.
        """
        try:
            return self._of(said, row)
        except Unredacted:
            return {LEFT_OUT: "redaction"}
        except (ValueError, TypeError, RecursionError):
            return {LEFT_OUT: "unreadable"}

    def _of(self, said: Said, row: Row) -> dict[str, Value]:
        request = loads(said.request)
        if not isinstance(request, dict):
            raise ValueError("the body is not a JSON object")
        if not is_chosen(row.tenant, request, self._chosen.share):
            return {}
        instructions, messages, tools = asked(row.endpoint, request)
        if not messages:
            return {}
        answer = said.answer
        output = answered(row.endpoint, whole(answer, row.endpoint))
        if answer is not None and not output and answer.lstrip()[:1] not in (b"{", b"["):
            output = as_far_as_it_came(answer, row.endpoint)
        clean = self._redactor.clean
        lists = clean(output, messages, instructions, tools)
        read = [_read(one) for one in (*lists[0], *lists[1])]
        if any(read):
            lists = clean(*lists)  # what stood there in escapes, such as an at sign
        parts = {name: _sound(each) for name, each in zip(_WORTH, lists, strict=True) if each}
        texts, cut = bounded(parts, self._most)
        told: dict[str, Value] = {**texts}
        if _OUTPUT in parts:
            told[_FINISH_REASONS] = [one["finish_reason"] for one in parts[_OUTPUT]]
        if cut:
            told[_CUT] = True
        if answer is None:
            told[LEFT_OUT] = "answer"
        return told


def bounded(told: Mapping[str, list[Any]], most_bytes: int) -> tuple[dict[str, str], bool]:
    """Each list as JSON, at most so many bytes in all; and whether anything had to go.

    The longest texts are cut first, all to one length. Where that isn't enough the oldest messages go, those of the
    answer last. Raises TypeError: too deep.
    """
    texts = {name: dumps(each) for name, each in told.items()}
    if _size(texts) <= most_bytes:
        return {name: each.decode() for name, each in texts.items()}, False
    flat = {name: [_flat(one) for one in each] for name, each in told.items()}
    if _size(_cut_to(flat, _LEAST_CHARS)) > most_bytes:
        return {name: each.decode() for name, each in _newest(flat, most_bytes).items()}, True
    fits, beyond = _LEAST_CHARS, most_bytes
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if _size(_cut_to(flat, middle)) <= most_bytes:
            fits = middle
        else:
            beyond = middle
    return {name: each.decode() for name, each in _cut_to(flat, fits).items()}, True


def _size(texts: Mapping[str, bytes]) -> int:
    return sum(map(len, texts.values()))


def _cut_to(told: Mapping[str, list[Any]], chars: int) -> dict[str, bytes]:
    return {name: dumps(_shortened(each, chars)) for name, each in told.items()}


def _newest(told: Mapping[str, list[Any]], most_bytes: int) -> dict[str, bytes]:
    """The last of each list, in the order of their worth, as many as there is room for."""
    room, kept = most_bytes, dict[str, bytes]()
    for name, mark in _WORTH.items():
        each = [dumps(_shortened(one, _LEAST_CHARS)) for one in told.get(name, ())]
        if not each:
            continue
        if sum(map(len, each)) + len(each) + 1 > room:
            sizes, left = 0, len(each)
            while left and sizes + len(each[left - 1]) + 100 < room:
                left -= 1
                sizes += len(each[left]) + 1
            each = [dumps(mark(left)), *each[left:]]
        whole_list = b"[" + b",".join(each) + b"]"
        if len(whole_list) <= room:
            kept[name] = whole_list
            room -= len(whole_list)
    return kept


def _shortened(value: Any, chars: int) -> Any:
    """The value with every text cut to so many characters, and a mark that says how many are gone."""
    if isinstance(value, str):
        return value if len(value) <= chars else f"{value[:chars]}… [cut: {len(value) - chars} characters]"
    if isinstance(value, list):
        return [_shortened(one, chars) for one in value]
    if isinstance(value, dict):
        return {name: _shortened(one, chars) for name, one in value.items()}
    return value


def _flat(value: Any) -> Any:
    """The message with what may have any shape turned into JSON text, which can be cut."""
    if not isinstance(value, dict):
        return value
    if "parts" in value:
        return value | {"parts": [_flat(one) for one in value["parts"]]}
    return {
        name: dumps(one).decode() if name in ("arguments", "response") and not isinstance(one, str) else one
        for name, one in value.items()
    }


def _read(message: Any) -> bool:
    """Put in place of arguments that a model wrote as JSON text what they say; whether there were any.

    To be done after redaction, which doesn't look at numbers.
    """
    found = False
    for part in message["parts"]:
        if part["type"] == "tool_call" and isinstance(part["arguments"], str):
            try:
                part["arguments"] = loads(part["arguments"].encode())
            except (ValueError, RecursionError):  # stays the text that it is
                continue
            found = True
    return found


def _sound(value: Any) -> Any:
    """The value as UTF-8 can hold it: a lone surrogate becomes `?`."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_sound(one) for one in value]
    if isinstance(value, dict):
        return {_sound(name): _sound(one) for name, one in value.items()}
    return value
