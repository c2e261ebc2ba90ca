"""A graph of farthing's own objects as lines of JSON, and back: what a process knows, between two of its lives.

Rules of this file:
1. Reading runs nothing that the bytes name: plain values, containers, arrays of numbers and chance's state are made by
   what stands here, and objects are filled field by field, without their constructors. Classes are farthing's own.
2. What is shared stays shared, and what goes in circles may: objects have numbers, and name each other by them.
3. What isn't known here can't be written, so that it is seen when it is written and not when it is read.

A line is `[kind, ...]`; inside it a value is itself (null, truth, number, text), or `[number]` of another line.
"""

from __future__ import annotations

import importlib
import json
import random
import threading
from array import array
from base64 import b64decode, b64encode
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from types import FunctionType
from typing import Any

__all__ = ["graph_of", "lines_of_graph"]

_HOUSE = "farthing."
_PLAIN = frozenset((type(None), bool, int, float, str))
_LOCK = type(threading.Lock())
_BUILT_IN = (list, dict, set, frozenset, deque, bytes, int, float, str)
_DTYPES = "biuf"  # of arrays: truth, whole numbers, floats


def lines_of_graph(root: object, services: Mapping[str, object]) -> Iterator[bytes]:
    """The root's graph. `services`: what is left out, by name, and put back when it is read.

    Raises TypeError: there is something in it that can't be written.
    """
    writer = _Writer(services)
    yield _dumped(writer.named(root))
    yield from writer.rest()


def graph_of(lines: Iterable[bytes], services: Mapping[str, Any]) -> Any:
    """The root that `lines_of_graph` wrote. Raises ValueError: it wasn't written so, or by another version."""
    try:
        first, *rest = map(json.loads, lines)
        return _Reader(rest, services).root(first)
    except (ValueError, TypeError, LookupError, AttributeError, ImportError, RecursionError) as error:
        raise ValueError(f"no graph that can be read: {type(error).__name__}: {error}") from None


def _dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class _Writer:
    """Numbers objects as it meets them, and writes them in that order."""

    def __init__(self, services: Mapping[str, object]) -> None:
        self._services = {id(service): name for name, service in services.items()}
        self._numbers: dict[int, int] = {}
        self._met: deque[object] = deque()
        self._held: list[object] = []  # so that no number is given out for another object at the same place

    def named(self, value: object) -> object:
        """How a line names the value."""
        if type(value) in _PLAIN:
            return value
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._held)
            self._held.append(value)
            self._met.append(value)
        return [number]

    def rest(self) -> Iterator[bytes]:
        """The lines of all that was named, and of what that names."""
        while self._met:
            yield _dumped(self._line(self._met.popleft()))

    def _line(self, value: Any) -> list[object]:
        kind, many = type(value), self._many
        if id(value) in self._services:
            return ["service", self._services[id(value)]]
        if kind in (list, tuple, set, frozenset):
            return [kind.__name__, *many(value)]
        if kind in (dict, OrderedDict):
            return [kind.__name__, *many(value.keys()), *many(value.values())]
        if kind is deque:
            return ["deque", value.maxlen, *many(value)]
        if kind is array:
            return ["numbers", value.typecode, value.itemsize, b64encode(value.tobytes()).decode()]
        if kind is bytes:
            return ["bytes", b64encode(value).decode()]
        if kind is random.Random:
            return ["random", self.named(value.getstate())]
        if kind is _LOCK:
            return ["lock"]
        if kind.__module__ == "numpy" or kind.__module__.startswith(("numpy.", "faiss.")):
            return _numbers(value)
        if kind is FunctionType:
            return ["function", _name_of(value)]
        name = _name_of(kind)
        if isinstance(value, Enum):
            return ["enum", name, value.name]
        if isinstance(value, tuple):
            return ["named", name, *many(value)]
        if isinstance(value, _BUILT_IN):
            raise TypeError(f"{name} is a kind of {kind.__mro__[1].__name__}: it can't be written")
        fields = _fields(value)
        return ["object", name, *fields, *many(fields.values())]

    def _many(self, values: Iterable[object]) -> Iterator[object]:
        return map(self.named, values)


def _name_of(thing: Any) -> str:
    """Of a class or a function of farthing's. Raises TypeError: it isn't, or can't be found by a name."""
    name = f"{thing.__module__}:{thing.__qualname__}"
    if not thing.__module__.startswith(_HOUSE) or "<" in name:
        raise TypeError(f"{name} can't be written")
    return name


def _found(name: str) -> Any:
    """Whose name it is. Raises ValueError: nothing of farthing's."""
    module, _, path = name.partition(":")
    if not module.startswith(_HOUSE):
        raise ValueError(f"{name} is not farthing's")
    thing: Any = importlib.import_module(module)
    for part in path.split("."):
        thing = getattr(thing, part)
    if getattr(thing, "__module__", "") != module:
        raise ValueError(f"{name} is not farthing's")
    return thing


def _class(name: str, base: type) -> Any:
    found = _found(name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{name} is no such class")
    return found


def _fields(value: object) -> dict[str, object]:
    """What an object holds, in slots and beside them."""
    slots = [name for cls in type(value).__mro__ for name in _slots_of(cls)]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return held | dict(getattr(value, "__dict__", {}))


def _slots_of(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return tuple(name for name in ((slots,) if isinstance(slots, str) else slots) if not name.startswith("__"))


def _numbers(value: Any) -> list[object]:
    """An array, a single number of its kind, or an index of vectors."""
    import numpy as np

    if not isinstance(value, np.ndarray | np.generic):
        import faiss

        return ["index", b64encode(faiss.serialize_index(value).tobytes()).decode()]
    if value.dtype.kind not in _DTYPES:
        raise TypeError(f"an array of {value.dtype} can't be written")
    shape = list(value.shape) if isinstance(value, np.ndarray) else None
    return ["array", value.dtype.str, shape, b64encode(np.ascontiguousarray(value).tobytes()).decode()]


class _Reader:
    """Makes what can be changed empty at first; then what can't, as it is asked for; and fills the former at last, keys
    after what they are made of."""

    def __init__(self, lines: list[list[Any]], services: Mapping[str, Any]) -> None:
        self._lines = lines
        self._services = services
        self._made: dict[int, Any] = {}

    def root(self, named: Any) -> Any:
        """What the first line names."""
        fillings: tuple[list[Callable[[], None]], ...] = ([], [], [])
        for number, line in enumerate(self._lines):
            self._begin(number, line, fillings)
        for some in fillings:
            for fill in some:
                fill()
        return self._value(named)

    def _begin(self, number: int, line: list[Any], fillings: tuple[list[Callable[[], None]], ...]) -> None:
        objects, rows, hashed = fillings
        kind, *rest = line
        made: Any
        if kind == "object":
            cls = _class(rest[0], object)
            made = object.__new__(cls)
            objects.append(lambda: self._fill(made, rest[1:]))
        elif kind == "list":
            made = []
            rows.append(lambda: made.extend(map(self._value, rest)))
        elif kind == "deque":
            made = deque(maxlen=rest[0])
            rows.append(lambda: made.extend(map(self._value, rest[1:])))
        elif kind == "set":
            made = set()
            hashed.append(lambda: made.update(map(self._value, rest)))
        elif kind in ("dict", "OrderedDict"):
            made = {} if kind == "dict" else OrderedDict()
            hashed.append(lambda: made.update(self._pairs(rest)))
        else:
            return
        self._made[number] = made

    def _fill(self, made: Any, rest: list[Any]) -> None:
        half = len(rest) // 2
        for name, value in zip(rest[:half], rest[half:], strict=True):
            object.__setattr__(made, name, self._value(value))

    def _pairs(self, rest: list[Any]) -> Iterator[tuple[Any, Any]]:
        half = len(rest) // 2
        return zip(map(self._value, rest[:half]), map(self._value, rest[half:]), strict=True)

    def _value(self, named: Any) -> Any:
        if type(named) in _PLAIN:
            return named
        (number,) = named
        if number not in self._made:
            self._made[number] = self._make(*self._lines[number])
        return self._made[number]

    def _make(self, kind: str, *rest: Any) -> Any:
        """What can't be changed once it is there."""
        match kind:
            case "tuple":
                return tuple(map(self._value, rest))
            case "frozenset":
                return frozenset(map(self._value, rest))
            case "named":
                return tuple.__new__(_class(rest[0], tuple), map(self._value, rest[1:]))
            case "enum":
                return _class(rest[0], Enum)[rest[1]]
            case "function":
                found = _found(rest[0])
                if type(found) is not FunctionType:
                    raise ValueError(f"{rest[0]} is no function")
                return found
            case "numbers":
                return _row(*rest)
            case "bytes":
                return b64decode(rest[0])
            case "service":
                return self._services[rest[0]]
            case "lock":
                return threading.Lock()
            case "random":
                made = random.Random()
                made.setstate(self._value(rest[0]))
                return made
            case "array":
                return _array(*rest)
            case "index":
                return _index(rest[0])
        raise ValueError(f"there is no {kind!r}")


def _row(code: str, size: int, body: str) -> Any:
    found = array(code)
    if code == "u" or found.itemsize != size:
        raise ValueError(f"no row of {code}")
    found.frombytes(b64decode(body))
    return found


def _array(dtype: str, shape: list[int] | None, body: str) -> Any:
    import numpy as np

    kind = np.dtype(dtype)
    if kind.kind not in _DTYPES:
        raise ValueError(f"no array of {dtype}")
    found = np.frombuffer(b64decode(body), kind).copy()
    return found[0] if shape is None else found.reshape(shape)


def _index(body: str) -> Any:
    import faiss
    import numpy as np

    return faiss.deserialize_index(np.frombuffer(b64decode(body), np.uint8))
