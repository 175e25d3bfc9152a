"""Draws a final picture on the GPU: splats, hidden by the scene's surfaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from ..engine.errors import UserError
from .camera_view import CameraView
from .rendered_scene import PosedAvatar, Surface
from .splat_draw import SplatDrawing, SplatGroup

MAX_SIDE = 16384  # pixels: the largest texture that GPUs commonly have


def draw_on_gpu(
    view: CameraView,
    avatars: Sequence[PosedAvatar],
    surfaces: Sequence[Surface],
    offsets: np.ndarray,  # [S, 2] pixels
    wants_depth: bool,
    advance: Callable[[float], bool],
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Premultiplied display-referred RGBA [H, W, 4] of the view's border and, if wanted, depth times alpha [H, W].

    Bottom row first. The surfaces are drawn once for each of ``offsets``, moved by it, and the pictures averaged: so
    their edges are smooth where they hide splats, while the splats stay where they are. ``advance`` hears the share
    that is done; when it says False the drawing ends and None is returned. Needs an active GPU context. Raises
    ``UserError`` if the GPU has no room for the picture.
    """
    drawings = []
    for avatar in avatars:
        drawing = SplatDrawing(avatar.splats)
        drawing.pose(avatar.vertices, avatar.triangles, avatar.matrix)
        drawings.append(drawing)
    group = SplatGroup(drawings)  # sorted as one: avatars may stand inside each other
    batches = _surface_batches(surfaces)
    offsets = offsets if batches else np.zeros((1, 2))
    modes = (False, True) if wants_depth else (False,)
    left, bottom, right, top = view.border
    total = np.zeros((len(modes), top - bottom, right - left, 4), np.float32)
    try:
        target = gpu.types.GPUOffScreen(view.width, view.height, format="RGBA32F")
    except RuntimeError as error:
        raise UserError(
            f"The GPU has no room for a picture of {view.width} x {view.height} pixels ({error}). Render a smaller one."
        ) from error
    try:
        for index, offset in enumerate(offsets):
            for picture, depth_mode in zip(total, modes, strict=True):
                if not advance((index + 0.5 * depth_mode) / len(offsets)):
                    return None
                with target.bind():
                    framebuffer = gpu.state.active_framebuffer_get()
                    framebuffer.clear(color=(0, 0, 0, 0), depth=1.0)
                    # All is drawn as in the whole picture, so that a border changes none of its pixels
                    gpu.state.scissor_test_set(True)
                    gpu.state.scissor_set(left, bottom, right - left, top - bottom)
                    _draw_surfaces(batches, view.view, view.shifted(*offset))
                    gpu.state.depth_test_set("LESS_EQUAL")
                    gpu.state.depth_mask_set(False)
                    group.draw(view.view, view.projection, view.width, view.height, depth_mode=depth_mode)
                    gpu.state.depth_test_set("NONE")
                    gpu.state.scissor_test_set(False)
                    picture += _read(framebuffer, left, bottom, right - left, top - bottom)
    finally:
        target.free()
    total /= len(offsets)
    return total[0], total[1, ..., 0] if wants_depth else None


def _read(framebuffer, left: int, bottom: int, width: int, height: int) -> np.ndarray:
    rows = framebuffer.read_color(left, bottom, width, height, 4, 0, "FLOAT")
    rows.dimensions = width * height * 4  # flat: numpy misreads a buffer of several dimensions
    return np.array(rows, np.float32).reshape(height, width, 4)


def _surface_batches(surfaces: Sequence[Surface]) -> list:
    if not surfaces:
        return []
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    return [
        batch_for_shader(shader, "TRIS", {"pos": surface.vertices}, indices=surface.triangles) for surface in surfaces
    ]


def _draw_surfaces(batches: Sequence, view: np.ndarray, projection: np.ndarray) -> None:
    """Write the depth of the surfaces, and no colour."""
    if not batches:
        return
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    gpu.state.depth_test_set("LESS_EQUAL")
    gpu.state.depth_mask_set(True)
    gpu.state.color_mask_set(False, False, False, False)
    with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
        gpu.matrix.load_matrix(Matrix(view.tolist()))
        gpu.matrix.load_projection_matrix(Matrix(projection.tolist()))
        for batch in batches:
            batch.draw(shader)
    gpu.state.color_mask_set(True, True, True, True)
