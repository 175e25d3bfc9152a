"""The CPU back end: numba kernels behind one autograd function.

Work is cut into pieces whose number does not depend on the threads, every piece writes to its own place, and sums are
taken in a fixed order: the result is the same bits whoever computed what, with any number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import picture_constants as constants
from . import cpu_bin, cpu_blend, cpu_project, workers

TILE = cpu_blend.TILE
# Gaussians, and tiles, that a thread takes at a time.
GAUSSIANS = 2048
TILES = 8

_SH = (constants.SH_0, constants.SH_1, *constants.SH_2, *constants.SH_3, constants.SH_OFFSET)
_ALPHA_MIN, _ALPHA_MAX = np.float32(constants.ALPHA_MIN), np.float32(constants.ALPHA_MAX)
_TRANSMITTANCE_MIN = np.float32(constants.TRANSMITTANCE_MIN)


def render(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    sh: Tensor,  # [N, K, 3]
    world_to_camera: Tensor,  # [C, 4, 4]
    intrinsics: Tensor,  # [C, 3, 3]
    background: Tensor,  # [C, 3]
    screen_offsets: Tensor | None,  # [C, N, 2]
    width: int,
    height: int,
    near: float,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour [C, H, W, 3], alpha [C, H, W], accumulated depth [C, H, W], radii [C, N] of every view."""
    tensors = (means, quats, scales, opacities, sh, world_to_camera, intrinsics, background, screen_offsets)
    for tensor in tensors:
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise ValueError(
                f"the numba back end draws float32 tensors on the CPU, not {tensor.dtype} on {tensor.device}: "
                'convert them, or use backend="torch"'
            )
    return _Rasterise.apply(*tensors, width, height, near, orthographic)


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        means,
        quats,
        scales,
        opacities,
        sh,
        world_to_camera,
        intrinsics,
        background,
        screen_offsets,
        width,
        height,
        near,
        orthographic,
    ):
        ctx.save_for_backward(means, quats, scales, opacities, sh, world_to_camera, intrinsics, background)
        gaussians = [_array(tensor) for tensor in (means, quats, scales, opacities, sh)]
        poses, intrinsics, eyes = _cameras(world_to_camera, intrinsics)
        offsets = np.empty((0, 0, 2), np.float32) if screen_offsets is None else _array(screen_offsets)
        views, n = len(poses), len(gaussians[0])
        columns, rows = -(-width // TILE), -(-height // TILE)

        splats = np.empty((views * n, cpu_project.SPLAT), np.float32)
        boxes = np.empty((views * n, 4), np.int32)
        radii = np.empty(views * n, np.float32)
        tiles = np.empty(views * n, np.int32)

        def project(start: int, stop: int) -> None:
            cpu_project.project(
                start, stop, *gaussians, poses, intrinsics, eyes, offsets, width, height, near, orthographic, TILE,
                constants.BLUR, constants.ALPHA_MIN, constants.FRUSTUM_MARGIN, constants.FAR,
                constants.QUATERNION_MIN_SQUARED, _SH, splats, boxes, radii, tiles,
            )  # fmt: skip

        workers.run(project, _pieces(views * n, GAUSSIANS))
        slots = np.zeros(views * n + 1, np.int64)
        np.cumsum(tiles, out=slots[1:])
        entries = np.empty(slots[-1], np.int32)
        tile_starts = np.empty(views * rows * columns + 1, np.int64)

        def sort(view: int) -> None:
            cpu_bin.sort_into_tiles(
                view, n, TILE, columns, rows, splats, boxes, tiles, slots, entries, tile_starts
            )  # fmt: skip

        workers.run(sort, [(view,) for view in range(views)])
        # Full tiles first, so that no thread is left alone with one at the end.
        tile_order = np.argsort(-np.diff(tile_starts), kind="stable")

        colour = np.empty((views, height, width, 3), np.float32)
        alpha, depth, transmittance = (np.empty((views, height, width), np.float32) for _ in range(3))
        last = np.empty((views, height, width), np.int32)
        backgrounds = _array(background)

        def blend(start: int, stop: int) -> None:
            cpu_blend.blend(
                start, stop, tile_order, columns, rows, width, height, splats, boxes, entries, tile_starts,
                backgrounds, _ALPHA_MIN, _ALPHA_MAX, _TRANSMITTANCE_MIN, colour, alpha, depth, transmittance, last,
            )  # fmt: skip

        workers.run(blend, _pieces(len(tile_order), TILES))
        ctx.drawn = (splats, boxes, radii, slots, entries, tile_starts, tile_order, transmittance, last)
        ctx.size = (width, height, orthographic)
        results = tuple(torch.from_numpy(array) for array in (colour, alpha, depth, radii.reshape(views, n).copy()))
        ctx.mark_non_differentiable(results[3])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx, colour_gradient, alpha_gradient, depth_gradient, _):
        *tensors, world_to_camera, intrinsics, background = ctx.saved_tensors
        gaussians = [_array(tensor) for tensor in tensors]
        poses, intrinsics, eyes = _cameras(world_to_camera, intrinsics)
        splats, boxes, radii, slots, entries, tile_starts, tile_order, transmittance, last = ctx.drawn
        width, height, orthographic = ctx.size
        views, n = len(poses), len(gaussians[0])
        columns, rows = -(-width // TILE), -(-height // TILE)
        backgrounds = _array(background)
        pictures = [_array(tensor) for tensor in (colour_gradient, alpha_gradient, depth_gradient)]
        splat_gradients = np.zeros((len(entries), cpu_project.SPLAT_GRADIENT), np.float32)
        background_gradients = np.empty((views * rows * columns, 3))

        def blend(start: int, stop: int) -> None:
            cpu_blend.blend_backward(
                start, stop, tile_order, columns, rows, width, height, splats, boxes, entries, tile_starts, slots,
                backgrounds, _ALPHA_MIN, _ALPHA_MAX, transmittance, last, *pictures, splat_gradients,
                background_gradients,
            )  # fmt: skip

        workers.run(blend, _pieces(len(tile_order), TILES))
        gradients = [np.empty(array.shape, np.float32) for array in gaussians]
        offset_gradients = np.empty((views, n, 2), np.float32)
        pieces = _pieces(n, GAUSSIANS)
        camera_gradients = np.zeros((len(pieces), views, cpu_project.CAMERA_GRADIENT))

        def project(piece: int, start: int, stop: int) -> None:
            cpu_project.project_backward(
                start, stop, *gaussians, poses, intrinsics, eyes, width, height, orthographic, constants.BLUR,
                constants.FRUSTUM_MARGIN, _SH, radii, slots, splat_gradients, *gradients, offset_gradients,
                camera_gradients[piece],
            )  # fmt: skip

        workers.run(project, [(index, *piece) for index, piece in enumerate(pieces)])
        return (
            *(torch.from_numpy(gradient) for gradient in gradients),
            *_camera_tensors(camera_gradients.sum(0), poses),
            torch.from_numpy(background_gradients.reshape(views, -1, 3).sum(1).astype(np.float32)),
            torch.from_numpy(offset_gradients) if ctx.needs_input_grad[8] else None,
            None,
            None,
            None,
            None,
        )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _cameras(world_to_camera: Tensor, intrinsics: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses [C, 4, 4], intrinsics [C, 3, 3] and eyes [C, 3] in double precision."""
    poses = world_to_camera.detach().double().contiguous().numpy()
    eyes = -np.einsum("cij,ci->cj", poses[:, :3, :3], poses[:, :3, 3])
    return poses, intrinsics.detach().double().contiguous().numpy(), eyes


def _camera_tensors(
    gradient: np.ndarray,  # [C, CAMERA_GRADIENT]
    poses: np.ndarray,  # [C, 4, 4]
) -> tuple[Tensor, Tensor]:
    """Gradients of world_to_camera [C, 4, 4] and intrinsics [C, 3, 3]."""
    to_pose, to_intrinsics = np.zeros_like(poses), np.zeros((len(poses), 3, 3))
    to_eye = gradient[:, 16:19]
    # eye = -R^T t
    to_pose[:, :3, :3] = gradient[:, :9].reshape(-1, 3, 3) - poses[:, :3, 3, None] * to_eye[:, None]
    to_pose[:, :3, 3] = gradient[:, 9:12] - np.einsum("cij,cj->ci", poses[:, :3, :3], to_eye)
    to_intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]] = gradient[:, 12:16]
    return torch.from_numpy(to_pose.astype(np.float32)), torch.from_numpy(to_intrinsics.astype(np.float32))


def _pieces(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, count)) for start in range(0, count, size)]
