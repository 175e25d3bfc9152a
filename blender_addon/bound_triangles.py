"""The head's triangles in whatever mesh Blender evaluates, whatever modifiers and edit mode have done to it.

A head's mesh carries two attributes: each face says which of the head's triangles it is (a piece of), each corner where
in that triangle it lies. Blender copies the one and interpolates the other wherever it makes new faces. A triangle is
found again as long as its three corners are still there.
"""

from __future__ import annotations

import bpy
import numpy as np

TRIANGLE = "headstudio_triangle"  # on faces, integer: 1 + the triangle; 0 is what Blender gives to faces drawn by hand
CORNER = "headstudio_corner"  # on corners, three floats: barycentric coordinates within the triangle
AT_CORNER = 0.999  # a barycentric coordinate from which on a corner counts as the triangle's own


def mark_triangles(mesh: bpy.types.Mesh) -> None:
    """Note on each face of a head's fresh mesh which triangle it is: they are in the head's own order."""
    count = len(mesh.polygons)
    _attribute(mesh, TRIANGLE, "INT", "FACE").foreach_set("value", np.arange(1, count + 1, dtype=np.int32))
    corners = np.tile(np.eye(3, dtype=np.float32), (count, 1))
    _attribute(mesh, CORNER, "FLOAT_VECTOR", "CORNER").foreach_set("vector", corners.ravel())


def find_triangles(
    corner_vertex: np.ndarray,  # [L] int, the vertex at each corner
    corner_triangle: np.ndarray,  # [L] int, the head's triangle at each corner, negative: none
    corner_place: np.ndarray,  # [L, 3] barycentric coordinates in that triangle
    count: int,
) -> np.ndarray:
    """Vertices [count, 3] int32 of the head's triangles, -1 throughout where one has lost a corner.

    Where a mesh holds a triangle several times (Mirror, Array, Solidify) the first stands for it: the original.
    """
    corner, which = np.nonzero(corner_place >= AT_CORNER)
    triangle = corner_triangle[corner]
    known = (triangle >= 0) & (triangle < count)
    found = np.full(3 * count, -1, np.int32)
    # Backwards, so that the first of several is written last
    found[(3 * triangle + which)[known][::-1]] = corner_vertex[corner][known][::-1]
    found = found.reshape(count, 3)
    found[(found < 0).any(1)] = -1
    return found


class HeadGeometry:
    """Vertices and the head's triangles of one evaluated mesh, in its own space.

    ``read`` costs microseconds while only vertices move: what faces the mesh has is looked into when it has changed.
    """

    def __init__(self, count: int):
        """Prepare for a head's first ``count`` triangles."""
        self.count = count
        self.vertices = np.full((1, 3), np.nan, np.float32)  # [N + 1, 3] metres; the last row is NaN
        self.triangles = np.zeros((count, 3), np.int32)  # rows of `vertices`: where one is missing, the last
        self.present = np.zeros(count, bool)
        self.marked = False  # whether the mesh has the attributes by which triangles are found
        self.version = 0  # rises when anything above has changed
        self._faces: tuple[np.ndarray, ...] = ()
        self._scratch = np.empty((0, 3), np.float32)

    def read(self, mesh: bpy.types.Mesh) -> None:
        """Take in ``mesh`` as it stands."""
        count = len(mesh.vertices)
        before = self.vertices
        if len(before) != count + 1:
            before = None
            self.vertices = np.full((count + 1, 3), np.nan, np.float32)
            self._scratch = np.empty((count, 3), np.float32)
        if count:
            # Several times faster than `vertices`, `loops` and `loop_triangles`, which convert each element
            mesh.attributes["position"].data.foreach_get("vector", self._scratch.ravel())
        faces = self._read_faces(mesh)
        same_faces = len(faces) == len(self._faces) and all(map(np.array_equal, faces, self._faces))
        if before is not None and same_faces and np.array_equal(self._scratch, self.vertices[:-1]):
            return
        self.vertices[:-1] = self._scratch
        self.version += 1
        if before is None or not same_faces:
            self._faces = faces
            self._find(mesh)

    def _read_faces(self, mesh: bpy.types.Mesh) -> tuple[np.ndarray, ...]:
        triangle: bpy.types.Attribute = mesh.attributes.get(TRIANGLE)
        corner: bpy.types.Attribute = mesh.attributes.get(CORNER)
        self.marked = _is(triangle, "INT", "FACE") and _is(corner, "FLOAT_VECTOR", "CORNER")
        if not self.marked or not len(mesh.loops):
            return ()
        corner_vertex = np.empty(len(mesh.loops), np.int32)
        mesh.attributes[".corner_vert"].data.foreach_get("value", corner_vertex)
        face_triangle = np.empty(len(mesh.polygons), np.int32)
        triangle.data.foreach_get("value", face_triangle)
        return corner_vertex, face_triangle

    def _find(self, mesh: bpy.types.Mesh) -> None:
        if not self._faces:
            found = np.full((self.count, 3), -1, np.int32)
        else:
            corner_vertex, face_triangle = self._faces
            sizes = np.empty(len(face_triangle), np.int32)
            mesh.polygons.foreach_get("loop_total", sizes)
            place = np.empty((len(corner_vertex), 3), np.float32)
            mesh.attributes[CORNER].data.foreach_get("vector", place.ravel())
            found = find_triangles(corner_vertex, np.repeat(face_triangle - 1, sizes), place, self.count)
        self.present = found[:, 0] >= 0
        self.triangles = np.where(self.present[:, None], found, np.int32(len(self.vertices) - 1))


def _attribute(mesh: bpy.types.Mesh, name: str, kind: str, domain: str):
    old: bpy.types.Attribute = mesh.attributes.get(name)
    if old is not None:
        mesh.attributes.remove(old)
    return mesh.attributes.new(name, kind, domain).data


def _is(attribute: bpy.types.Attribute | None, kind: str, domain: str) -> bool:
    return attribute is not None and attribute.data_type == kind and attribute.domain == domain
