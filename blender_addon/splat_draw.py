"""Draws one avatar's splats from its posed mesh: tables on the GPU, depth order on the CPU, one instanced call."""

from __future__ import annotations

from functools import cache

import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader

from ..engine.avatar.posing import triangle_frames
from ..engine.avatar.splats import SplatArrays
from .splat_shader import TABLES, TEXTURE_WIDTH, splat_shader

DEPTH_STEPS = 65535  # 16-bit keys: numpy sorts them by radix, several times faster than floats


def table(rows: np.ndarray) -> gpu.types.GPUTexture:
    """A texture whose texel i (see ``splat_shader``) is row i of ``rows`` [R, channels] float32."""
    count, channels = rows.shape
    height = max(1, -(-count // TEXTURE_WIDTH))
    padded = np.zeros((height * TEXTURE_WIDTH, channels), np.float32)
    padded[:count] = rows
    data = gpu.types.Buffer("FLOAT", padded.size, padded.ravel())
    kind = {1: "R32F", 4: "RGBA32F"}[channels]
    return gpu.types.GPUTexture((TEXTURE_WIDTH, height), format=kind, data=data)


def back_to_front(depth: np.ndarray) -> np.ndarray:
    """Indices [K] that order splats from far to near, by their depth [K] along the view, ties in their own order."""
    nearest, farthest = float(depth.min()), float(depth.max())
    scale = DEPTH_STEPS / max(farthest - nearest, 1e-9)
    return np.argsort(((farthest - depth) * scale).astype(np.uint16), kind="stable")


@cache
def _program():
    """The compiled shader and the unit quad: one each per Blender session, made when something is first drawn."""
    shader = splat_shader()
    quad = batch_for_shader(shader, "TRI_STRIP", {"corner": [(-1, -1), (1, -1), (-1, 1), (1, 1)]})
    return shader, quad


class SplatDrawing:
    """GPU tables of one avatar. ``pose`` when the mesh moved, ``draw`` for each view; both need a GPU context."""

    def __init__(self, splats: SplatArrays):
        self.splats = splats
        count, coefficients = splats.sh.shape[:2]
        colour = np.zeros((count * coefficients, 4), np.float32)
        colour[:, :3] = splats.sh.reshape(-1, 3)
        self._tables = {
            "offsets": table(np.column_stack([splats.offset, splats.triangle]).astype(np.float32)),
            "rotations": table(splats.rotation.astype(np.float32)),
            "scales": table(np.column_stack([splats.scale, splats.opacity]).astype(np.float32)),
            "sh_table": table(colour),
        }
        self._means = np.zeros((count, 3), np.float32)

    def pose(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        """Follow the mesh: world vertices [N, 3] in Blender's axes and the head's triangles [M, 3]."""
        centre, rotation, area = triangle_frames(vertices, triangles)
        size = np.sqrt(area).astype(np.float32)
        frames = np.zeros((len(triangles), 4, 4), np.float32)
        frames[:, :3, :3] = rotation
        frames[:, :3, 3] = centre
        frames[:, 3, 0] = size
        self._tables["frames"] = table(frames.reshape(-1, 4))
        index = self.splats.triangle
        scaled = (size[:, None, None] * rotation).astype(np.float32)
        self._means = np.einsum("kij,kj->ki", scaled[index], self.splats.offset) + centre[index].astype(np.float32)

    @property
    def centre(self) -> np.ndarray:  # [3] world, metres
        """Middle of the posed splats."""
        return self._means.mean(0) if len(self._means) else np.zeros(3)

    def draw(
        self,
        view_matrix: np.ndarray,  # [4, 4] world to view
        projection: np.ndarray,  # [4, 4] view to clip
        width: int,
        height: int,
        splat_scale: float = 1.0,
        depth_mode: bool = False,
        scene_depth: gpu.types.GPUTexture | None = None,
    ) -> None:
        """Blend the splats into the bound framebuffer, which holds premultiplied display-referred colour.

        ``depth_mode`` writes the blended distance along the view instead of colour. What lies behind ``scene_depth``
        (window depth by pixel) is hidden; a framebuffer with a depth buffer of its own needs none: the caller sets
        the depth test.
        """
        if not len(self.splats):
            return
        shader, quad = _program()
        depth = -(self._means @ view_matrix[2, :3].astype(np.float32) + np.float32(view_matrix[2, 3]))
        self._tables["sequence"] = table(back_to_front(depth).astype(np.float32)[:, None])
        orthographic = projection[3, 3] > 0.5
        to_world = np.linalg.inv(view_matrix)
        block = np.zeros(16 + 16 + 4 + 4 + 4 + 4, np.float32)
        block[:16] = view_matrix.T.ravel()
        block[16:32] = projection.T.ravel()
        block[32:36] = width, height, splat_scale, orthographic
        block[36:39] = to_world[:3, 3]
        block[40] = depth_mode
        block[41] = scene_depth is not None
        block[44:48].view(np.int32)[0] = self.splats.sh.shape[1]
        shader.bind()
        uniform = gpu.types.GPUUniformBuf(gpu.types.Buffer("FLOAT", len(block), block))
        shader.uniform_block("view", uniform)
        tables = {**self._tables, "scene_depth": scene_depth or self._tables["sequence"]}
        for name in TABLES:
            shader.uniform_sampler(name, tables[name])
        gpu.state.blend_set("ALPHA_PREMULT")
        quad.draw_instanced(shader, instance_count=len(self.splats))
        gpu.state.blend_set("NONE")
