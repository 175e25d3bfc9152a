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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import UserError

MAX_BYTES = 1 << 30  # of the file; FLAME's are about 50 MB
MAX_INSTRUCTIONS = 1_000_000
MAX_DEPTH = 50  # of containers within containers

_NUMPY_CORES = ("numpy.core", "numpy._core")
_SPARSE_KINDS = ("csc", "csr", "coo")

# (module, name) as the file spells it -> our label
_LABELS: dict[tuple[str, str], str] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # how Python 3 writes bytes in protocols 0 to 2
    ("copy_reg", "_reconstructor"): "reconstructor",
    ("copyreg", "_reconstructor"): "reconstructor",
    ("chumpy.ch", "Ch"): "chumpy",
    ("chumpy", "Ch"): "chumpy",
}
for _core in _NUMPY_CORES:
    _LABELS[f"{_core}.multiarray", "_reconstruct"] = "array"
    _LABELS[f"{_core}.multiarray", "scalar"] = "scalar"
    _LABELS[f"{_core}.numeric", "_frombuffer"] = "frombuffer"
for _builtins in ("__builtin__", "builtins"):
    for _name in ("object", "set", "frozenset", "bytes", "bytearray"):
        _LABELS[_builtins, _name] = _name
for _kind in _SPARSE_KINDS:
    for _module in (f"scipy.sparse.{_kind}", f"scipy.sparse._{_kind}", "scipy.sparse"):
        for _form in ("matrix", "array"):
            _LABELS[_module, f"{_kind}_{_form}"] = _kind
_CLASSES = frozenset((*_SPARSE_KINDS, "chumpy"))


class _RefusedError(Exception):
    """The file asks for something that data does not need."""


class _DamagedError(Exception):
    """The file is no pickle, or not all of one."""


_FAULTS = (_DamagedError, IndexError, KeyError, ValueError, TypeError, OverflowError, MemoryError, struct.error)


@dataclass(frozen=True, slots=True)
class _Label:
    kind: str


@dataclass(slots=True)
class _Dtype:
    spec: str
    order: str = "|"


@dataclass(slots=True)
class _Array:
    """An array that waits for its state."""

    state: tuple | None = None  # (shape, dtype, fortran, raw)


@dataclass(slots=True)
class _Object:
    """An instance of one of ``_CLASSES``: a dictionary with a label."""

    kind: str
    state: dict = field(default_factory=dict)


class _Set(list):
    """The members of a set, which need not be hashable here."""


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
    except _RefusedError as error:
        raise UserError(
            f"{path} was not loaded: it asks for {error}, which no head file needs. "
            "It may be harmful; take the file from its publisher."
        ) from error
    except _FAULTS as error:
        raise UserError(f"{path} is damaged or not a pickle ({_readable(error)}). Download it again.") from error
    if not isinstance(result, dict):
        raise UserError(f"{path} holds no table of arrays, so it is not a head file.")
    return result


def _readable(value: object) -> str:
    """Text from a file, made safe and short enough for a message."""
    return str(value)[:120].encode("unicode_escape").decode() or type(value).__name__


class _Machine:
    """The pickle machine: a stack, marks on it, and a memo."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # A shared string may be turned into bytes and arrays again and again: bound what that may cost.
        self.bytes_left = 4 * len(data) + (1 << 16)

    def run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            opcode = self.take(1)
            if opcode == b".":
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(opcode)
            if instruction is None:
                if opcode in _REFUSED:
                    raise _RefusedError(_REFUSED[opcode])
                raise _DamagedError(f"byte {self.position - 1} is no instruction")
            instruction(self)
        raise _DamagedError("it has far more instructions than a head file")

    # Reading

    def take(self, count: int) -> bytes:
        if count < 0 or count > len(self.data) - self.position:
            raise _DamagedError("it ends too early")
        self.position += count
        return self.data[self.position - count : self.position]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise _DamagedError("it ends too early")
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
            raise _DamagedError("a negative memo index")
        self.memo[index] = self.stack[-1]

    # Containers

    def extend(self, kind: type[list], items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not kind:
            raise _DamagedError(f"items for what is no {kind.__name__.strip('_').lower()}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise _DamagedError("keys and values for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int | float | None):
                raise _DamagedError("a dictionary's key is no text or number")
            target[key] = value

    def push_dict(self, items: list[Any]) -> None:
        self.push({})
        self.set_items(items)

    # Labels

    def find(self, module: str, name: str) -> None:
        label = _LABELS.get((module, name))
        if label is None:
            raise _RefusedError(_readable(f"{module}.{name}"))
        self.push(_Label(label))

    def stack_find(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise _DamagedError("a class name that is no text")
        self.find(module, name)

    def call(self) -> None:
        arguments, label = self.stack.pop(), self.stack.pop()
        if type(label) is not _Label or type(arguments) is not tuple:
            raise _RefusedError(f"a call of {'an object' if type(label) is not _Label else label.kind}")
        function = _CALLS.get(label.kind)
        if function is None:
            raise _RefusedError(f"a call of {label.kind}")
        self.push(function(self, *arguments))

    def new_object(self, keywords: bool) -> None:
        if keywords and self.stack.pop() != {}:
            raise _RefusedError("an object with keyword arguments")
        arguments, label = self.stack.pop(), self.stack.pop()
        self.push(_new(label, arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _Array:
            # (version,) shape, dtype, fortran, raw: the version came with Python 2.2's numarray
            if type(state) is not tuple or len(state) not in (4, 5):
                raise _DamagedError("an array without a state")
            target.state = state[-4:]
        elif type(target) is _Dtype:
            if type(state) is not tuple or len(state) < 5 or any(part is not None for part in state[2:5]):
                raise _RefusedError("an array of records")
            target.order = state[1]
        elif type(target) is _Object and type(state) is dict:
            target.state = state
        else:
            raise _RefusedError("a change to an object that is no array")

    def spend(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise _DamagedError("it unpacks to far more than its size")

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
                raise _DamagedError("containers that hold themselves, or too many in each other")
            open_.add(id(node))
            if type(node) is dict:
                result = {key: walk(item, depth + 1) for key, item in node.items()}
            elif type(node) is tuple:
                result = tuple(walk(item, depth + 1) for item in node)
            elif type(node) in (list, _Set):
                result = [walk(item, depth + 1) for item in node]
            elif type(node) is _Array:
                result = self.array(node)
            elif type(node) is _Object:
                # Of a chumpy array's state only the values matter: the rest is its graph of derivatives.
                keys = ("x",) if node.kind == "chumpy" else tuple(node.state)
                state = {key: walk(node.state[key], depth + 1) for key in keys}
                result = np.asarray(state["x"]) if node.kind == "chumpy" else _sparse(node.kind, state)
            else:
                raise _RefusedError(f"a bare {type(node).__name__.strip('_').lower()}")
            open_.discard(id(node))
            done[id(node)] = result
            return result

        return walk(value, 0)

    def array(self, node: _Array) -> np.ndarray:
        if node.state is None:
            raise _DamagedError("an array without a state")
        shape, dtype, fortran, raw = node.state
        kind = _dtype(dtype)
        shape = _shape(shape)
        raw = self.raw(raw)
        size = kind.itemsize
        for side in shape:
            size *= side
            if side > len(raw) and len(raw):
                raise _DamagedError("an array shorter than its shape")
        if size != len(raw):
            raise _DamagedError("an array that is not as long as its shape says")
        array = np.frombuffer(raw, kind) if raw else np.empty(0, kind)
        array = array.reshape(shape, order="F" if fortran else "C")
        return array.astype(kind.newbyteorder("="))

    def raw(self, value: Any) -> bytes:
        if isinstance(value, str):
            self.spend(len(value))
            return value.encode("latin-1")
        if isinstance(value, bytes | bytearray):
            self.spend(len(value))
            return bytes(value)
        raise _RefusedError("an array of objects")


# What a call of a label does: every argument comes from the file and is checked.


def _dtype(value: Any) -> np.dtype:
    if type(value) is not _Dtype:
        raise _DamagedError("an array without a type")
    if value.spec not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise _RefusedError(f"an array of type {_readable(value.spec)}")
    if value.order not in ("<", ">", "|", "="):
        raise _DamagedError("an unknown byte order")
    return np.dtype(value.spec).newbyteorder(value.order)


def _shape(value: Any) -> tuple[int, ...]:
    if (
        type(value) is not tuple
        or len(value) > 8
        or any(type(n) is not int and not isinstance(n, np.integer) for n in value)
    ):
        raise _DamagedError("a strange shape")
    if any(n < 0 for n in value):
        raise _DamagedError("a negative shape")
    return tuple(int(n) for n in value)


def _make_dtype(machine: _Machine, spec: Any, *_flags: Any) -> _Dtype:
    if type(spec) is not str:
        raise _RefusedError("an array of objects")
    if spec[:1] in "<>|=":
        return _Dtype(spec[1:], spec[:1])
    return _Dtype(spec)


def _make_array(machine: _Machine, subtype: Any, _shape: Any, _typecode: Any) -> _Array:
    if subtype != _Label("ndarray"):
        raise _RefusedError("a subclass of numpy.ndarray")
    return _Array()


def _make_from_buffer(machine: _Machine, raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array((shape, dtype, order == "F", raw))


def _make_scalar(machine: _Machine, dtype: Any, raw: Any) -> np.generic:
    kind, raw = _dtype(dtype), machine.raw(raw)
    if len(raw) != kind.itemsize:
        raise _DamagedError("a number that is not as long as its type")
    return np.frombuffer(raw, kind)[0]


def _encode(machine: _Machine, text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _RefusedError("a text encoding")
    return machine.raw(text)


def _make_bytes(machine: _Machine, *arguments: Any) -> bytes:
    # ``bytes()`` is how protocol 2 writes empty ones, ``bytearray(text, "latin-1")`` a bytearray
    return _encode(machine, *arguments) if arguments else b""


def _make_set(machine: _Machine, items: Any = ()) -> _Set:
    if type(items) not in (list, tuple):
        raise _DamagedError("a set of no list")
    machine.spend(8 * len(items))
    return _Set(items)


def _new(label: Any, arguments: Any) -> _Object:
    if type(label) is not _Label or label.kind not in _CLASSES:
        raise _RefusedError(f"an object of {label.kind if type(label) is _Label else 'no class'}")
    if arguments != ():
        raise _RefusedError(f"arguments for {label.kind}")
    return _Object(label.kind)


def _reconstruct_object(machine: _Machine, label: Any, base: Any, state: Any) -> _Object:
    if base != _Label("object") or state is not None:
        raise _RefusedError("an object made of another")
    return _new(label, ())


_CALLS: dict[str, Callable[..., Any]] = {
    "dtype": _make_dtype,
    "array": _make_array,
    "frombuffer": _make_from_buffer,
    "scalar": _make_scalar,
    "encode": _encode,
    "bytes": _make_bytes,
    "bytearray": _make_bytes,
    "set": _make_set,
    "frozenset": _make_set,
    "reconstructor": _reconstruct_object,
}


def _sparse(kind: str, state: dict) -> sparse.spmatrix:
    """A checked matrix: scipy's own constructor trusts some of what it is given."""
    shape = _shape(state["_shape"])
    if len(shape) != 2 or max(shape) >= 1 << 31:
        raise _DamagedError("a sparse matrix with a strange shape")
    data = state["data"]
    if kind == "coo":
        row, column = state["coords"] if "coords" in state else (state["row"], state["col"])
        parts = {"row": (row, shape[0]), "column": (column, shape[1])}
    else:
        outer, inner = (shape[1], shape[0]) if kind == "csc" else shape
        pointers = state["indptr"]
        _check_indices("pointer", pointers, len(data) + 1, outer + 1)
        if pointers[0] != 0 or pointers[-1] != len(data) or (np.diff(pointers.astype(np.int64)) < 0).any():
            raise _DamagedError("a sparse matrix with strange pointers")
        parts = {"index": (state["indices"], inner)}
    if not isinstance(data, np.ndarray) or data.ndim != 1:
        raise _DamagedError("a sparse matrix without numbers")
    for name, (indices, limit) in parts.items():
        _check_indices(name, indices, limit, len(data))
    if kind == "coo":
        return sparse.coo_matrix((data, (row, column)), shape=shape)
    form = sparse.csc_matrix if kind == "csc" else sparse.csr_matrix
    return form((data, state["indices"], pointers), shape=shape)


def _check_indices(name: str, indices: Any, limit: int, count: int) -> None:
    good = isinstance(indices, np.ndarray) and indices.dtype.kind in "iu" and indices.shape == (count,)
    if not good or (count and (indices.min() < 0 or indices.max() >= limit)):
        raise _DamagedError(f"a sparse matrix with a bad {name}")


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
        raise _DamagedError("a text without quotes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an escape that Python does not know stands for itself
        m.push(codecs.escape_decode(line[1:-1])[0].decode("latin-1"))


def _little_endian(layout: str) -> Callable[[_Machine], None]:
    return lambda m: m.push(int.from_bytes(m.take(m.number(layout)), "little", signed=True))


def _protocol(m: _Machine) -> None:
    if m.number("<B") > 5:
        raise _DamagedError("a protocol of the future")


def _tuple(count: int) -> Callable[[_Machine], None]:
    def make(m: _Machine) -> None:
        if len(m.stack) < count:
            raise _DamagedError("a tuple of nothing")
        items = tuple(m.stack[-count:])
        del m.stack[-count:]
        m.push(items)

    return make


def _instance(m: _Machine, label: Any, arguments: list[Any]) -> None:
    m.push(_new(label, tuple(arguments)))


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
    b"\x8f": lambda m: m.push(_Set()),
    b"\x90": lambda m: m.extend(_Set, m.pop_mark()),
    b"\x91": lambda m: m.push(_Set(m.pop_mark())),
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
