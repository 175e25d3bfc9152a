"""FLAME files of any version, read by their structure into :class:`HeadArrays`. We ship none: the user brings one."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from scipy import sparse

from ..avatar.archive import read_archive, write_archive
from ..errors import UserError
from .arrays import JOINT_NAMES, JOINT_PARENTS, Controls, HeadArrays, Landmarks
from .default_head import default_head
from .registration import register
from .restricted_pickle import load as read_pickle
from .surface import components, cylindrical_uv
from .transfer import Transfer

IDENTITIES, EXPRESSIONS = 300, 100  # the published files' split of shapedirs; any other is found from the numbers
_REQUIRED = ("v_template", "f", "shapedirs", "J_regressor", "weights", "kintree_table")
_WHERE = "Get it from https://flame.is.tue.mpg.de."


def load_flame(
    path: str | os.PathLike[str],
    landmark_embedding: str | os.PathLike[str] | None = None,
    expression_count: int | None = None,
    cache_dir: Path | None = None,
) -> HeadArrays:
    """A FLAME file as a complete head: ``read_flame`` plus landmarks, regions and ARKit's 52 controls.

    These come from the default head, registered to the file's template (``registration``, ``transfer``). Landmarks that
    the user's ``landmark_embedding`` (MediaPipe's, for FLAME) has are taken from it. Registration takes some 20 s and
    is kept in ``cache_dir`` (default: the user's cache folder) by the file's hash.

    Raises ``UserError`` as ``read_flame`` and ``read_landmark_embedding`` do, or if the default head cannot be built.
    """
    path = Path(path)
    head = read_flame(path, expression_count)
    own = read_landmark_embedding(landmark_embedding, len(head.triangles)) if landmark_embedding is not None else None
    source = default_head(cache_dir)
    folder = Path(cache_dir) if cache_dir is not None else Path(platformdirs.user_cache_dir("headstudio"))
    cached = folder / f"flame-{_cache_key(path, source)}-{len(head.expression)}.npz"
    try:
        head = _from_cache(head, cached)
    except (UserError, ValueError, KeyError):  # missing or damaged: made anew
        transfer = Transfer(source, register(source, head), head)
        head = replace(
            head,
            controls=transfer.controls(),
            landmarks=transfer.landmarks(),
            region=transfer.regions(),
            region_names=source.region_names,
        )
        with contextlib.suppress(UserError, OSError):  # a cache that cannot be written only costs time
            folder.mkdir(parents=True, exist_ok=True)
            _to_cache(head, cached)
    return head if own is None else replace(head, landmarks=_merge(own, head.landmarks))


def _cache_key(path: Path, source: HeadArrays) -> str:
    """Changes with the file, with the default head, and with the sources that register one to the other."""
    digest = hashlib.sha256(path.read_bytes())
    for name in ("registration.py", "transfer.py", "surface.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    for record in (source, source.controls, source.landmarks):
        for item in fields(record):
            value = getattr(record, item.name)
            digest.update(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else item.name.encode())
    return digest.hexdigest()[:16]


def _to_cache(head: HeadArrays, path: Path) -> None:
    names = {"control_names": head.controls.names, "region_names": head.region_names}
    write_archive(
        path,
        {
            **{name: np.array(value) for name, value in names.items()},
            "to_expression": head.controls.to_expression,
            "to_joints": head.controls.to_joints,
            "indices": head.landmarks.indices,
            "triangles": head.landmarks.triangles,
            "barycentric": head.landmarks.barycentric,
            "region": head.region,
        },
    )


def _from_cache(head: HeadArrays, path: Path) -> HeadArrays:
    table = read_archive(path, "cached head")
    return replace(
        head,
        controls=Controls(tuple(table["control_names"].tolist()), table["to_expression"], table["to_joints"]),
        landmarks=Landmarks(table["indices"], table["triangles"], table["barycentric"]),
        region=table["region"],
        region_names=tuple(table["region_names"].tolist()),
    )


def _merge(first: Landmarks, second: Landmarks) -> Landmarks:
    """All of ``first``, and those of ``second`` that it lacks, in the order of MediaPipe's indices."""
    keep = ~np.isin(second.indices, first.indices)
    indices = np.concatenate([first.indices, second.indices[keep]])
    order = np.argsort(indices, kind="stable")
    return Landmarks(
        indices[order],
        np.concatenate([first.triangles, second.triangles[keep]])[order],
        np.concatenate([first.barycentric, second.barycentric[keep]])[order],
    )


def read_flame(path: str | os.PathLike[str], expression_count: int | None = None) -> HeadArrays:
    """The file's own arrays, without controls, landmarks and regions (``load_flame`` adds them).

    ``path`` is FLAME's pickle (``generic_model.pkl``, ``flame2023.pkl``, ``flame2023_Open.pkl`` ...) or an ``.npz``
    with the same keys: ``v_template`` [N, 3] metres, ``f`` [M, 3], ``shapedirs`` [N, 3, S + E] identity first,
    ``J_regressor`` [5, N] dense or sparse, ``weights`` [N, 5], ``kintree_table`` [2, 5], and perhaps ``posedirs``
    [N, 3, 36] (none: no pose correctives), ``vt`` [T, 2] with ``ft`` [M, 3] (none: a cylindrical UV).

    ``expression_count`` is E. Without it: 400 components are FLAME's 300 + 100; in another number E begins where the
    components' size jumps up, because each of the two bases is sorted by size.

    Raises ``UserError`` if the file is missing, damaged, hostile, not FLAME's form, or does not tell E.
    """
    path = Path(path)
    table = _read_table(path)
    missing = [key for key in _REQUIRED if key not in table]
    if missing:
        raise UserError(f"{path} is no FLAME model: it has no {', '.join(missing)}. {_WHERE}")

    vertices = _floats(path, table, "v_template", (None, 3))
    n = len(vertices)
    triangles = _triangles(path, table, "f", n)
    height = float(np.ptp(vertices, axis=0).max()) if n else 0.0
    if not 0.1 <= height <= 0.6:
        raise UserError(f"{path} holds a head {height:.3g} m large, but FLAME's is in metres. {_WHERE}")
    _check_joints(path, table)
    joints = len(JOINT_NAMES)
    weights = _floats(path, table, "weights", (n, joints))
    regressor = _floats(path, table, "J_regressor", (joints, n))
    for name, rows in (("weights", weights), ("J_regressor", regressor)):
        if np.abs(rows.sum(1) - 1).max() > 1e-2:
            raise UserError(f"{path} is damaged: rows of {name} do not sum to 1. Download it again.")
    shapes = _floats(path, table, "shapedirs", (n, 3, None))
    identities = shapes.shape[2] - _expression_count(path, shapes, expression_count)
    shapes = np.ascontiguousarray(shapes.transpose(2, 0, 1))
    correctives = np.zeros((9 * (joints - 1), n, 3), np.float32)
    if "posedirs" in table:
        posedirs = _floats(path, table, "posedirs", (n, 3, 9 * (joints - 1)))
        correctives = np.ascontiguousarray(posedirs.transpose(2, 0, 1))
    if "vt" in table and "ft" in table:
        uv = _floats(path, table, "vt", (None, 2))
        uv_triangles = _triangles(path, table, "ft", len(uv), len(triangles))
    else:
        uv, uv_triangles = cylindrical_uv(vertices, triangles, components(triangles, n))

    return HeadArrays(
        name=f"FLAME ({path.stem})",
        licence=_licence(path),
        vertices=vertices,
        triangles=triangles,
        identity=shapes[:identities],
        identity_names=tuple(f"identity_{i:03d}" for i in range(identities)),
        expression=shapes[identities:],
        expression_names=tuple(f"expression_{i:03d}" for i in range(len(shapes) - identities)),
        pose_correctives=correctives,
        joint_regressor=regressor,
        parents=np.array(JOINT_PARENTS, np.int32),
        joint_names=JOINT_NAMES,
        skin_weights=weights,
        controls=Controls(
            (), np.zeros((0, len(shapes) - identities), np.float32), np.zeros((0, joints, 3), np.float32)
        ),
        landmarks=Landmarks(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.float32)),
        uv=uv,
        uv_triangles=uv_triangles,
        region=np.zeros(len(triangles), np.uint8),
        joints_follow_expression=True,
    )


def read_landmark_embedding(path: str | os.PathLike[str], triangle_count: int) -> Landmarks:
    """The user's ``mediapipe_landmark_embedding.npz``: points on FLAME's triangles for brows, eyes, nose and lips.

    Raises ``UserError`` if the file is missing, damaged, or belongs to a mesh with more triangles.
    """
    path = Path(path)
    table = read_archive(path, "landmark file")
    missing = [key for key in ("lmk_face_idx", "lmk_b_coords", "landmark_indices") if key not in table]
    if missing:
        raise UserError(f"{path} is no MediaPipe landmark embedding: it has no {', '.join(missing)}. {_WHERE}")
    barycentric = _floats(path, table, "lmk_b_coords", (None, 3))
    count = len(barycentric)
    triangles = _integers(path, table, "lmk_face_idx", (count,), triangle_count)
    indices = _integers(path, table, "landmark_indices", (count,), 478)
    if np.abs(barycentric.sum(1) - 1).max(initial=0) > 1e-2 or barycentric.min(initial=0) < -1e-2:
        raise UserError(f"{path} is damaged: lmk_b_coords are no barycentric coordinates. {_WHERE}")
    if len(np.unique(indices)) != count:
        raise UserError(f"{path} is damaged: landmark_indices names a landmark twice. {_WHERE}")
    return Landmarks(indices, triangles, barycentric)


def _read_table(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError:
        start = b""  # the pickle reader says what is wrong with the path
    return read_archive(path, "head file") if start == b"PK\x03\x04" else read_pickle(path)


def _fail(path: Path, name: str, what: str) -> UserError:
    return UserError(f"{path} is not a FLAME file that we can read: {name} {what}. {_WHERE}")


def _array(path: Path, table: dict, name: str, shape: tuple[int | None, ...], kinds: str) -> np.ndarray:
    value = table[name]
    expected = "(" + ", ".join("any" if side is None else str(side) for side in shape) + ")"
    found = getattr(value, "shape", None)
    if found is None or len(found) != len(shape):
        raise _fail(path, name, f"should be an array of shape {expected} but is {_describe(value)}")
    if any(side is not None and side != got for side, got in zip(shape, found, strict=True)):
        raise _fail(path, name, f"has shape {tuple(found)} instead of {expected}")
    array = value.toarray() if sparse.issparse(value) else np.asarray(value)
    if array.dtype.kind not in kinds:
        raise _fail(path, name, f"holds {array.dtype}")
    return array


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"of shape {tuple(shape)}" if shape is not None else f"a {type(value).__name__}"


def _floats(path: Path, table: dict, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is then refused
        array = np.ascontiguousarray(_array(path, table, name, shape, "f"), dtype=np.float32)
    if not np.isfinite(array).all():
        raise _fail(path, name, "holds numbers that are not finite")
    return array


def _integers(path: Path, table: dict, name: str, shape: tuple[int | None, ...], limit: int) -> np.ndarray:
    array = _array(path, table, name, shape, "iu")
    if array.size and (array.min() < 0 or array.max() >= limit):
        raise _fail(path, name, f"points outside its range of {limit}")
    return np.ascontiguousarray(array, dtype=np.int32)


def _triangles(path: Path, table: dict, name: str, limit: int, count: int | None = None) -> np.ndarray:
    triangles = _integers(path, table, name, (count, 3), limit)
    if not len(triangles):
        raise _fail(path, name, "is empty")
    return triangles


def _check_joints(path: Path, table: dict) -> None:
    joints = len(JOINT_NAMES)
    tree = _array(path, table, "kintree_table", (2, None), "iuf")
    # The root's parent is written as -1, or as what -1 becomes in 32 or 64 unsigned bits: its column is not read.
    if tree.shape[1] != joints or tree[0, 1:].tolist() != list(JOINT_PARENTS[1:]):
        parents = ", ".join(str(parent) for parent in tree[0, 1:9].tolist())
        raise _fail(path, "kintree_table", f"is another skeleton (parents {parents}; FLAME's are 0, 1, 1, 1)")


def _expression_count(path: Path, shapes: np.ndarray, told: int | None) -> int:
    total = shapes.shape[2]
    if told is not None:
        if not 0 <= told <= total:
            raise UserError(f"{path} has {total} shape components, so it cannot have {told} expressions.")
        return told
    if total == IDENTITIES + EXPRESSIONS:
        return EXPRESSIONS
    size = np.linalg.norm(shapes, axis=(0, 1))
    jump = size[1:] / np.maximum(size[:-1], 1e-12)
    if total < 2 or jump.max() < 2:
        raise UserError(
            f"{path} does not tell how many of its {total} shape components are expressions (FLAME has 300 + 100). "
            "Give the number of expressions."
        )
    return total - 1 - int(jump.argmax())


def _licence(path: Path) -> str:
    if "open" in path.stem.lower():
        # A name proves nothing, so the mark says what it rests on.
        return "FLAME 2023 Open by its file name: CC-BY-4.0 if it is; see the file's own licence"
    return "FLAME: see the file's own licence (non-commercial unless you know otherwise)"
