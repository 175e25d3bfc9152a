"""What a final render draws: the avatars of an evaluated scene, and the surfaces that hide them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import bpy
import numpy as np
from mathutils import Matrix

from ..engine.avatar.posing import PosedSplats, pose_splats
from ..engine.avatar.splats import SplatArrays
from .bound_triangles import HeadGeometry
from .splat_data import load_splats


@dataclass(frozen=True)
class PosedAvatar:
    """Splats and the head mesh that carries them. The last vertex is NaN: a triangle that is missing consists of it."""

    splats: SplatArrays
    vertices: np.ndarray  # [N, 3] float32 metres, in the object's space
    triangles: np.ndarray  # [M, 3]
    matrix: np.ndarray  # [4, 4] float64, from the object's space to the world

    @property
    def missing(self) -> int:
        """Splats whose triangle the mesh has lost."""
        return int((self.triangles[self.splats.triangle, 0] == len(self.vertices) - 1).sum())

    def posed(self) -> PosedSplats:
        """The splats in the world, without those that are missing or lie on a triangle that is not finite.

        In float64, because a triangle's axes follow from differences of its corners, which may be far from the origin.
        """
        with np.errstate(all="ignore"):
            world = self.vertices @ self.matrix[:3, :3].T + self.matrix[:3, 3]
            posed = pose_splats(self.splats, world, self.triangles)
        sound = np.isfinite(posed.means).all(1) & np.isfinite(posed.scales).all(1)
        return posed if sound.all() else PosedSplats(*(getattr(posed, item.name)[sound] for item in fields(posed)))


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


@dataclass
class RenderedScene:
    """What is drawn, and what the artist should know of that which is not."""

    avatars: list[PosedAvatar] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def rendered_scene(depsgraph: bpy.types.Depsgraph) -> RenderedScene:
    """Avatars and hiding surfaces of all that the depsgraph renders, instances included.

    A head is drawn as its splats alone, and hides nothing: its own surface lies within them. Other surfaces hide
    splats unless rays from the camera do not see them.
    """
    scene = RenderedScene()
    stored: dict[int, SplatArrays] = {}  # by data-block: linked duplicates are read once
    for instance in depsgraph.object_instances:
        item = instance.object
        # What curves, text and metaballs look like comes as meshes of their own
        if item.type != "MESH" or not instance.show_self:
            continue
        origin = item.original.data
        data = origin.headstudio.splats if isinstance(origin, bpy.types.Mesh) else None
        if data is None:
            if item.visible_camera:
                surface = Surface(*mesh_arrays(item.data, instance.matrix_world))
                scene.surfaces += [surface] if len(surface.triangles) else []
            continue
        try:
            if data.session_uid not in stored:
                stored[data.session_uid] = load_splats(data)
        except ValueError as error:
            scene.notices.append(str(error))
            continue
        avatar = posed_avatar(item, instance.matrix_world, stored[data.session_uid])
        if avatar.missing:
            scene.notices.append(
                f"{item.name}: {avatar.missing:,} of {len(avatar.splats):,} splats are not drawn, because edits or "
                "modifiers have removed their triangles."
            )
        scene.avatars.append(avatar)
    return scene


def posed_avatar(item: bpy.types.Object, matrix: Matrix, splats: SplatArrays) -> PosedAvatar:
    """An evaluated head mesh at ``matrix`` and the splats on it."""
    count = int(splats.triangle.max()) + 1 if len(splats) else 0
    geometry = HeadGeometry(count)
    geometry.read(item.data)
    return PosedAvatar(splats, geometry.vertices, geometry.triangles, np.array(matrix, np.float64))
