"""Reads a pickle as data: arrays, sparse matrices, containers, numbers and text. Nothing in the file is ever called.

FLAME's files are Python-2 pickles, and a pickle is a program: the standard unpickler imports whatever the file names
and calls it. This is a small interpreter of the same instructions (protocols 0 to 5) in which a name is only ever a
label from an exact list. "Calling" a label runs one of the few functions below, which check their arguments and build
plain data; numpy and scipy get to see checked numbers and bytes, never a pickled argument.
"""

from __future__ import annotations

import codecs
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .pickled_data import (
    CALLS,
    LABELS,
    Budget,
    DamagedError,
    Label,
    PickledArray,
    PickledDtype,
    PickledObject,
    PickledSet,
    RefusedError,
    new_object,
    numpy_array,
    readable,
    sparse_matrix,
)

MAX_BYTES = 1 << 30  # of the file; FLAME's are about 50 MB
MAX_INSTRUCTIONS = 1_000_000
MAX_DEPTH = 50  # of containers within containers

_FAULTS = (DamagedError, IndexError, KeyError, ValueError, TypeError, OverflowError, MemoryError, struct.error)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The dictionary in a pickle. numpy arrays of numbers come back as such, chumpy arrays as numpy arrays, scipy
    matrices as ``scipy.sparse`` matrices, Python-2 text as ``str`` (latin-1), sets as lists.

    Raises ``UserError`` if the file is missing, unreadable, damaged, holds no dictionary, or asks for any class or
    function that is not on the list, which the message names. Nothing of the file is executed in any case.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a head file.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES >> 30} GiB: this is not a head file.")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"There is no head file at {path}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    if not data:
        raise UserError(f"{path} is empty. Download it again.")
    try:
        machine = _Machine(data)
        result = machine.resolve(machine.run())
    except RefusedError as error:
        raise UserError(
            f"{path} was not loaded: it asks for {error}, which no head file needs. "
            "It may be harmful; take the file from its publisher."
        ) from error
    except _FAULTS as error:
        raise UserError(f"{path} is damaged or not a pickle ({readable(error)}). Download it again.") from error
    if not isinstance(result, dict):
        raise UserError(f"{path} holds no table of arrays, so it is not a head file.")
    return result


class _Machine:
    """The pickle machine: a stack, marks on it, and a memo."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.budget = Budget(4 * len(data) + (1 << 16))

    def run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            opcode = self.take(1)
            if opcode == b".":
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(opcode)
            if instruction is None:
                if opcode in _REFUSED:
                    raise RefusedError(_REFUSED[opcode])
                raise DamagedError(f"byte {self.position - 1} is no instruction")
            instruction(self)
        raise DamagedError("it has far more instructions than a head file")

    # Reading

    def take(self, count: int) -> bytes:
        if count < 0 or count > len(self.data) - self.position:
            raise DamagedError("it ends too early")
        self.position += count
        return self.data[self.position - count : self.position]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise DamagedError("it ends too early")
        return self.take(end + 1 - self.position)[:-1]

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    # Stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """Everything above the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def pop_or_unmark(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def remember(self, index: int) -> None:
        if index < 0:
            raise DamagedError("a negative memo index")
        self.memo[index] = self.stack[-1]

    # Containers

    def extend(self, kind: type[list], items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not kind:
            raise DamagedError(f"items for what is no {'list' if kind is list else 'set'}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise DamagedError("keys and values for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int | float | None):
                raise DamagedError("a dictionary's key is no text or number")
            target[key] = value

    def push_dict(self, items: list[Any]) -> None:
        self.push({})
        self.set_items(items)

    # Labels

    def find(self, module: str, name: str) -> None:
        label = LABELS.get((module, name))
        if label is None:
            raise RefusedError(readable(f"{module}.{name}"))
        self.push(Label(label))

    def stack_find(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise DamagedError("a class name that is no text")
        self.find(module, name)

    def call(self) -> None:
        arguments, label = self.stack.pop(), self.stack.pop()
        if type(label) is not Label or type(arguments) is not tuple:
            raise RefusedError(f"a call of {'an object' if type(label) is not Label else label.kind}")
        function = CALLS.get(label.kind)
        if function is None:
            raise RefusedError(f"a call of {label.kind}")
        self.push(function(self.budget, *arguments))

    def new_object(self, keywords: bool) -> None:
        if keywords and self.stack.pop() != {}:
            raise RefusedError("an object with keyword arguments")
        arguments, label = self.stack.pop(), self.stack.pop()
        self.push(new_object(label, arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is PickledArray:
            # (version,) shape, dtype, fortran, raw: the version came with Python 2.2's numarray
            if type(state) is not tuple or len(state) not in (4, 5):
                raise DamagedError("an array without a state")
            target.state = state[-4:]
        elif type(target) is PickledDtype:
            if type(state) is not tuple or len(state) < 5 or any(part is not None for part in state[2:5]):
                raise RefusedError("an array of records")
            target.order = state[1]
        elif type(target) is PickledObject and type(state) is dict:
            target.state = state
        else:
            raise RefusedError("a change to an object that is no array")

    # The finished tree

    def resolve(self, value: Any) -> Any:
        """Replaces the stand-ins in a tree by arrays; what is shared stays shared, and a loop is refused."""
        done: dict[int, Any] = {}
        open_: set[int] = set()

        def walk(node: Any, depth: int) -> Any:
            if node is None or isinstance(node, str | bytes | bytearray | int | float | np.generic):
                return node
            if id(node) in done:
                return done[id(node)]
            if id(node) in open_ or depth > MAX_DEPTH:
                raise DamagedError("containers that hold themselves, or too many in each other")
            open_.add(id(node))
            if type(node) is dict:
                result = {key: walk(item, depth + 1) for key, item in node.items()}
            elif type(node) is tuple:
                result = tuple(walk(item, depth + 1) for item in node)
            elif type(node) in (list, PickledSet):
                result = [walk(item, depth + 1) for item in node]
            elif type(node) is PickledArray:
                result = numpy_array(node, self.budget)
            elif type(node) is PickledObject:
                # Of a chumpy array's state only the values matter: the rest is its graph of derivatives.
                keys = ("x",) if node.kind == "chumpy" else tuple(node.state)
                state = {key: walk(node.state[key], depth + 1) for key in keys}
                result = np.asarray(state["x"]) if node.kind == "chumpy" else sparse_matrix(node.kind, state)
            else:
                raise RefusedError("a class or a type instead of a value")
            open_.discard(id(node))
            done[id(node)] = result
            return result

        return walk(value, 0)


# Instructions


def _text(layout: str, encoding: str, errors: str = "strict") -> Callable[[_Machine], None]:
    return lambda m: m.push(m.take(m.number(layout)).decode(encoding, errors))


def _bytes(layout: str) -> Callable[[_Machine], None]:
    return lambda m: m.push(m.take(m.number(layout)))


def _int_line(m: _Machine) -> None:
    line = m.line()
    m.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))


def _string_line(m: _Machine) -> None:
    line = m.line().strip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[:1] != line[-1:]:
        raise DamagedError("a text without quotes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an escape that Python does not know stands for itself
        m.push(codecs.escape_decode(line[1:-1])[0].decode("latin-1"))


def _little_endian(layout: str) -> Callable[[_Machine], None]:
    return lambda m: m.push(int.from_bytes(m.take(m.number(layout)), "little", signed=True))


def _protocol(m: _Machine) -> None:
    if m.number("<B") > 5:
        raise DamagedError("a protocol of the future")


def _tuple(count: int) -> Callable[[_Machine], None]:
    def make(m: _Machine) -> None:
        if len(m.stack) < count:
            raise DamagedError("a tuple of nothing")
        items = tuple(m.stack[-count:])
        del m.stack[-count:]
        m.push(items)

    return make


def _instance(m: _Machine, label: Any, arguments: list[Any]) -> None:
    m.push(new_object(label, tuple(arguments)))


def _inst(m: _Machine) -> None:
    m.find(m.line().decode("latin-1"), m.line().decode("latin-1"))
    label = m.stack.pop()
    _instance(m, label, m.pop_mark())


def _obj(m: _Machine) -> None:
    label, *arguments = m.pop_mark()
    _instance(m, label, arguments)


def _one_item(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items([key, value])


_REFUSED = {
    b"P": "an object outside the file",
    b"Q": "an object outside the file",
    b"\x82": "a registered extension",
    b"\x83": "a registered extension",
    b"\x84": "a registered extension",
    b"\x97": "a buffer outside the file",
    b"\x98": "a buffer outside the file",
}

_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _protocol,
    b"\x95": lambda m: m.take(8) and None,  # a frame only tells how far to read ahead
    # Marks, memo, and the stack itself
    b"(": _Machine.push_mark,
    b"0": _Machine.pop_or_unmark,
    b"1": lambda m: m.pop_mark() and None,
    b"2": lambda m: m.push(m.stack[-1]),
    b"p": lambda m: m.remember(int(m.line())),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"g": lambda m: m.push(m.memo[int(m.line())]),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    # Constants
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _int_line,
    b"L": lambda m: m.push(int(m.line().removesuffix(b"L"))),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": _little_endian("<B"),
    b"\x8b": _little_endian("<i"),
    b"F": lambda m: m.push(float(m.line())),
    b"G": lambda m: m.push(m.number(">d")),
    b"S": _string_line,
    b"T": _text("<i", "latin-1"),
    b"U": _text("<B", "latin-1"),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": _text("<I", "utf-8", "surrogatepass"),
    b"\x8c": _text("<B", "utf-8", "surrogatepass"),
    b"\x8d": _text("<Q", "utf-8", "surrogatepass"),
    b"B": _bytes("<I"),
    b"C": _bytes("<B"),
    b"\x8e": _bytes("<Q"),
    b"\x96": _bytes("<Q"),
    # Containers
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.pop_mark()),
    b"a": lambda m: m.extend(list, [m.stack.pop()]),
    b"e": lambda m: m.extend(list, m.pop_mark()),
    b"}": lambda m: m.push({}),
    b"d": lambda m: m.push_dict(m.pop_mark()),
    b"s": _one_item,
    b"u": lambda m: m.set_items(m.pop_mark()),
    b"\x8f": lambda m: m.push(PickledSet()),
    b"\x90": lambda m: m.extend(PickledSet, m.pop_mark()),
    b"\x91": lambda m: m.push(PickledSet(m.pop_mark())),
    # Names and objects
    b"c": lambda m: m.find(m.line().decode("latin-1"), m.line().decode("latin-1")),
    b"\x93": _Machine.stack_find,
    b"R": _Machine.call,
    b"\x81": lambda m: m.new_object(keywords=False),
    b"\x92": lambda m: m.new_object(keywords=True),
    b"i": _inst,
    b"o": _obj,
    b"b": _Machine.build,
}
