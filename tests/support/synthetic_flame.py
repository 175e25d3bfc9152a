"""Files in FLAME's form, made at test time: random numbers in FLAME's layout, or any head's arrays written that way.

No number here comes from FLAME. The Python-2 look (module paths, latin-1 text, chumpy objects, scipy's old module)
is what makes the real files hard to read.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import types
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from headstudio.heads.arrays import HeadArrays
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

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

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


def flame_table(
    vertices: np.ndarray,  # [N, 3]
    triangles: np.ndarray,  # [M, 3]
    identity: np.ndarray,  # [S, N, 3]
    expression: np.ndarray,  # [E, N, 3]
    correctives: np.ndarray,  # [36, N, 3]
    regressor: np.ndarray,  # [5, N]
    weights: np.ndarray,  # [N, 5]
) -> dict:
    """Arrays in the layout and types of FLAME's files."""
    return {
        "v_template": vertices.astype(np.float64),
        "f": triangles.astype(np.uint32),
        "shapedirs": np.concatenate([identity, expression]).astype(np.float64).transpose(1, 2, 0).copy(),
        "posedirs": correctives.astype(np.float64).transpose(1, 2, 0).copy(),
        "J_regressor": sparse.csc_matrix(regressor.astype(np.float64)),
        "J": regressor @ vertices,
        "weights": weights.astype(np.float64),
        "kintree_table": PARENTS,
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def random_flame(identities: int = 300, expressions: int = 100, levels: int = 2, seed: int = 0) -> dict:
    """A table of random components on a small ellipsoid: nothing is zero, so that every term of skinning counts."""
    rng = np.random.default_rng(seed)
    sphere, triangles = icosphere(levels)
    vertices = sphere * [0.08, 0.13, 0.1] + rng.normal(size=sphere.shape) * 0.001
    n = len(vertices)
    # Sorted by size within each basis, as principal components are
    size = np.concatenate([0.9 ** np.arange(identities), 0.9 ** np.arange(expressions)]).clip(1e-3)
    shapes = rng.normal(size=(identities + expressions, n, 3)) * 0.004 * size[:, None, None]
    regressor = rng.random((5, n)) * (rng.random((5, n)) < 20 / n)
    regressor[:, 0] += 0.1
    weights = rng.random((n, 5)) ** 4
    return flame_table(
        vertices,
        triangles,
        shapes[:identities],
        shapes[identities:],
        rng.normal(size=(36, n, 3)) * 0.002,
        regressor / regressor.sum(1, keepdims=True),
        weights / weights.sum(1, keepdims=True),
    )


def write_flame(
    path: Path,
    table: dict,
    chumpy: tuple[str, ...] = ("shapedirs", "posedirs"),
    protocol: int = 2,
) -> Path:
    """Writes ``table`` as FLAME's kind of pickle (the arrays named in ``chumpy`` as chumpy objects), or as ``.npz``."""
    if path.suffix == ".npz":
        dense = {key: value.toarray() if sparse.issparse(value) else value for key, value in table.items()}
        np.savez(path, **dense)
        return path
    plain = {key: value for key, value in table.items() if key not in chumpy}
    path.write_bytes(python2_pickle(plain, protocol, {key: table[key] for key in chumpy if key in table}))
    return path


@dataclass(frozen=True)
class FlameFromHead:
    """A head rewritten as a FLAME file with another mesh, and the truth that goes with it."""

    table: dict
    spread: sparse.csr_matrix  # [N', N] the head's vertices to the file's
    warped: np.ndarray  # [N, 3] the head's vertices in the file's shape
    expressions: np.ndarray  # [C, E] coefficients of the head's controls in the file's basis
    source_triangle: np.ndarray  # [M'] triangle of the head under each of the file's


def flame_from_head(
    head: HeadArrays,
    identity: np.ndarray,  # [S] coefficients of the head's own identity
    hidden: tuple[str, ...],  # beginnings of the names of regions that FLAME does not have
    eyeballs: tuple[str, ...],
    seed: int = 0,
    amplitude: float = 0.0015,  # metres
) -> FlameFromHead:
    """``head`` with another identity, a smooth warp outside its identity space, another mesh and vertex order, without
    its inside; its controls' true shapes, as principal components, are the file's expressions."""
    rng = np.random.default_rng(seed)
    warp = _warp(rng, amplitude)
    neutral = head.vertices + np.tensordot(identity, head.identity, 1)
    warped = warp(neutral)

    def part(names: tuple[str, ...]) -> np.ndarray:
        return np.isin(head.region, [i for i, name in enumerate(head.region_names) if name.startswith(names)])

    kept = np.flatnonzero(~part(hidden))
    triangles, source, spread = _split_edges(head.triangles[kept], kept, len(neutral), rng)
    used = rng.permutation(np.unique(triangles))
    place = np.empty(spread.shape[0], np.int64)
    place[used] = np.arange(len(used))
    spread = spread[used]

    shapes = warp(neutral + np.tensordot(head.controls.to_expression, head.expression, 1)) - warped  # [C, N, 3]
    shapes[:, np.unique(head.triangles[part(eyeballs)])] = 0
    file_shapes = (spread @ shapes.transpose(1, 0, 2).reshape(len(neutral), -1)).reshape(len(used), -1, 3)
    flat = file_shapes.transpose(1, 0, 2).reshape(len(shapes), -1)
    left, size, right = np.linalg.svd(flat, full_matrices=False)
    rank = int((size > 1e-6 * size[0]).sum())
    basis = (size[:rank, None] * right[:rank]).reshape(rank, -1, 3) / np.sqrt(len(shapes))

    # The same joints from the file's vertices: of the split edges' ends only the old vertices are used
    regressor = np.zeros((len(head.joint_names), len(used)))
    for joint, centre in enumerate(head.joint_regressor @ warped):
        near = np.argsort(np.linalg.norm(spread @ warped - centre, axis=1))[:60]
        system = np.concatenate([(spread @ warped)[near].T, np.ones((1, len(near)))])
        regressor[joint, near] = np.linalg.lstsq(system, np.append(centre, 1), rcond=None)[0]
    correctives = spread @ head.pose_correctives.transpose(1, 0, 2).reshape(len(neutral), -1)
    weights = spread @ head.skin_weights
    table = flame_table(
        spread @ warped,
        place[triangles],
        0.1 * (spread @ warped)[None] * np.eye(3)[:, None],  # identity: 10 % larger along each axis
        basis,
        correctives.reshape(len(used), -1, 3).transpose(1, 0, 2),
        regressor,
        weights / weights.sum(1, keepdims=True),
    )
    return FlameFromHead(table, spread, warped, left[:, :rank] * np.sqrt(len(shapes)), source)


def _warp(rng: np.random.Generator, amplitude: float):
    """Other proportions, and waves about 20 cm long of ``amplitude`` metres each."""
    waves = [(rng.normal(size=3) * 14, rng.uniform(0, 6.28, 3), rng.normal(size=3) * amplitude) for _ in range(6)]
    stretch = rng.uniform(0.94, 1.08, 3)

    def warp(points: np.ndarray) -> np.ndarray:
        return points * stretch + sum(a * np.sin((points @ k)[..., None] + phase) for k, phase, a in waves)

    return warp


def _split_edges(
    triangles: np.ndarray, source: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Another mesh of the same surface: a random half of the triangles get an edge split, together with the neighbour
    across it. Returns triangles, the source of each, and the matrix from old vertices to all."""
    beside: dict[tuple[int, int], list[int]] = {}
    for row, (a, b, c) in enumerate(triangles.tolist()):
        for edge in ((a, b), (b, c), (c, a)):
            beside.setdefault((min(edge), max(edge)), []).append(row)
    edges = list(beside)
    taken = np.zeros(len(triangles), bool)
    new, new_source, ends = [], [], []
    for i in rng.permutation(len(edges))[: len(edges) // 2]:
        rows = beside[edges[i]]
        if taken[rows].any():
            continue
        taken[rows] = True
        middle = count + len(ends)
        ends.append(edges[i])
        for row in rows:
            a, b, c = triangles[row].tolist()
            while {a, b} != set(edges[i]):
                a, b, c = b, c, a
            new += [(a, middle, c), (middle, b, c)]
            new_source += [source[row]] * 2
    halves = np.repeat(np.arange(len(ends)), 2)
    added = sparse.coo_matrix((np.full(2 * len(ends), 0.5), (halves, np.ravel(ends))), (len(ends), count))
    spread = sparse.vstack([sparse.identity(count), added]).tocsr()
    return np.concatenate([triangles[~taken], new]), np.concatenate([source[~taken], new_source]), spread
