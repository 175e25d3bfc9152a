"""The avatars that a depsgraph shows: its own, instanced, linked and overridden ones, each posed from its mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import bpy
import numpy as np

from ..engine.avatar.splats import SplatArrays
from .bound_triangles import HeadGeometry
from .posed_triangles import PosedTriangles
from .splat_budget import thinned
from .splat_data import load_splats
from .splat_draw import SplatDrawing, SplatGroup


@dataclass
class _Source:
    """The splats of one data-block, all of them and those within the budget."""

    splats: SplatArrays
    within: SplatArrays
    fraction: float = 1.0


@dataclass
class _Seen:
    """A mesh with splats somewhere in the scene: one for each instance of it."""

    key: tuple
    block: int  # session id of the splats' data-block
    geometry: HeadGeometry
    matrix: np.ndarray  # [4, 4] to the world
    shown: bool


class SceneAvatars:
    """Follows the avatars of one view layer. ``group`` draws them; ``shown`` says which of them this view shows.

    ``update`` looks at everything anew but works on what has changed alone, so that no edit can be missed and a view
    that merely turns costs little more than the walk over the scene's objects.
    """

    def __init__(self):
        self.group = SplatGroup([])
        self.shown: tuple[bool, ...] = ()
        self.notices: dict[str, str] = {}  # by object: what the artist should know of avatars not drawn in full
        self._sources: dict[int, _Source] = {}  # by session id of the splats' data-block
        self._geometries: dict[int, HeadGeometry] = {}  # by session id of the mesh object
        self._drawings: dict[tuple, SplatDrawing] = {}
        self._poses: dict[tuple, tuple] = {}

    def update(
        self,
        depsgraph: bpy.types.Depsgraph,
        budget: int = 0,
        is_shown: Callable[[bpy.types.Object], bool] = lambda _item: True,
    ) -> None:
        """Take in the evaluated scene. ``budget``: splats to draw, all avatars together; 0: all there are.

        ``is_shown`` is asked about the object that stands in the scene: of an instance, the one that instances it.
        """
        seen = self._walk(depsgraph, is_shown)
        total = sum(len(self._sources[item.block].splats) for item in seen)
        fraction = min(1.0, budget / total) if budget and total else 1.0
        drawings, poses = {}, {}
        for item in seen:
            splats = self._within(item, fraction)
            drawing = self._drawings.get(item.key)
            if drawing is None or drawing.splats is not splats:
                drawing, pose = SplatDrawing(splats), None
            else:
                pose = self._poses[item.key]
            drawings[item.key], poses[item.key] = drawing, (item.geometry.version, item.matrix.tobytes())
            if pose != poses[item.key]:
                drawing.pose(item.geometry.vertices, item.geometry.triangles, item.matrix)
        if list(drawings.values()) != self.group.drawings:
            self.group = SplatGroup(list(drawings.values()))
        self._drawings, self._poses = drawings, poses
        self.shown = tuple(item.shown for item in seen)

    def _walk(self, depsgraph: bpy.types.Depsgraph, is_shown: Callable[[bpy.types.Object], bool]) -> list[_Seen]:
        seen: list[_Seen] = []
        geometries: dict[int, HeadGeometry] = {}
        notices: dict[str, str] = {}
        blocks = set()
        for instance in depsgraph.object_instances:
            item = instance.object
            if item.type != "MESH" or not instance.show_self:
                continue
            original = item.original
            data = original.data
            block = data.headstudio.splats if isinstance(data, bpy.types.Mesh) else None
            if block is None:
                continue
            try:
                source = self._source(block)
            except ValueError as error:
                notices[original.name] = str(error)
                continue
            blocks.add(block.session_uid)
            mesh_id = original.session_uid
            if mesh_id not in geometries:
                geometries[mesh_id] = self._geometry(mesh_id, item, source.splats)
                notice = _notice(original.name, geometries[mesh_id], source.splats)
                if notice:
                    notices[original.name] = notice
            host = instance.parent if instance.is_instance else item
            place = (host.original.session_uid, *instance.persistent_id) if instance.is_instance else ()
            matrix = np.array(instance.matrix_world)
            seen.append(
                _Seen((mesh_id, *place), block.session_uid, geometries[mesh_id], matrix, is_shown(host.original))
            )
        self._sources = {key: source for key, source in self._sources.items() if key in blocks}
        self._geometries, self.notices = geometries, notices
        return seen

    def _source(self, block: bpy.types.Mesh) -> _Source:
        """Raises ``ValueError`` if the data-block holds no splats."""
        if block.session_uid not in self._sources:
            splats = load_splats(block)
            self._sources[block.session_uid] = _Source(splats, splats)
        return self._sources[block.session_uid]

    def _geometry(self, mesh_id: int, item: bpy.types.Object, splats: SplatArrays) -> HeadGeometry:
        count = int(splats.triangle.max()) + 1 if len(splats) else 0
        geometry = self._geometries.get(mesh_id)
        if geometry is None or geometry.count != count:
            geometry = HeadGeometry(count)
        if item.original.mode == "EDIT":
            # What edit mode works on is no mesh until it is asked to be one
            geometry.read(item.to_mesh())
            item.to_mesh_clear()
        else:
            geometry.read(item.data)
        return geometry

    def _within(self, item: _Seen, fraction: float) -> SplatArrays:
        source = self._sources[item.block]
        if source.fraction != fraction:
            triangles = PosedTriangles(item.geometry.count)
            triangles.pose(item.geometry.vertices, item.geometry.triangles, np.eye(4))
            source.within = thinned(source.splats, triangles.size, int(fraction * len(source.splats)))
            source.fraction = fraction
        return source.within


def _notice(name: str, geometry: HeadGeometry, splats: SplatArrays) -> str | None:
    """What the artist should know where not all of a head's triangles could be found."""
    if not len(splats) or geometry.present.all():
        return None
    if not geometry.marked:
        return (
            f"{name} shows no splats: its mesh has lost the attributes by which they find their triangles. Undo, or "
            f"turn off the modifier that makes a new mesh (Remesh, for example), or import the avatar again."
        )
    missing = int((~geometry.present[splats.triangle]).sum())
    if not missing:
        return None
    return (
        f"{name}: {missing:,} of {len(splats):,} splats are not drawn, because edits or modifiers have removed "
        f"their triangles."
    )
