"""The data that a pickle may describe: which names are admitted, and what each stands for (``restricted_pickle``).

Numpy and scipy see checked numbers and bytes only, never an argument from the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

_NUMPY_CORES = ("numpy.core", "numpy._core")
_SPARSE_KINDS = ("csc", "csr", "coo")

# (module, name) as the file spells it -> our label
LABELS: dict[tuple[str, str], str] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # how Python 3 writes bytes in protocols 0 to 2
    ("copy_reg", "_reconstructor"): "reconstructor",
    ("copyreg", "_reconstructor"): "reconstructor",
    ("chumpy.ch", "Ch"): "chumpy",
    ("chumpy", "Ch"): "chumpy",
}
for _core in _NUMPY_CORES:
    LABELS[f"{_core}.multiarray", "_reconstruct"] = "array"
    LABELS[f"{_core}.multiarray", "scalar"] = "scalar"
    LABELS[f"{_core}.numeric", "_frombuffer"] = "frombuffer"
for _builtins in ("__builtin__", "builtins"):
    for _name in ("object", "set", "frozenset", "bytes", "bytearray"):
        LABELS[_builtins, _name] = _name
for _kind in _SPARSE_KINDS:
    for _module in (f"scipy.sparse.{_kind}", f"scipy.sparse._{_kind}", "scipy.sparse"):
        for _form in ("matrix", "array"):
            LABELS[_module, f"{_kind}_{_form}"] = _kind
CLASSES = frozenset((*_SPARSE_KINDS, "chumpy"))


class RefusedError(Exception):
    """The file asks for something that data does not need."""


class DamagedError(Exception):
    """The file is no pickle, or not all of one."""


def readable(value: object) -> str:
    """Text from a file, made safe and short enough for a message."""
    return str(value)[:120].encode("unicode_escape").decode() or type(value).__name__


@dataclass(frozen=True, slots=True)
class Label:
    kind: str


@dataclass(slots=True)
class PickledDtype:
    spec: str
    order: str = "|"


@dataclass(slots=True)
class PickledArray:
    """An array that waits for its state."""

    state: tuple | None = None  # (shape, dtype, fortran, raw)


@dataclass(slots=True)
class PickledObject:
    """An instance of one of ``CLASSES``: a dictionary with a label."""

    kind: str
    state: dict = field(default_factory=dict)


class PickledSet(list):
    """The members of a set, which need not be hashable here."""


class Budget:
    """Bounds what a file may unpack to: a shared string could be turned into bytes and arrays again and again."""

    def __init__(self, count: int):
        self.left = count

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise DamagedError("it unpacks to far more than its size")

    def raw(self, value: Any) -> bytes:
        """Array data: bytes, or Python 2's text."""
        if not isinstance(value, str | bytes | bytearray):
            raise RefusedError("an array of objects")
        self.spend(len(value))
        return value.encode("latin-1") if isinstance(value, str) else bytes(value)


# What a call of a label does: every argument comes from the file and is checked.


def numpy_dtype(value: Any) -> np.dtype:
    if type(value) is not PickledDtype:
        raise DamagedError("an array without a type")
    if value.spec not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise RefusedError(f"an array of type {readable(value.spec)}")
    if value.order not in ("<", ">", "|", "="):
        raise DamagedError("an unknown byte order")
    return np.dtype(value.spec).newbyteorder(value.order)


def checked_shape(value: Any) -> tuple[int, ...]:
    if (
        type(value) is not tuple
        or len(value) > 8
        or any(type(n) is not int and not isinstance(n, np.integer) for n in value)
    ):
        raise DamagedError("a strange shape")
    if any(n < 0 for n in value):
        raise DamagedError("a negative shape")
    return tuple(int(n) for n in value)


def numpy_array(node: PickledArray, budget: Budget) -> np.ndarray:
    """The array, in the machine's byte order and writeable."""
    if node.state is None:
        raise DamagedError("an array without a state")
    shape, dtype, fortran, raw = node.state
    kind, shape, raw = numpy_dtype(dtype), checked_shape(shape), budget.raw(raw)
    size = kind.itemsize
    for side in shape:
        size *= side
    if size != len(raw):
        raise DamagedError("an array that is not as long as its shape says")
    array = np.frombuffer(raw, kind) if raw else np.empty(0, kind)
    return array.reshape(shape, order="F" if fortran else "C").astype(kind.newbyteorder("="))


def _make_dtype(budget: Budget, spec: Any, *_flags: Any) -> PickledDtype:
    if type(spec) is not str:
        raise RefusedError("an array of objects")
    if spec[:1] in "<>|=":
        return PickledDtype(spec[1:], spec[:1])
    return PickledDtype(spec)


def _make_array(budget: Budget, subtype: Any, _shape: Any, _typecode: Any) -> PickledArray:
    if subtype != Label("ndarray"):
        raise RefusedError("a subclass of numpy.ndarray")
    return PickledArray()


def _make_from_buffer(budget: Budget, raw: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    return PickledArray((shape, dtype, order == "F", raw))


def _make_scalar(budget: Budget, dtype: Any, raw: Any) -> np.generic:
    kind, raw = numpy_dtype(dtype), budget.raw(raw)
    if len(raw) != kind.itemsize:
        raise DamagedError("a number that is not as long as its type")
    return np.frombuffer(raw, kind)[0]


def _encode(budget: Budget, text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError("a text encoding")
    return budget.raw(text)


def _make_bytes(budget: Budget, *arguments: Any) -> bytes:
    # ``bytes()`` is how protocol 2 writes empty ones, ``bytearray(text, "latin-1")`` a bytearray
    return _encode(budget, *arguments) if arguments else b""


def _make_set(budget: Budget, items: Any = ()) -> PickledSet:
    if type(items) not in (list, tuple):
        raise DamagedError("a set of no list")
    budget.spend(8 * len(items))
    return PickledSet(items)


def new_object(label: Any, arguments: Any) -> PickledObject:
    if type(label) is not Label or label.kind not in CLASSES:
        raise RefusedError(f"an object of {label.kind if type(label) is Label else 'no class'}")
    if arguments != ():
        raise RefusedError(f"arguments for {label.kind}")
    return PickledObject(label.kind)


def _reconstruct_object(budget: Budget, label: Any, base: Any, state: Any) -> PickledObject:
    if base != Label("object") or state is not None:
        raise RefusedError("an object made of another")
    return new_object(label, ())


CALLS: dict[str, Callable[..., Any]] = {
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


def sparse_matrix(kind: str, state: dict) -> sparse.spmatrix:
    """A checked matrix: scipy's own constructor trusts some of what it is given."""
    shape = checked_shape(state["_shape"])
    if len(shape) != 2 or max(shape) >= 1 << 31:
        raise DamagedError("a sparse matrix with a strange shape")
    data = state["data"]
    if kind == "coo":
        row, column = state["coords"] if "coords" in state else (state["row"], state["col"])
        parts = {"row": (row, shape[0]), "column": (column, shape[1])}
    else:
        outer, inner = (shape[1], shape[0]) if kind == "csc" else shape
        pointers = state["indptr"]
        _check_indices("pointer", pointers, len(data) + 1, outer + 1)
        if pointers[0] != 0 or pointers[-1] != len(data) or (np.diff(pointers.astype(np.int64)) < 0).any():
            raise DamagedError("a sparse matrix with strange pointers")
        parts = {"index": (state["indices"], inner)}
    if not isinstance(data, np.ndarray) or data.ndim != 1:
        raise DamagedError("a sparse matrix without numbers")
    for name, (indices, limit) in parts.items():
        _check_indices(name, indices, limit, len(data))
    if kind == "coo":
        return sparse.coo_matrix((data, (row, column)), shape=shape)
    form = sparse.csc_matrix if kind == "csc" else sparse.csr_matrix
    return form((data, state["indices"], pointers), shape=shape)


def _check_indices(name: str, indices: Any, limit: int, count: int) -> None:
    good = isinstance(indices, np.ndarray) and indices.dtype.kind in "iu" and indices.shape == (count,)
    if not good or (count and (indices.min() < 0 or indices.max() >= limit)):
        raise DamagedError(f"a sparse matrix with a bad {name}")
