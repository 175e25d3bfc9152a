"""Splats among opaque surfaces: where a surface is nearer than a splat's centre, the splat covers nothing.

Forward only, on the CPU. Surfaces have no colour of their own: they hide. Each pixel looks at them in several places
(``offsets``) and keeps of a splat the share of places where it is in front, so that hidden edges are smooth; the splats
are drawn as ``rasterise`` draws them.
"""

from __future__ import annotations

import math

import numpy as np

from .. import picture_constants as constants
from ..camera import Camera
from ..gaussians import Gaussians
from . import cpu_bin, cpu_project, workers
from .jit import kernel

TILE = 16  # px
_SH = (constants.SH_0, constants.SH_1, *constants.SH_2, *constants.SH_3, constants.SH_OFFSET)


def rasterise_occluded(
    gaussians: Gaussians,
    camera: Camera,
    vertices: np.ndarray,  # [V, 3] world, metres
    triangles: np.ndarray,  # [T, 3]
    offsets: np.ndarray,  # [S, 2] pixels (right, down): how far the surfaces are moved
    border: tuple[int, int, int, int] | None = None,  # left, top, right, bottom in pixels of the picture
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour [H, W, 3] over black, alpha [H, W] and accumulated depth [H, W], float32, of one camera.

    With ``border`` only this part of the picture is drawn and returned. The tensors are float32 on the CPU. Takes 4 S
    bytes a pixel beside the picture.
    """
    near = float(camera.near)
    pose, intrinsics = camera.world_to_camera.double().numpy(), camera.intrinsics.double().numpy()
    left, top, right, bottom = border or (0, 0, camera.width, camera.height)
    width, height = right - left, bottom - top
    points = vertices.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    nearest = np.full((len(offsets), height, width), np.inf, np.float32)
    triangles, places = triangles.astype(np.int32), offsets.astype(np.float64) - (left, top)

    def look(sample: int) -> None:
        _surface_depth(points, triangles, intrinsics, places[sample], near, camera.orthographic, nearest[sample])

    workers.run(look, [(sample,) for sample in range(len(offsets))])

    n = len(gaussians)
    arrays = [tensor.detach().contiguous().numpy() for tensor in vars(gaussians).values()]
    splats, boxes = np.zeros((n, cpu_project.SPLAT), np.float32), np.zeros((n, 4), np.int32)
    radii, tiles = np.empty(n, np.float32), np.empty(n, np.int32)
    eye = -pose[:3, :3].T @ pose[:3, 3]
    cpu_project.project(
        0, n, *arrays, pose[None], intrinsics[None], eye[None], np.empty((0, 0, 2), np.float32), camera.width,
        camera.height, near, camera.orthographic, TILE, constants.BLUR, constants.ALPHA_MIN, constants.FRUSTUM_MARGIN,
        constants.FAR, constants.QUATERNION_MIN_SQUARED, _SH, splats, boxes, radii, tiles,
    )  # fmt: skip
    # How a splat is seen depends on the whole picture (FRUSTUM_MARGIN); what it covers is asked of the border alone
    splats[:, :2] -= (left, top)
    boxes = np.clip(boxes - np.array([left, top, left, top], np.int32), 0, np.array([width, height] * 2, np.int32))
    spans = (boxes[:, 2:] - 1) // TILE - boxes[:, :2] // TILE + 1
    tiles = np.where((tiles > 0) & (boxes[:, 2:] > boxes[:, :2]).all(1), spans.prod(1), 0).astype(np.int32)
    columns, rows = -(-width // TILE), -(-height // TILE)
    slots = np.zeros(n + 1, np.int64)
    np.cumsum(tiles, out=slots[1:])
    entries, starts = np.empty(slots[-1], np.int32), np.empty(rows * columns + 1, np.int64)
    cpu_bin.sort_into_tiles(0, n, TILE, columns, rows, splats, boxes, tiles, slots, entries, starts)
    picture = np.zeros((height, width, 5), np.float32)

    def blend(row: int) -> None:
        _blend(
            row, TILE, columns, splats, boxes, entries, starts, nearest, constants.ALPHA_MIN, constants.ALPHA_MAX,
            constants.TRANSMITTANCE_MIN, picture,
        )  # fmt: skip

    workers.run(blend, [(row,) for row in range(rows)])
    return picture[..., :3], picture[..., 3], picture[..., 4]


@kernel
def _surface_depth(points, triangles, intrinsics, offset, near, orthographic, nearest):
    """Depth [H, W] of the nearest surface in front of the near plane.

    A point sum b_i P_i of a triangle is seen at (u, v) where, with h_i the corners' homogeneous pixels,
    sum b_i h_i = z (u, v, 1): so b / z = inverse(h) (u, v, 1), which needs no clipping at the near plane.
    """
    height, width = nearest.shape
    fx, fy = intrinsics[0, 0], intrinsics[1, 1]
    cx, cy = intrinsics[0, 2] + offset[0], intrinsics[1, 2] + offset[1]
    h = np.empty((3, 3))
    depth = np.empty(3)
    for t in range(len(triangles)):
        low_x = low_y = math.inf
        high_x = high_y = -math.inf
        in_front = 0
        for corner in range(3):
            x, y, z = points[triangles[t, corner]]
            depth[corner] = z
            scale = 1.0 if orthographic else z
            h[0, corner], h[1, corner], h[2, corner] = fx * x + cx * scale, fy * y + cy * scale, scale
            if z >= near:
                in_front += 1
                low_x, high_x = min(low_x, h[0, corner] / scale), max(high_x, h[0, corner] / scale)
                low_y, high_y = min(low_y, h[1, corner] / scale), max(high_y, h[1, corner] / scale)
        if in_front == 0:
            continue
        if in_front < 3:  # its outline on the picture has no bounds that are worth finding
            low_x, high_x, low_y, high_y = 0.0, width, 0.0, height
        determinant = (
            h[0, 0] * (h[1, 1] * h[2, 2] - h[1, 2] * h[2, 1])
            - h[0, 1] * (h[1, 0] * h[2, 2] - h[1, 2] * h[2, 0])
            + h[0, 2] * (h[1, 0] * h[2, 1] - h[1, 1] * h[2, 0])
        )
        if determinant == 0.0 or not math.isfinite(determinant):
            continue
        first_row, end_row = max(int(low_y - 0.5), 0), min(int(min(high_y, height) + 1.0), height)
        first_column, end_column = max(int(low_x - 0.5), 0), min(int(min(high_x, width) + 1.0), width)
        for row in range(first_row, end_row):
            v = row + 0.5
            for column in range(first_column, end_column):
                u = column + 0.5
                total = weighted = 0.0
                inside = True
                for i in range(3):
                    j, k = (i + 1) % 3, (i + 2) % 3
                    b = (
                        (h[1, j] * h[2, k] - h[2, j] * h[1, k]) * u
                        + (h[2, j] * h[0, k] - h[0, j] * h[2, k]) * v
                        + (h[0, j] * h[1, k] - h[1, j] * h[0, k])
                    ) / determinant
                    inside = inside and b >= 0.0
                    total += b
                    weighted += b * depth[i]
                if inside and total > 0.0:
                    z = weighted if orthographic else 1.0 / total
                    if z >= near and z < nearest[row, column]:
                        nearest[row, column] = z


@kernel
def _blend(row, tile, columns, splats, boxes, entries, starts, nearest, alpha_min, alpha_max, transmittance_min, out):
    """One row of tiles, front to back: red, green, blue, alpha, depth into ``out`` [H, W, 5]."""
    samples, height, width = nearest.shape
    for column in range(columns):
        first, end = starts[row * columns + column], starts[row * columns + column + 1]
        for y in range(row * tile, min((row + 1) * tile, height)):
            for x in range(column * tile, min((column + 1) * tile, width)):
                through = 1.0
                for k in range(first, end):
                    splat = entries[k]
                    if x < boxes[splat, 0] or y < boxes[splat, 1] or x >= boxes[splat, 2] or y >= boxes[splat, 3]:
                        continue
                    dx, dy = x + 0.5 - splats[splat, 0], y + 0.5 - splats[splat, 1]
                    sigma = 0.5 * (splats[splat, 2] * dx * dx + splats[splat, 4] * dy * dy) + splats[splat, 3] * dx * dy
                    alpha = min(splats[splat, 5] * math.exp(-sigma), alpha_max)
                    if sigma < 0.0 or alpha < alpha_min:
                        continue
                    z = splats[splat, 9]
                    before = 0
                    for sample in range(samples):
                        before += z <= nearest[sample, y, x]
                    after = through * (1.0 - alpha)
                    if before == 0 or after <= transmittance_min:
                        break
                    weight = through * alpha * before / samples
                    out[y, x, 0] += weight * splats[splat, 6]
                    out[y, x, 1] += weight * splats[splat, 7]
                    out[y, x, 2] += weight * splats[splat, 8]
                    out[y, x, 3] += weight
                    out[y, x, 4] += weight * z
                    through = after
