"""The avatar file ``NAME.avatar.npz``: head, splats and provenance in one file (numpy and the standard library only).

An ``.npz`` archive with ``meta``, a JSON text, and arrays under ``head.*``, ``controls.*``, ``landmarks.*`` and
``splats.*``. The head has its identity baked in, so that the file plays back alone. To stay small it stores

- displacements (expressions, pose correctives) as int16 multiples of one step per component, a power of two: wrong by
  at most 1/32767 of the component's largest displacement, a micrometre for 3 cm;
- skin weights as uint16 that sum to 65535, wrong by at most 4e-5;
- offsets, scales and SH as float16 (relative error at most 4.9e-4; scales no smaller than 6.1e-5), unit quaternions
  as int16 (1.6e-5), opacities as uint16 (7.7e-6).

What was read writes the same bytes again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..heads.arrays import Controls, HeadArrays, Landmarks
from ..heads.skinning import rest_vertices
from .archive import read_archive, write_archive
from .splats import SplatArrays

__all__ = ["Avatar", "SplatArrays", "bake_identity", "load_avatar", "save_avatar"]

FORMAT = "headstudio avatar"
VERSION = 1
_SMALLEST_SCALE = float(np.finfo(np.float16).tiny)  # below it float16 loses digits; a splat 1/16000 of its triangle
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Avatar:
    """A head with its identity baked in, the splats on it, and where they come from.

    Raises ``ValueError`` if a splat is bound to a triangle that the head has not.
    """

    head: HeadArrays
    splats: SplatArrays
    provenance: dict = field(default_factory=dict)  # prompt, seed, settings, prior, versions, metrics: JSON values

    def __post_init__(self) -> None:
        if len(self.splats) and int(self.splats.triangle.max()) >= len(self.head.triangles):
            raise ValueError(
                f"a splat is bound to triangle {int(self.splats.triangle.max())}, the head has "
                f"{len(self.head.triangles)}"
            )


def bake_identity(
    head: HeadArrays,
    identity: np.ndarray | None = None,  # [S]
) -> HeadArrays:
    """The head whose rest shape is the one that ``identity`` gives, without identity components."""
    none = np.zeros((0, *head.vertices.shape), np.float32)
    return replace(head, vertices=rest_vertices(head, identity).astype(np.float32), identity=none, identity_names=())


def save_avatar(path: str | os.PathLike[str], avatar: Avatar) -> None:
    """Writes the file atomically. Raises ``UserError`` if it cannot be written, ``ValueError`` if the head still has
    identity components or the provenance is no JSON."""
    write_archive(path, pack_avatar(avatar))


def pack_avatar(avatar: Avatar) -> dict[str, np.ndarray]:
    """What the file holds, by name. Raises ``ValueError`` as :func:`save_avatar` does."""
    head, splats = avatar.head, avatar.splats
    if len(head.identity_names):
        raise ValueError("bake the head's identity before saving: see bake_identity")
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "head": {
            "name": head.name,
            "licence": head.licence,
            "expression_names": head.expression_names,
            "joint_names": head.joint_names,
            "control_names": head.controls.names,
            "region_names": head.region_names,
            "joints_follow_expression": head.joints_follow_expression,
        },
        "provenance": avatar.provenance,
    }
    return {
        "meta": np.array(json.dumps(meta, ensure_ascii=True, allow_nan=False)),
        "head.vertices": head.vertices.astype(np.float32),
        "head.triangles": head.triangles.astype(np.int32),
        **_pack_displacements("head.expression", head.expression),
        **_pack_displacements("head.pose_correctives", head.pose_correctives),
        "head.joint_regressor": head.joint_regressor.astype(np.float32),
        "head.parents": head.parents.astype(np.int32),
        "head.skin_weights": _pack_weights(head.skin_weights),
        "head.uv": head.uv.astype(np.float32),
        "head.uv_triangles": head.uv_triangles.astype(np.int32),
        "head.region": head.region.astype(np.uint8),
        "controls.to_expression": head.controls.to_expression.astype(np.float32),
        "controls.to_joints": head.controls.to_joints.astype(np.float32),
        "landmarks.indices": head.landmarks.indices.astype(np.int32),
        "landmarks.triangles": head.landmarks.triangles.astype(np.int32),
        "landmarks.barycentric": head.landmarks.barycentric.astype(np.float32),
        "splats.triangle": splats.triangle.astype(np.int32),
        "splats.offset": np.clip(splats.offset, -_LARGEST, _LARGEST).astype(np.float16),
        "splats.scale": np.clip(splats.scale, _SMALLEST_SCALE, _LARGEST).astype(np.float16),
        "splats.rotation": np.rint(np.clip(splats.rotation, -1, 1) * 32767).astype(np.int16),
        "splats.sh": np.clip(splats.sh, -_LARGEST, _LARGEST).astype(np.float16),
        "splats.opacity": np.rint(splats.opacity * 65535).astype(np.uint16),
    }


def load_avatar(path: str | os.PathLike[str]) -> Avatar:
    """Reads and checks an avatar file.

    Raises ``UserError`` with the file's name if it is missing, damaged, not an avatar, or of a newer version than this
    program knows.
    """
    return unpack_avatar(read_archive(path, "avatar file"), Path(path))


def unpack_avatar(arrays: dict[str, np.ndarray], path: Path) -> Avatar:
    """The inverse of :func:`pack_avatar`. Raises ``UserError`` as :func:`load_avatar` does, naming ``path``."""
    meta = _read_meta(path, arrays)
    try:
        return _Reader(arrays).avatar(meta)
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is not a sound avatar file: {reason}. Take another copy or make it anew.") from error


def _read_meta(path: Path, arrays: dict[str, np.ndarray]) -> dict:
    text = arrays.get("meta")
    try:
        if text is None or text.dtype.kind != "U" or text.shape != ():
            raise ValueError("it has no description")
        meta = json.loads(str(text))
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise ValueError("its description is of something else")
        version = meta.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ValueError(f"its version is {version!r}")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not an avatar file: {error}. Choose a file that ends in .avatar.npz.") from error
    if version > VERSION:
        raise UserError(
            f"{path} was written by a newer HeadStudio (file version {version}, this one reads up to {VERSION}). "
            "Update HeadStudio to open it."
        )
    return meta


class _Reader:
    """Takes typed arrays out of an archive; a fault is a ``ValueError`` or ``KeyError`` that names the array."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def take(self, name: str, kind: type, dimensions: int) -> np.ndarray:
        array = self.arrays[name]
        if array.dtype != np.dtype(kind) or array.ndim != dimensions:
            raise ValueError(f"{name} is {array.dtype} with shape {array.shape}")
        return array.astype(array.dtype)  # writable, and no longer a view of the file

    def displacements(self, name: str) -> np.ndarray:
        steps = self.take(f"{name}.step", np.float32, 1)
        packed = self.take(name, np.int16, 3)
        if len(steps) != len(packed):
            raise ValueError(f"{name}.step has shape {steps.shape}")
        with np.errstate(over="ignore", invalid="ignore"):  # HeadArrays looks for what is not finite
            return packed * steps[:, None, None]

    def avatar(self, meta: dict) -> Avatar:
        about, provenance = meta.get("head"), meta.get("provenance")
        if not isinstance(about, dict) or not isinstance(provenance, dict):
            raise ValueError("its description lacks the head or the provenance")
        vertices = self.take("head.vertices", np.float32, 2)
        weights = self.take("head.skin_weights", np.uint16, 2)
        if (weights.sum(1, dtype=np.int64) != 65535).any():
            raise ValueError("head.skin_weights has a vertex whose weights do not sum to 1")
        head = HeadArrays(
            name=_text(about, "name"),
            licence=_text(about, "licence"),
            vertices=vertices,
            triangles=self.take("head.triangles", np.int32, 2),
            identity=np.zeros((0, *vertices.shape), np.float32),
            identity_names=(),
            expression=self.displacements("head.expression"),
            expression_names=_names(about, "expression_names"),
            pose_correctives=self.displacements("head.pose_correctives"),
            joint_regressor=self.take("head.joint_regressor", np.float32, 2),
            parents=self.take("head.parents", np.int32, 1),
            joint_names=_names(about, "joint_names"),
            skin_weights=weights.astype(np.float32) / 65535,
            controls=Controls(
                names=_names(about, "control_names"),
                to_expression=self.take("controls.to_expression", np.float32, 2),
                to_joints=self.take("controls.to_joints", np.float32, 3),
            ),
            landmarks=Landmarks(
                indices=self.take("landmarks.indices", np.int32, 1),
                triangles=self.take("landmarks.triangles", np.int32, 1),
                barycentric=self.take("landmarks.barycentric", np.float32, 2),
            ),
            uv=self.take("head.uv", np.float32, 2),
            uv_triangles=self.take("head.uv_triangles", np.int32, 2),
            region=self.take("head.region", np.uint8, 1),
            region_names=_names(about, "region_names"),
            joints_follow_expression=about.get("joints_follow_expression") is True,
        )
        splats = SplatArrays(
            triangle=self.take("splats.triangle", np.int32, 1),
            offset=self.take("splats.offset", np.float16, 2).astype(np.float32),
            scale=self.take("splats.scale", np.float16, 2).astype(np.float32),
            rotation=self.take("splats.rotation", np.int16, 2).astype(np.float32) / 32767,
            sh=self.take("splats.sh", np.float16, 3).astype(np.float32),
            opacity=self.take("splats.opacity", np.uint16, 1).astype(np.float32) / 65535,
        )
        return Avatar(head, splats, provenance)


def _pack_displacements(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """[E, N, 3] metres as int16 multiples of one step per component."""
    mantissa, exponent = np.frexp(np.abs(array).max((1, 2), initial=0).astype(np.float64) / 32767)
    steps = np.ldexp(1.0, exponent - (mantissa == 0.5)).astype(np.float32)  # the next power of two, or itself
    steps = np.maximum(steps, np.finfo(np.float32).tiny)
    return {name: np.rint(array / steps[:, None, None]).astype(np.int16), f"{name}.step": steps}


def _pack_weights(weights: np.ndarray) -> np.ndarray:
    """[N, J] in 1/65535; what rounding leaves over goes to each vertex's largest weight, so that rows sum to 1."""
    packed = np.rint(np.clip(weights, 0, 1) * 65535).astype(np.int64)
    largest = packed.argmax(1)[:, None]
    rest = 65535 - packed.sum(1, keepdims=True)
    np.put_along_axis(packed, largest, np.take_along_axis(packed, largest, 1) + rest, 1)
    return np.clip(packed, 0, 65535).astype(np.uint16)


def _text(about: dict, key: str) -> str:
    if not isinstance(about.get(key), str):
        raise ValueError(f"the head's {key} is {about.get(key)!r}, not text")
    return about[key]


def _names(about: dict, key: str) -> tuple[str, ...]:
    names = about.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the head's {key} are not a list of names")
    return tuple(names)
