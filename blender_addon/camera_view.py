"""What a render looks at and through: matrices, the picture's size, and the part of it that is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np


@dataclass(frozen=True)
class CameraView:
    """A pinhole or orthographic camera of Blender and the picture that it takes.

    View space looks along -z with y up. ``border`` is the rectangle to render: left, bottom, right, top in pixels of
    the whole picture, counted from its lower left corner.
    """

    view: np.ndarray  # [4, 4] world to view
    projection: np.ndarray  # [4, 4] view to clip, for the whole picture
    width: int  # pixels of the whole picture
    height: int
    border: tuple[int, int, int, int]

    @property
    def orthographic(self) -> bool:
        return bool(self.projection[3, 3] > 0.5)

    @property
    def clip(self) -> tuple[float, float]:
        """Metres along the view between which the camera sees."""
        a, b = self.projection[2, 2], self.projection[2, 3]
        return ((b + 1) / a, (b - 1) / a) if self.orthographic else (b / (a - 1), b / (a + 1))

    def depth_of(self, points: np.ndarray) -> np.ndarray:
        """Distance along the view [...] of world points [..., 3], metres, positive in front."""
        return -(points @ self.view[2, :3] + self.view[2, 3])

    def shifted(self, x: float, y: float) -> np.ndarray:
        """The projection [4, 4] with everything moved by (x, y) pixels."""
        move = np.eye(4)
        move[0, 3], move[1, 3] = 2 * x / self.width, 2 * y / self.height
        return move @ self.projection

    @property
    def world_to_camera(self) -> np.ndarray:
        """[4, 4] as the engine has it: the camera looks along +z with y down."""
        return np.diag([1.0, -1.0, -1.0, 1.0]) @ self.view

    @property
    def intrinsics(self) -> np.ndarray:
        """[3, 3] pixels, rows counted from the top, as ``engine/camera.py`` has them."""
        p, half_width, half_height = self.projection, self.width / 2, self.height / 2
        return np.array(
            [
                [half_width * p[0, 0], 0.0, half_width * (1 - p[0, 2] + p[0, 3])],
                [0.0, half_height * p[1, 1], half_height * (1 + p[1, 2] - p[1, 3])],
                [0.0, 0.0, 1.0],
            ]
        )


def camera_view(
    depsgraph: bpy.types.Depsgraph, camera: bpy.types.Object, render: bpy.types.RenderSettings, width: int, height: int
) -> CameraView:
    """The view of ``camera`` on a picture of ``width`` x ``height`` pixels with the border and pixels of ``render``."""
    camera = camera.evaluated_get(depsgraph)
    aspect = {"scale_x": render.pixel_aspect_x, "scale_y": render.pixel_aspect_y}
    projection = camera.calc_matrix_camera(depsgraph, x=width, y=height, **aspect)
    border = (0, 0, width, height)
    if render.use_border:
        # Truncated as Blender does it: the result must have exactly its size
        border = (
            int(np.float32(render.border_min_x) * np.float32(width)),
            int(np.float32(render.border_min_y) * np.float32(height)),
            int(np.float32(render.border_max_x) * np.float32(width)),
            int(np.float32(render.border_max_y) * np.float32(height)),
        )
    return CameraView(
        view=np.array(camera.matrix_world.normalized().inverted(), np.float64),
        projection=np.array(projection, np.float64),
        width=width,
        height=height,
        border=border,
    )
