"""Draws avatars' splats: tables on the GPU, one depth order for all of them on the CPU, one instanced call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader

from ..engine.avatar.splats import SplatArrays
from .posed_triangles import PosedTriangles
from .splat_shader import TABLES, TEXTURE_WIDTH, splat_shader

DEPTH_STEPS = 65535  # 16-bit keys: numpy sorts them by radix, several times faster than floats
DEVIATIONS = 3.34  # standard deviations at which even an opaque splat's alpha has fallen to 1/255
SEQUENCES = 8  # depth orders that are kept: one for each of several viewports on the same avatars
_FORMATS = {2: "RG32F", 4: "RGBA32F"}


class SplatDrawing:
    """One avatar in one pose. ``pose`` needs no GPU and takes no step per splat; ``draw`` needs a GPU context."""

    def __init__(self, splats: SplatArrays):
        self.splats = splats
        self.triangles = PosedTriangles(int(splats.triangle.max()) + 1 if len(splats) else 0)
        self.version = 0  # rises with every pose
        self._index = splats.triangle.astype(np.intp)
        self._alone: SplatGroup | None = None

    def pose(self, vertices: np.ndarray, triangles: np.ndarray, matrix: np.ndarray | None = None) -> None:
        """Follow the mesh: vertices [N, 3] and the head's triangles [>= M, 3].

        ``matrix`` [4, 4] takes the vertices to the world, in Blender's axes; without it they are there already.
        """
        self.triangles.pose(vertices, triangles[: self.triangles.count], np.eye(4) if matrix is None else matrix)
        self.version += 1

    @property
    def centre(self) -> np.ndarray:  # [3] world, metres
        """Middle of the box around the triangles that carry splats."""
        return (self.triangles.low + self.triangles.high) / 2

    def bounds(self, splat_scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner [3] of a box in the world that holds all that is drawn, metres."""
        far, large = self._reach
        reach = float((self.triangles.size * (far + DEVIATIONS * splat_scale * large)).max(initial=0.0))
        return self.triangles.low - reach, self.triangles.high + reach

    def distances(self, direction: np.ndarray, out: np.ndarray) -> None:
        """Distances [K] of the splats along ``direction`` [3] of the world, up to a constant."""
        rows = np.take(self.triangles.depth_rows(direction), self._index, 0, mode="clip")
        np.einsum("kj,kj->k", rows[:, :3], self.splats.offset, out=out)
        out += rows[:, 3]

    def draw(self, *arguments, **options) -> None:
        """Draw this avatar alone: see :meth:`SplatGroup.draw`."""
        if self._alone is None:
            self._alone = SplatGroup([self])
        self._alone.draw(*arguments, **options)

    @cached_property
    def _reach(self) -> tuple[np.ndarray, np.ndarray]:
        """How far splats lie from their triangle's centre and how large they are, at most [M] each, in sqrt(area)."""
        far, large = (np.zeros(self.triangles.count, np.float32) for _ in range(2))
        np.maximum.at(far, self._index, np.linalg.norm(self.splats.offset, axis=1))
        np.maximum.at(large, self._index, self.splats.scale.max(1))
        return far, large


class SplatGroup:
    """Several avatars that are drawn together: their splats are sorted as one, so they may stand inside each other.

    What avatars share (the same ``SplatArrays``) is on the GPU once. Tables are uploaded only when what they hold has
    changed: splats never, frames after a pose, the order when the view has turned.
    """

    def __init__(self, drawings: Sequence[SplatDrawing]):
        self.drawings = list(drawings)
        sources: dict[int, SplatArrays] = {id(item.splats): item.splats for item in self.drawings}
        first = dict(zip(sources, np.cumsum([0, *(len(item) for item in sources.values())]), strict=False))
        counts = [len(item.splats) for item in self.drawings]
        self._ends = np.cumsum([0, *counts])
        self._texels = 4 * np.cumsum([0, *(item.triangles.count for item in self.drawings)])
        self._slots = np.zeros((self._ends[-1], 2), np.float32)  # what `sequence` holds, in the drawings' order
        for number, item in enumerate(self.drawings):
            rows = slice(self._ends[number], self._ends[number + 1])
            self._slots[rows, 0] = np.arange(counts[number]) + first[id(item.splats)]
            self._slots[rows, 1] = self._texels[number]
        self._splats = list(sources.values())
        self._coefficients = max((item.sh.shape[1] for item in self._splats), default=1)
        self._frame_rows = _padded(self._texels[-1], 4)
        self._sequence_rows = _padded(self._ends[-1], 2)
        self._depth = np.empty(self._ends[-1], np.float32)
        self._drawn_versions = [-1] * len(self.drawings)
        self._sequences: dict[tuple, gpu.types.GPUTexture] = {}
        self._tables: dict[str, gpu.types.GPUTexture] = {}

    def update_frames(self) -> bool:
        """Gather the drawings' frames for upload. False if none was posed since the last call."""
        versions = [item.version for item in self.drawings]
        if versions == self._drawn_versions:
            return False
        for number, (item, before) in enumerate(zip(self.drawings, self._drawn_versions, strict=True)):
            if item.version != before:
                rows = self._frame_rows[self._texels[number] : self._texels[number + 1]].reshape(-1, 4, 4)
                np.copyto(rows, item.triangles.columns.transpose(2, 0, 1))
        self._drawn_versions = versions
        return True

    def back_to_front(self, direction: np.ndarray, shown: Sequence[bool] | None = None) -> int:
        """Fill the table ``sequence`` with the splats of the drawings that are shown, far along ``direction`` first.

        Returns their number. Depth is quantised to 65536 steps over all of them; ties keep their own order.
        """
        chosen = [number for number in range(len(self.drawings)) if shown is None or shown[number]]
        end = 0
        for number in chosen:
            start, end = end, end + len(self.drawings[number].splats)
            self.drawings[number].distances(direction, self._depth[start:end])
        if not end:
            return 0
        depth = self._depth[:end]
        farthest = depth.max()
        np.subtract(farthest, depth, out=depth)
        depth *= DEPTH_STEPS / max(float(depth.max()), 1e-9)
        order = np.argsort(depth.astype(np.uint16), kind="stable")
        slots = self._slots
        if len(chosen) < len(self.drawings):
            slots = np.concatenate([slots[self._ends[number] : self._ends[number + 1]] for number in chosen])
        np.take(slots, order, 0, self._sequence_rows[:end], "clip")
        return end

    def draw(
        self,
        view_matrix: np.ndarray,  # [4, 4] world to view
        projection: np.ndarray,  # [4, 4] view to clip
        width: int,
        height: int,
        splat_scale: float = 1.0,
        depth_mode: bool = False,
        scene_depth: gpu.types.GPUTexture | None = None,
        depth_corner: tuple[int, int] = (0, 0),
        point_size: float = 0.0,
        shown: Sequence[bool] | None = None,
    ) -> None:
        """Blend the splats into the bound framebuffer, which holds premultiplied display-referred colour.

        ``depth_mode`` writes the blended distance along the view instead of colour. What lies behind ``scene_depth``
        (window depth by pixel, of a rectangle whose lower left is ``depth_corner``) is hidden; a framebuffer with a
        depth buffer of its own needs none: the caller sets the depth test. ``point_size`` above 0 draws squares of so
        many pixels. ``shown`` says which of the drawings to draw, all without it.
        """
        if not self._ends[-1]:
            return
        self._upload()
        sequence, count = self._sequence(-view_matrix[2, :3], None if shown is None else tuple(shown))
        if not count:
            return
        to_world = np.linalg.inv(view_matrix)
        block = np.zeros(52, np.float32)
        block[:16] = view_matrix.T.ravel()
        block[16:32] = projection.T.ravel()
        block[32:36] = width, height, splat_scale, projection[3, 3] > 0.5  # 1 where orthographic
        block[36:39] = to_world[:3, 3]
        block[40:44] = depth_mode, scene_depth is not None, *depth_corner
        block[44] = point_size
        block[48:49].view(np.int32)[0] = self._coefficients
        shader, quad = _program()
        shader.bind()
        uniforms = gpu.types.GPUUniformBuf(_buffer(block))  # lives until the call below: a name keeps it
        shader.uniform_block("view", uniforms)
        tables = {**self._tables, "sequence": sequence, "scene_depth": scene_depth or sequence}
        for name in TABLES:
            shader.uniform_sampler(name, tables[name])
        gpu.state.blend_set("ALPHA_PREMULT")
        quad.draw_instanced(shader, instance_count=count)
        gpu.state.blend_set("NONE")

    def _upload(self) -> None:
        if not self._tables:
            self._tables = _splat_tables(self._splats, self._coefficients)
        if self.update_frames():
            self._tables["frames"] = _texture(self._frame_rows)
            self._sequences.clear()

    def _sequence(self, direction: np.ndarray, shown: tuple[bool, ...] | None) -> tuple[gpu.types.GPUTexture, int]:
        """The depth order as a texture, and its length. It changes when the view turns, not when it moves or zooms."""
        key = direction.astype(np.float32).tobytes(), shown
        if key not in self._sequences:
            if len(self._sequences) >= SEQUENCES:
                del self._sequences[next(iter(self._sequences))]
            count = self.back_to_front(direction, shown)
            self._sequences[key] = _texture(self._sequence_rows), count
        return self._sequences[key]


def _splat_tables(sources: Sequence[SplatArrays], coefficients: int) -> dict[str, gpu.types.GPUTexture]:
    """The tables that depend on the splats alone; those of several avatars one after the other."""
    total = sum(len(splats) for splats in sources)
    offsets, rotations, scales = (_padded(total, 4) for _ in range(3))
    colour = _padded(total * coefficients, 4)
    start = 0
    for splats in sources:
        rows = slice(start, start + len(splats))
        offsets[rows, :3], offsets[rows, 3] = splats.offset, splats.triangle
        rotations[rows] = splats.rotation
        scales[rows, :3], scales[rows, 3] = splats.scale, splats.opacity
        own = colour[start * coefficients : rows.stop * coefficients].reshape(len(splats), coefficients, 4)
        own[:, : splats.sh.shape[1], :3] = splats.sh
        start = rows.stop
    arrays = {"offsets": offsets, "rotations": rotations, "scales": scales, "sh_table": colour}
    return {name: _texture(rows) for name, rows in arrays.items()}


def _padded(count: int, channels: int) -> np.ndarray:
    """Zeros for ``count`` texels [>= count, channels], in whole rows of a texture."""
    return np.zeros((max(1, -(-count // TEXTURE_WIDTH)) * TEXTURE_WIDTH, channels), np.float32)


def _texture(rows: np.ndarray) -> gpu.types.GPUTexture:
    """A texture whose texel i (see ``splat_shader``) is row i of ``rows`` [R * TEXTURE_WIDTH, channels] float32."""
    size = TEXTURE_WIDTH, len(rows) // TEXTURE_WIDTH
    return gpu.types.GPUTexture(size, format=_FORMATS[rows.shape[1]], data=_buffer(rows.ravel()))


def _buffer(values: np.ndarray) -> gpu.types.Buffer:
    return gpu.types.Buffer("FLOAT", len(values), values)


@cache
def _program():
    """The compiled shader and the unit quad: one each per Blender session, made when something is first drawn."""
    shader = splat_shader()
    quad = batch_for_shader(shader, "TRI_STRIP", {"corner": [(-1, -1), (1, -1), (-1, 1), (1, 1)]})
    return shader, quad
