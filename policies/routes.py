"""Which route a request takes: the first whose conditions it meets. Pure, but for what `RouteTable` remembers.

Rules of this file: conditions are and-ed, what a route leaves out matches everything, patterns are the shell's
(`*`, `?`, `[...]`) and case counts. What is asked of a request stands in `Facts`, made once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate
from typing import Any, Literal, NamedTuple

from farthing.policies.accept import Accept
from farthing.policies.size import Size
from farthing.policies.variant import Needs, Variant
from farthing.proxy.exchange import Endpoint

__all__ = ["PROVED", "Conditions", "Facts", "Route", "RouteTable", "Strategy", "contains", "facts_of", "never_matched"]

Strategy = Literal["fixed", "weighted", "cheapest", "fastest", "balanced", "cascade"]
PROVED = "|proved"
"""How the promise of a route ends whose bound has to be proved before it serves."""
_SPECIAL = frozenset("*?[")
_ROUTED = tuple(one.value for one in Endpoint if one not in (Endpoint.OTHER, Endpoint.EMBEDDINGS))
_ENDLESS = float("inf")
_REMEMBERED = 1024  # names of models; clients choose them
_IMAGES = frozenset({"image_url", "input_image", "image"})
_AUDIO = frozenset({"input_audio", "audio"})
_FILES = frozenset({"file", "input_file", "document"})
_OUTPUT_LOGPROBS = "message.output_text.logprobs"
_OF_INPUT = frozenset({Endpoint.RESPONSES, Endpoint.EMBEDDINGS})
_OF_TOKENS = frozenset({Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})  # whose texts may come as numbers of tokens
_CLIENTS_TOOLS = frozenset({"function", "custom"})  # any other type is a tool that the provider made


class Facts(NamedTuple):
    """What of a request decides about its route. `tags`: `NAME=VALUE`. `stateful`: it refers to, or leaves behind,
    something that only one upstream has."""

    model: str
    endpoint: str
    needs: Needs
    tags: tuple[str, ...] = ()
    tenant: str = ""
    stateful: bool = False


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a route asks of a request; empty or None: nothing. `max_tokens_in` 0: no limit. `tenant`: as `Facts.tenant`
    or the beginning of it."""

    model: str = ""
    tag: str = ""
    tenant: str = ""
    endpoint: str = ""
    min_tokens_in: int = 0
    max_tokens_in: int = 0
    tools: bool | None = None
    images: bool | None = None
    _tests: tuple[Callable[[Facts], bool], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Only what is asked is looked at."""
        object.__setattr__(self, "_tests", tuple(self._each()))

    @property
    def plain_tag(self) -> str:
        """The tag that is asked for; '' where it is none, or a pattern."""
        return "" if _SPECIAL & set(self.tag) else self.tag

    def of_model(self, model: str) -> bool:
        """Whether requests for that model may meet them."""
        return not self.model or bool(_pattern(self.model)(model))

    def beside_model(self, facts: Facts) -> bool:
        """Whether the request meets all but the model's."""
        for test in self._tests:  # noqa: SIM110 - a generator would cost more than the tests
            if not test(facts):
                return False
        return True

    def holds(self, facts: Facts) -> bool:
        """Whether the request meets them all."""
        return self.of_model(facts.model) and self.beside_model(facts)

    def _each(self) -> list[Callable[[Facts], bool]]:
        tests: list[Callable[[Facts], bool]] = []
        if self.endpoint:
            tests.append(lambda facts: facts.endpoint == self.endpoint)
        else:  # vectors of one model mean nothing to another: embeddings are routed only where it is said
            tests.append(lambda facts: facts.endpoint != "embeddings")
        if self.tools is not None:
            tests.append(lambda facts: facts.needs.tools is self.tools)
        if self.images is not None:
            tests.append(lambda facts: facts.needs.images is self.images)
        if self.min_tokens_in or self.max_tokens_in:
            most = self.max_tokens_in or float("inf")
            tests.append(lambda facts: self.min_tokens_in <= facts.needs.tokens_in <= most)
        if self.tenant:
            tests.append(lambda facts: facts.tenant.startswith(self.tenant))
        if self.plain_tag:
            tests.append(lambda facts: self.tag in facts.tags)
        elif self.tag:
            tag = _pattern(self.tag)
            tests.append(lambda facts: any(tag(said) for said in facts.tags))
        return tests


@dataclass(frozen=True, slots=True)
class Route:
    """See config_routes.RouteSection; variants are resolved. `serves`: it may, once it is proved where it has to be.
    `trusted`: it serves on its operator's word. `signature`: what of it can change an answer."""

    name: str
    conditions: Conditions
    strategy: Strategy
    variants: tuple[Variant, ...]
    serves: bool = False
    weights: tuple[float, ...] = ()
    min_quality: float = 0.0
    usd_per_s: float = 0.0
    fallbacks: tuple[Variant, ...] = ()
    on: frozenset[str] = frozenset()
    accept: Accept = field(default_factory=Accept)
    hedge_after_s: float = 0.0
    hedge_share: float = 0.0
    signature: str = ""
    max_worse: float | None = None
    trusted: bool = True
    promise: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """The promise is what is proved, and by what: what was proved while it observed holds where it may serve by
        that; an operator's own word is apart."""
        proved = "" if self.trusted else PROVED
        object.__setattr__(self, "promise", f"{self.name}|{self.signature}|{self.max_worse}{proved}")


class _OfModel(NamedTuple):
    """Which routes a model's requests may take, by their places in order. `by_tag`: of those that ask for just that
    tag; `rest`: of all others."""

    by_tag: dict[str, list[int]]
    rest: list[int]

    def places(self, tags: Sequence[str]) -> Sequence[int]:
        """Of a request with these tags."""
        tagged = [place for tag in tags if tag in self.by_tag for place in self.by_tag[tag]]
        return sorted({*tagged, *self.rest}) if tagged else self.rest


class RouteTable:
    """The routes in their order. Which of them are for a model is worked out once for each model's name."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._of_model: dict[str, _OfModel] = {}

    def match(self, facts: Facts) -> Route | None:
        """The first route that the request takes; None: it goes where it was sent."""
        if facts.stateful:
            return None
        few = self._of_model.get(facts.model)
        if few is None:
            few = self._few(facts.model)
            if len(self._of_model) < _REMEMBERED:
                self._of_model[facts.model] = few
        for place in few.places(facts.tags):
            if self.routes[place].conditions.beside_model(facts):
                return self.routes[place]
        return None

    def _few(self, model: str) -> _OfModel:
        few = _OfModel({}, [])
        for place, route in enumerate(self.routes):
            if route.conditions.of_model(model):
                tag = route.conditions.plain_tag
                (few.by_tag.setdefault(tag, []) if tag else few.rest).append(place)
        return few


def never_matched(conditions: Sequence[Conditions]) -> list[tuple[int, tuple[int, ...]]]:
    """(later, those earlier) for each route that never gets a request, since earlier ones, together, take all that it
    would.

    Sure ones only: two patterns that merely happen to meet the same names are not found.
    """
    found: list[tuple[int, tuple[int, ...]]] = []
    for later, below in enumerate(conditions):
        wide = [place for place in range(later) if _takes_whom(conditions[place], below)]
        alone = next((place for place in wide if _takes_all([conditions[place]], below)), None)
        if alone is not None:
            found.append((later, (alone,)))
        elif _takes_all([conditions[place] for place in wide], below):
            found.append((later, tuple(wide)))
    return found


def contains(wide: Conditions, narrow: Conditions) -> bool:
    """Whether all that `narrow` takes is surely what `wide` takes too."""
    return _takes_whom(wide, narrow) and _takes_all([wide], narrow)


def facts_of(
    endpoint: Endpoint, payload: dict[str, Any], tags: Sequence[tuple[str, str]], tenant: str, *, never_chained: bool
) -> Facts:
    """The facts of a request. `never_chained`: the operator's word that no Responses call refers to an earlier one.

    Cost: one look at each message and each part of it.
    """
    get = payload.get
    size = Size()
    turns = get("input") if endpoint in _OF_INPUT else get("messages") or get("prompt")
    shown = _said(turns, size)
    if endpoint in _OF_TOKENS and type(turns) is list:
        size.counted(sum(type(one) is int for one in turns) + sum(len(one) for one in turns if type(one) is list))
    for name in ("system", "instructions"):
        if more := get(name):
            _said(more, size)
    tools = get("tools") or get("functions")
    if tools:
        size.text(str(tools))
    modalities = get("modalities")
    most_out = get("max_completion_tokens") or get("max_tokens") or get("max_output_tokens") or 0
    needs = Needs(size.tokens, most_out if type(most_out) is int and most_out > 0 else 0, size=size)
    if tools:
        needs.tools, needs.hosted = True, _hosted(tools)
    if shown:
        needs.images = not shown.isdisjoint(_IMAGES)
        needs.audio = not shown.isdisjoint(_AUDIO)
        needs.files = not shown.isdisjoint(_FILES)
    if type(modalities) is list and "audio" in modalities:
        needs.audio = True
    if get("web_search_options") is not None or get("mcp_servers"):
        needs.hosted = True
    needs.json = _wants_json(payload)
    needs.logprobs = bool(get("logprobs")) or (type(more := get("include")) is list and _OUTPUT_LOGPROBS in more)
    stateful = endpoint == "responses" and (
        bool(get("previous_response_id") or get("conversation") or get("background"))
        or not (never_chained or get("store") is False)
    )
    model = get("model")
    said = tuple([f"{name}={value}" for name, value in tags]) if tags else ()
    return Facts(model if type(model) is str else "", endpoint._value_, needs, said, tenant, stateful)


def _wants_json(payload: dict[str, Any]) -> bool:
    wanted = payload.get("response_format")
    if wanted is None:
        text = payload.get("text")  # of the Responses API
        wanted = text.get("format") if type(text) is dict else None
    return type(wanted) is dict and wanted.get("type") in ("json_object", "json_schema")


def _hosted(tools: Any) -> bool:
    """Whether one of the tools is the provider's own."""
    if type(tools) is not list:
        return False
    kinds = [tool.get("type") for tool in tools if type(tool) is dict]
    return any(type(kind) is str and kind not in _CLIENTS_TOOLS for kind in kinds)


def _said(turns: Any, size: Size) -> set[str]:
    """The types of all parts: what is shown. `size`: all that is said is added."""
    shown: set[str] = set()
    if type(turns) is str:
        size.text(turns)
        return shown
    texts: list[str] = []
    count = 0
    for turn in turns if type(turns) is list else ():
        if type(turn) is dict:
            count += 1
            if len(turn) == 2 and "role" in turn and type(content := turn.get("content")) is str:  # as most are
                texts.append(content)
            else:
                _turn(turn, size, shown)
        elif type(turn) is str:
            texts.append(turn)
    size.texts(texts)
    size.turns(count)
    return shown


def _turn(turn: dict[str, Any], size: Size, shown: set[str]) -> None:
    content = turn.get("content")
    if type(content) is str:
        size.text(content)
    elif type(content) is list:
        _parts(content, size, shown)
    if (calls := turn.get("tool_calls")) or (calls := turn.get("arguments")):
        size.text(calls if type(calls) is str else str(calls))
    elif type(output := turn.get("output")) is list:
        _parts(output, size, shown)
    elif output:
        size.text(output if type(output) is str else str(output))
    elif type(text := turn.get("text")) is str:  # a system prompt in blocks
        size.text(text)
    if turn.get("audio"):  # what the model said aloud before
        shown.add("audio")


def _parts(parts: list[Any], size: Size, shown: set[str], *, deeper: bool = True) -> None:
    """What the parts of a turn say, and their types; a tool's result has parts too."""
    for part in parts:
        if type(part) is not dict:
            continue
        if type(kind := part.get("type")) is str:
            shown.add(kind)
            if kind in _IMAGES:
                size.image(part)
                continue
            if kind in _FILES:
                size.document(part)
                continue
            if kind in _AUDIO:
                size.audio(part)
        text = part.get("text") or part.get("content") or part.get("input")
        if type(text) is str:
            size.text(text)
        elif type(text) is list and deeper:
            _parts(text, size, shown, deeper=False)
        elif text:
            size.text(str(text))


def _pattern(pattern: str) -> Callable[[str], object]:
    if not _SPECIAL & set(pattern):
        return pattern.__eq__
    return re.compile(translate(pattern)).match


def _takes_whom(earlier: Conditions, later: Conditions) -> bool:
    """Whether it asks for no other model, tag or tenant."""
    return (
        _covers(earlier.model, later.model)
        and _covers(earlier.tag, later.tag)
        and later.tenant.startswith(earlier.tenant)
    )


def _takes_all(earlier: Sequence[Conditions], later: Conditions) -> bool:
    """Whether these, together, leave no request of any kind and length for `later`. Their `_takes_whom` holds."""
    for endpoint in [later.endpoint] if later.endpoint else _ROUTED:
        for tools in (True, False) if later.tools is None else (later.tools,):
            for images in (True, False) if later.images is None else (later.images,):
                lengths = [
                    (one.min_tokens_in, one.max_tokens_in or _ENDLESS)
                    for one in earlier
                    if (one.endpoint or (endpoint != "embeddings" and endpoint)) == endpoint
                    and one.tools in (None, tools)
                    and one.images in (None, images)
                ]
                if not _cover(lengths, max(1, later.min_tokens_in), later.max_tokens_in or _ENDLESS):
                    return False
    return True


def _cover(lengths: Sequence[tuple[int, float]], least: int, most: float) -> bool:
    """Whether every whole number from `least` to `most` lies in one of them."""
    reached: float = least - 1
    for begins, ends in sorted(lengths):
        if begins > reached + 1:
            return False
        reached = max(reached, ends)
        if reached >= most:
            return True
    return reached >= most


def _covers(wide: str, narrow: str) -> bool:
    """Whether every name that the pattern `narrow` fits is surely one that `wide` fits."""
    if not wide or wide == "*" or wide == narrow:
        return True
    if not narrow:
        return False
    if not _SPECIAL & set(narrow):
        return fnmatchcase(narrow, wide)
    # A star of `narrow` may stand for anything, and only a star of `wide` takes it as a character.
    return "?" not in wide and "[" not in wide and "[" not in narrow and fnmatchcase(narrow, wide)
