"""Files in FLAME's form, made at test time: random numbers in FLAME's layout, or any head's arrays written that way.

No number here comes from FLAME. The Python-2 look (module paths, latin-1 text, chumpy objects, scipy's old module)
is what makes the real files hard to read.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import types
from pathlib import Path

import numpy as np
from scipy import sparse
from support.synthetic_head import icosphere

PARENTS = np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32)


class _Chumpy:
    """Pickled under chumpy's name, with the state that chumpy writes."""

    def __init__(self, array: np.ndarray):
        self.x = array
        self._dirty_vars = set()
        self._itr = None
        self._depends_on_deps = {}


def chumpy_module() -> dict[str, types.ModuleType]:
    """Modules to put in ``sys.modules`` so that the standard unpickler (smplx's) can read chumpy arrays."""
    package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")

    class Ch:
        def __array__(self, *arguments, **keywords):
            return np.asarray(self.x)

        @property
        def shape(self):
            return self.x.shape

        def __getitem__(self, key):
            return self.x[key]

    package.ch = module
    module.Ch = package.Ch = Ch
    return {"chumpy": package, "chumpy.ch": module}


class _Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: byte strings for text and array data, old module names, an old-style set."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, value: str | bytes) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        if self.proto == 0:
            body = repr(data)[1:]
            self.write(b"S" + body.encode("ascii") + b"\n")
        elif len(data) < 256:
            self.write(b"U" + bytes([len(data)]) + data)
        else:
            self.write(b"T" + len(data).to_bytes(4, "little") + data)
        if id(value) not in self.memo:  # one-letter texts are one object
            self.memoize(value)

    dispatch[str] = save_text
    dispatch[bytes] = save_text

    def save_global(self, value, name=None) -> None:
        module, name = {
            _Chumpy: ("chumpy.ch", "Ch"),
            sparse.csc_matrix: ("scipy.sparse.csc", "csc_matrix"),
            np.ndarray: ("numpy", "ndarray"),
            np.dtype: ("numpy", "dtype"),
            set: ("__builtin__", "set"),
            object: ("__builtin__", "object"),
            copyreg._reconstructor: ("copy_reg", "_reconstructor"),
        }.get(value, ("numpy.core.multiarray", getattr(value, "__name__", "")))
        if module == "numpy.core.multiarray":
            assert name in ("_reconstruct", "scalar"), value
        self.write(f"c{module}\n{name}\n".encode())
        self.memoize(value)

    for _kind in (type, types.FunctionType, types.BuiltinFunctionType):
        dispatch[_kind] = save_global


def python2_pickle(table: dict, protocol: int = 2, chumpy: dict[str, np.ndarray] | None = None) -> bytes:
    """``table`` as Python 2 would have pickled it; the arrays in ``chumpy`` are added as chumpy objects."""
    buffer = io.BytesIO()
    pickler = _Python2Pickler(buffer, protocol, fix_imports=False)
    pickler.dump({**table, **{key: _Chumpy(value) for key, value in (chumpy or {}).items()}})
    return buffer.getvalue()
