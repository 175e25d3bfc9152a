"""Splats inside the .blend: attributes on the points of a mesh data-block that the head's mesh data points to.

The pointer sits on the mesh data, not on the object, so that duplicating, linking, appending and overriding the rig
carry the splats along by Blender's own means.
"""

from __future__ import annotations

import bpy
import numpy as np

from ..engine.avatar.splats import SplatArrays
from .bound_triangles import mark_triangles

SH_PREFIX = "sh_"


class HeadStudioMesh(bpy.types.PropertyGroup):
    """What a head's mesh data knows of its avatar."""

    splats: bpy.props.PointerProperty(type=bpy.types.Mesh, name="Splats", description="Splats bound to this mesh")


def store_splats(splats: SplatArrays, name: str) -> bpy.types.Mesh:
    """A new data-block that holds ``splats``; its points show where they lie in their triangles' frames."""
    data = bpy.data.meshes.new(f"{name} splats")
    data.vertices.add(len(splats))
    if len(splats):  # a mesh without vertices has no positions either
        _set(data.attributes["position"].data, "vector", splats.offset)
    _write(data, "triangle", "INT", "value", splats.triangle.astype(np.int32))
    _write(data, "scale", "FLOAT_VECTOR", "vector", splats.scale)
    _write(data, "rotation", "QUATERNION", "value", splats.rotation)
    _write(data, "opacity", "FLOAT", "value", splats.opacity)
    for k in range(splats.sh.shape[1]):
        _write(data, f"{SH_PREFIX}{k}", "FLOAT_VECTOR", "vector", splats.sh[:, k])
    return data


def bind_splats(mesh: bpy.types.Mesh, splats: bpy.types.Mesh) -> None:
    """Let a head's fresh mesh, whose faces are the head's triangles in order, carry ``splats``."""
    mesh.headstudio.splats = splats
    mark_triangles(mesh)


def load_splats(data: bpy.types.Mesh) -> SplatArrays:
    """The inverse of :func:`store_splats`. A data-block that holds no splats raises ``ValueError``."""
    count = len(data.vertices)
    degree = sum(1 for attribute in data.attributes if attribute.name.startswith(SH_PREFIX))
    coefficients = [_read(data, f"{SH_PREFIX}{k}", "vector", 3) for k in range(degree)]
    return SplatArrays(
        triangle=_read(data, "triangle", "value", 1, np.int32)[:, 0],
        offset=_read(data, "position", "vector", 3) if count else np.zeros((0, 3), np.float32),
        scale=_read(data, "scale", "vector", 3),
        rotation=_read(data, "rotation", "value", 4),
        sh=np.stack(coefficients, 1) if coefficients else np.zeros((count, 0, 3), np.float32),
        opacity=_read(data, "opacity", "value", 1)[:, 0],
    )


def _write(data: bpy.types.Mesh, name: str, kind: str, field: str, values: np.ndarray) -> None:
    _set(data.attributes.new(name, kind, "POINT").data, field, values)


def _set(attribute: bpy.types.bpy_prop_collection, field: str, values: np.ndarray) -> None:
    attribute.foreach_set(field, np.ascontiguousarray(values).ravel())


def _read(data: bpy.types.Mesh, name: str, field: str, width: int, kind=np.float32) -> np.ndarray:
    attribute: bpy.types.Attribute = data.attributes.get(name)
    if attribute is None:
        raise ValueError(f"The mesh {data.name!r} holds no splats: its attribute {name!r} is missing.")
    values = np.empty(len(data.vertices) * width, kind)
    attribute.data.foreach_get(field, values)
    return values.reshape(-1, width)
