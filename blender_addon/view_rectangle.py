"""Rectangles of a viewport's pixels: what splats can cover, and what the render region leaves."""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import bpy
import numpy as np


class Rectangle(NamedTuple):
    """Whole pixels from the lower left, right and top excluded."""

    left: int
    bottom: int
    right: int
    top: int

    @property
    def width(self) -> int:
        return max(0, self.right - self.left)

    @property
    def height(self) -> int:
        return max(0, self.top - self.bottom)

    @property
    def empty(self) -> bool:
        return self.width * self.height == 0

    def __or__(self, other: Rectangle) -> Rectangle:
        """The least rectangle around both."""
        if self.empty or other.empty:
            return other if self.empty else self
        low, high = np.minimum(self[:2], other[:2]), np.maximum(self[2:], other[2:])
        return Rectangle(*low.tolist(), *high.tolist())

    def __and__(self, other: Rectangle) -> Rectangle:
        """What is in both."""
        low, high = np.maximum(self[:2], other[:2]), np.minimum(self[2:], other[2:])
        return Rectangle(*low.tolist(), *high.tolist())


def covered_rectangle(
    bounds: tuple[np.ndarray, np.ndarray],  # lowest and highest corner [3] of a box in the world
    to_clip: np.ndarray,  # [4, 4] world to clip
    width: int,
    height: int,
    margin: float,
) -> Rectangle:
    """The viewport's pixels that the box covers, with ``margin`` pixels around; all if it reaches behind the eye."""
    corners = np.array([(*corner, 1.0) for corner in product(*zip(*bounds, strict=True))]) @ to_clip.T
    if (corners[:, 3] <= 1e-6).any():
        return Rectangle(0, 0, width, height)
    pixels = (0.5 * corners[:, :2] / corners[:, 3:] + 0.5) * (width, height)
    low, high = pixels.min(0) - margin, pixels.max(0) + margin
    low, high = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
    return Rectangle(math.floor(low[0]), math.floor(low[1]), math.ceil(high[0]), math.ceil(high[1]))


def border_rectangle(context: bpy.types.Context, to_clip: np.ndarray, width: int, height: int) -> Rectangle:
    """The render region where this viewport renders one, otherwise the whole viewport."""
    whole = Rectangle(0, 0, width, height)
    space, render = context.space_data, context.scene.render
    if space.shading.type not in {"MATERIAL", "RENDERED"}:
        return whole  # Blender itself minds it in these modes only
    if context.region_data.view_perspective != "CAMERA":
        if not space.use_render_border:
            return whole
        low_side = space.render_border_min_x, space.render_border_min_y
        shares = np.array([low_side, (space.render_border_max_x, space.render_border_max_y)])
        pixels = shares * (width, height)
    else:
        camera = space.camera if space.use_local_camera else context.scene.camera
        if not render.use_border or camera is None or camera.type != "CAMERA":
            return whole
        frame = [camera.matrix_world.normalized() @ corner for corner in camera.data.view_frame(scene=context.scene)]
        corners = np.array([(*corner, 1.0) for corner in frame]) @ to_clip.T
        corners = (0.5 * corners[:, :2] / corners[:, 3:] + 0.5) * (width, height)
        low, high = corners.min(0), corners.max(0)
        shares = np.array([[render.border_min_x, render.border_min_y], [render.border_max_x, render.border_max_y]])
        pixels = low + shares * (high - low)
    return whole & Rectangle(*np.rint(pixels).astype(int).ravel().tolist())
