"""The CUDA back end: gsplat's kernels, put together so that offsets, poses and NaNs mean what they mean elsewhere.

gsplat builds its kernels when they are first used, which takes minutes and needs NVIDIA's compiler, unless a wheel
with built kernels is installed. ``why_unavailable`` tries once and remembers.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys

import torch
from torch import Tensor

from ..errors import UserError
from ..picture_constants import BLUR, FAR, QUATERNION_MIN_SQUARED, SH_OFFSET
from . import reference

TILE = 16  # px; gsplat's own default
_ADVICE = (
    "Install NVIDIA's CUDA toolkit (nvcc, of the version that torch was built with) and ninja, "
    "or a gsplat wheel with built kernels, then start again"
)


@functools.cache
def why_unavailable() -> str | None:
    """One sentence why gsplat cannot draw here and what to do, or None if it can. Builds the kernels if need be."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device."
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed: pip install 'headstudio[cuda]'."
    try:
        # gsplat reports its build on stdout, which may be somebody's data.
        with contextlib.redirect_stdout(sys.stderr):
            from gsplat.cuda._backend import _C
    except Exception as error:  # a compiler run can fail in any way
        return f"gsplat's kernels could not be built ({_telling_line(error)}). {_ADVICE}."
    if _C is None:
        return f"gsplat's kernels are not built, and there is no CUDA compiler to build them. {_ADVICE}."
    return None


def _telling_line(error: Exception) -> str:
    """Of a build's output the first line that names an error; it begins with pages of commands."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    telling = [line for line in lines[1:] if "error:" in line.lower() or "fatal" in line.lower()]
    return (telling or lines)[0][:300]


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
    """Colour [C, H, W, 3], alpha [C, H, W], accumulated depth [C, H, W], radii [C, N] of every view.

    gsplat decides what touches the picture before ``screen_offsets`` are added. It has no gradient for intrinsics:
    ValueError if they require one.
    """
    _refuse_what_gsplat_cannot_draw(means)
    if intrinsics.requires_grad and torch.is_grad_enabled():
        raise ValueError('gsplat has no gradient for the intrinsics: detach them, or use backend="torch"')
    args = (means, quats, scales, opacities, sh)
    if means.shape[0] == 0:
        return reference.render(
            *args, world_to_camera, intrinsics, background, screen_offsets, width, height, near, orthographic
        )
    import gsplat

    views, n = world_to_camera.shape[0], means.shape[0]
    means, quats, scales, opacities, sh = _drawable(*args)
    radii, centres, depths, conics, _ = gsplat.fully_fused_projection(
        means,
        None,
        quats,
        scales,
        world_to_camera,
        intrinsics,
        width,
        height,
        eps2d=BLUR,
        near_plane=near,
        far_plane=FAR,
        camera_model="ortho" if orthographic else "pinhole",
        opacities=opacities,
    )
    drawn = (radii > 0).all(-1)  # [C, N]; gsplat leaves the rest of its output unwritten
    if screen_offsets is not None:
        centres = centres + screen_offsets
    rotation, translation = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3:]
    eyes = -(rotation.transpose(1, 2) @ translation).squeeze(-1)  # [C, 3]
    degree = {1: 0, 4: 1, 9: 2, 16: 3}[sh.shape[1]]
    colours = gsplat.spherical_harmonics(
        degree, means[None] - eyes[:, None], sh.expand(views, *sh.shape).contiguous(), masks=drawn
    )
    colours = (torch.where(drawn[..., None], colours, 0.0) + SH_OFFSET).clamp_min(0.0)
    channels = torch.cat([colours, torch.where(drawn, depths, 0.0)[..., None]], -1)
    columns, rows = -(-width // TILE), -(-height // TILE)
    _, intersections, flat = gsplat.isect_tiles(centres.detach(), radii, depths.detach(), TILE, columns, rows)
    starts = gsplat.isect_offset_encode(intersections, views, columns, rows)
    picture, alpha = gsplat.rasterize_to_pixels(
        centres,
        conics,
        channels,
        opacities.expand(views, n),
        width,
        height,
        TILE,
        starts.reshape(views, rows, columns),
        flat,
        backgrounds=torch.cat([background, torch.zeros_like(background[:, :1])], -1),
    )
    sizes = torch.where(drawn, radii.amax(-1), 0).to(means.dtype)
    return picture[..., :3], alpha[..., 0], picture[..., 3], sizes


def _refuse_what_gsplat_cannot_draw(means: Tensor) -> None:
    reason = why_unavailable()
    if reason:
        raise UserError(f"Cannot draw with gsplat: {reason} The CPU back end draws without it.")
    if means.device.type != "cuda" or means.dtype != torch.float32:
        raise ValueError(f"the gsplat back end draws float32 tensors on CUDA, not {means.dtype} on {means.device}")


def _drawable(means, quats, scales, opacities, sh) -> tuple[Tensor, ...]:
    """Gaussians that are not numbers, or name no rotation, become transparent ones without a gradient."""
    good = torch.cat([means, quats, scales, opacities[:, None], sh.flatten(1)], 1).isfinite().all(1)
    good = good & ((quats * quats).sum(1) > QUATERNION_MIN_SQUARED)
    return (
        torch.where(good[:, None], means, 0.0),
        torch.where(good[:, None], quats, quats.new_tensor([1.0, 0.0, 0.0, 0.0])),
        torch.where(good[:, None], scales, 1.0),
        torch.where(good, opacities, 0.0),
        torch.where(good[:, None, None], sh, 0.0),
    )
