"""What a final render draws: the avatars of an evaluated scene, and the surfaces that hide them."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix

from ..engine.avatar.splats import SplatArrays
from .splat_data import load_splats


@dataclass(frozen=True)
class PosedAvatar:
    """Splats and the head mesh that carries them."""

    name: str
    splats: SplatArrays
    vertices: np.ndarray  # [N, 3] world, metres
    triangles: np.ndarray  # [M, 3]


@dataclass(frozen=True)
class Surface:
    """Triangles behind which splats are hidden."""

    vertices: np.ndarray  # [N, 3] world, metres
    triangles: np.ndarray  # [M, 3]


def mesh_arrays(mesh: bpy.types.Mesh, matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """World vertices [N, 3] and triangles [M, 3] of an evaluated mesh."""
    vertices = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", vertices)
    mesh.calc_loop_triangles()
    triangles = np.empty(3 * len(mesh.loop_triangles), np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    matrix = np.array(matrix, np.float32)
    return vertices.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3], triangles.reshape(-1, 3)


def rendered_scene(depsgraph: bpy.types.Depsgraph) -> tuple[list[PosedAvatar], list[Surface]]:
    """Avatars and hiding surfaces of all that the depsgraph renders, instances included.

    A head is drawn as its splats alone, and hides nothing: its own surface lies within them. Other surfaces hide
    splats unless rays from the camera do not see them.
    """
    avatars, surfaces = [], []
    stored: dict[int, SplatArrays] = {}  # by data-block: linked duplicates are read once
    for instance in depsgraph.object_instances:
        item = instance.object
        # What curves, text and metaballs look like comes as meshes of their own
        if item.type != "MESH" or not instance.show_self:
            continue
        origin = item.original.data
        data = origin.headstudio.splats if isinstance(origin, bpy.types.Mesh) else None
        if data is not None:
            if data.session_uid not in stored:
                stored[data.session_uid] = load_splats(data)
            arrays = mesh_arrays(item.data, instance.matrix_world)
            avatars.append(PosedAvatar(item.name, stored[data.session_uid], *arrays))
        elif item.visible_camera:
            surfaces.append(Surface(*mesh_arrays(item.data, instance.matrix_world)))
    return avatars, [surface for surface in surfaces if len(surface.triangles)]
