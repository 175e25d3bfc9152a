"""The definition of the picture, in plain torch.

Every other back end is tested against this one. It is differentiable by autograd, works in any floating type on any
device, and bounds its memory by drawing one square of the picture at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..picture_constants import (
    ALPHA_MAX,
    ALPHA_MIN,
    BLUR,
    FAR,
    FRUSTUM_MARGIN,
    QUATERNION_MIN_SQUARED,
    SH_0,
    SH_1,
    SH_2,
    SH_3,
    SH_OFFSET,
    TRANSMITTANCE_MIN,
)

# Above this many splat-pixel pairs the squares are drawn again in the backward pass instead of being remembered
# (a pair keeps about a dozen numbers alive).
MAX_REMEMBERED_PAIRS = 2**24


@dataclass(frozen=True)
class Projected:
    """The visible splats of one view, front to back."""

    index: Tensor  # [M] which Gaussian
    centres: Tensor  # [M, 2] pixels
    conics: Tensor  # [M, 3] inverse of the blurred covariance: xx, xy, yy, 1 / px^2
    depths: Tensor  # [M] metres along the viewing axis
    colours: Tensor  # [M, 3]
    opacities: Tensor  # [M]
    radii: Tensor  # [M, 2] half sides of the box outside which the splat covers nothing, whole pixels


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
    chunk: int = 16,  # side in pixels of the squares that are drawn at once
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour [C, H, W, 3], alpha [C, H, W], accumulated depth [C, H, W], radii [C, N] of every view."""
    views = []
    for c in range(world_to_camera.shape[0]):
        splats = project(
            means,
            quats,
            scales,
            opacities,
            sh,
            world_to_camera[c],
            intrinsics[c],
            None if screen_offsets is None else screen_offsets[c],
            width,
            height,
            near,
            orthographic,
        )
        picture = composite(splats, width, height, chunk)
        alpha = picture[..., 4]
        colour = picture[..., :3] + (1.0 - alpha)[..., None] * background[c]
        radii = means.new_zeros(means.shape[0]).index_put((splats.index,), splats.radii.amax(-1))
        views.append((colour, alpha, picture[..., 3], radii))
    return tuple(torch.stack(channel) for channel in zip(*views, strict=True))


def project(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    sh: Tensor,  # [N, K, 3]
    world_to_camera: Tensor,  # [4, 4]
    intrinsics: Tensor,  # [3, 3]
    screen_offsets: Tensor | None,  # [N, 2]
    width: int,
    height: int,
    near: float,
    orthographic: bool,
) -> Projected:
    """The affine ("EWA") projection, sorted by depth; Gaussians of equal depth keep their order."""
    with torch.no_grad():
        index = _visible(
            means, quats, scales, opacities, sh, world_to_camera, intrinsics, screen_offsets, width, height, near,
            orthographic,
        )  # fmt: skip
    # Gaussians that are not drawn leave the graph here: whatever they hold, it cannot reach a gradient.
    means, quats, scales = means[index], quats[index], scales[index]
    centres, covariances, depths = _project_moments(
        means, quats, scales, world_to_camera, intrinsics, width, height, orthographic
    )
    if screen_offsets is not None:
        centres = centres + screen_offsets[index]
    xx, xy, yy = covariances.unbind(-1)
    conics = torch.stack([yy, -xy, xx], -1) / (xx * yy - xy * xy)[:, None]
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    eye = -(rotation.transpose(0, 1) @ translation)
    return Projected(
        index=index,
        centres=centres,
        conics=conics,
        depths=depths,
        colours=sh_colours(sh[index], means - eye),
        opacities=opacities[index],
        radii=_radii(covariances.detach(), opacities[index].detach()),
    )


def sh_colours(
    sh: Tensor,  # [N, K, 3]
    directions: Tensor,  # [N, 3] need not be unit vectors
) -> Tensor:  # [N, 3]
    """Colour seen along ``directions``: ``max(0, 0.5 + sum_k Y_k sh_k)``."""
    return (torch.einsum("nk,nkc->nc", _sh_basis(sh.shape[1], directions), sh) + SH_OFFSET).clamp_min(0.0)


def composite(splats: Projected, width: int, height: int, chunk: int = 16) -> Tensor:  # [H, W, 5]
    """Blend front to back: red, green, blue, accumulated depth, alpha, over nothing."""
    low, high = splats.centres.detach() - splats.radii, splats.centres.detach() + splats.radii
    squares, indices = [], []
    pairs = 0
    for top in range(0, height, chunk):
        bottom = min(top + chunk, height)
        in_rows = ((high[:, 1] > top) & (low[:, 1] < bottom)).nonzero().squeeze(1)
        left_most, right_most = low[in_rows, 0], high[in_rows, 0]
        for left in range(0, width, chunk):
            right = min(left + chunk, width)
            indices.append(in_rows[(right_most > left) & (left_most < right)])
            squares.append((left, top, right, bottom))
            pairs += len(indices[-1]) * (right - left) * (bottom - top)
    recompute = torch.is_grad_enabled() and pairs > MAX_REMEMBERED_PAIRS
    records = torch.cat(
        [
            splats.centres,
            splats.conics,
            splats.opacities[:, None],
            splats.colours,
            splats.depths[:, None],
            torch.ones_like(splats.depths)[:, None],
        ],
        -1,
    )  # [M, 11]
    # One gather for all squares: a gather each would add up that many gradients of all splats.
    gathered = records[torch.cat(indices)].split([len(index) for index in indices])
    rows, row = [], []
    for record, square in zip(gathered, squares, strict=True):
        row.append(checkpoint(_square, record, *square, use_reentrant=False) if recompute else _square(record, *square))
        if square[2] == width:
            rows.append(torch.cat(row, 1))
            row = []
    return torch.cat(rows, 0)


def _square(
    records: Tensor,  # [S, 6 + F] of the splats that may touch the square, front to back
    left: int,
    top: int,
    right: int,
    bottom: int,
) -> Tensor:  # [bottom - top, right - left, F]
    centres, opacities, features = records[:, :2], records[:, 5], records[:, 6:]
    xx, xy, yy = records[:, 2:5].unbind(-1)
    ys = torch.arange(top, bottom, dtype=centres.dtype, device=centres.device) + 0.5
    xs = torch.arange(left, right, dtype=centres.dtype, device=centres.device) + 0.5
    dx = (xs - centres[:, 0:1]).T[None]  # [1, width, S]
    dy = (ys - centres[:, 1:2]).T[:, None]  # [height, 1, S]
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alpha = (opacities * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
    alpha = torch.where((sigma >= 0) & (alpha >= ALPHA_MIN), alpha, 0.0)
    after = torch.cumprod(1.0 - alpha, -1)  # transmittance behind each splat
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1)
    weights = torch.where(after > TRANSMITTANCE_MIN, alpha * before, 0.0)
    return weights @ features


def _project_moments(
    means: Tensor,  # [M, 3]
    quats: Tensor,  # [M, 4]
    scales: Tensor,  # [M, 3]
    world_to_camera: Tensor,  # [4, 4]
    intrinsics: Tensor,  # [3, 3]
    width: int,
    height: int,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres [M, 2] px, blurred covariances [M, 3] (xx, xy, yy) px^2, depths [M] metres."""
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    fx, fy = intrinsics[0, 0], intrinsics[1, 1]
    cx, cy = intrinsics[0, 2], intrinsics[1, 2]
    x, y, z = (means @ rotation.T + translation).unbind(-1)
    axes = rotation @ (_rotation_matrices(quats) * scales[:, None, :])  # [M, 3, 3] columns: scaled axes, camera space
    if orthographic:
        centres = torch.stack([fx * x + cx, fy * y + cy], -1)
        u, v = fx * axes[:, 0], fy * axes[:, 1]  # [M, 3] each: the picture's axes as seen by the splat's
    else:
        centres = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
        margin_x, margin_y = FRUSTUM_MARGIN * 0.5 * width / fx, FRUSTUM_MARGIN * 0.5 * height / fy
        slope_x = (x / z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
        slope_y = (y / z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
        u = (fx / z)[:, None] * (axes[:, 0] - slope_x[:, None] * axes[:, 2])
        v = (fy / z)[:, None] * (axes[:, 1] - slope_y[:, None] * axes[:, 2])
    covariances = torch.stack([(u * u).sum(-1) + BLUR, (u * v).sum(-1), (v * v).sum(-1) + BLUR], -1)
    return centres, covariances, z


def _visible(
    means, quats, scales, opacities, sh, world_to_camera, intrinsics, screen_offsets, width, height, near, orthographic
) -> Tensor:  # [M]
    """Which Gaussians touch the picture, sorted by depth."""
    centres, covariances, depths = _project_moments(
        means, quats, scales, world_to_camera, intrinsics, width, height, orthographic
    )
    if screen_offsets is not None:
        centres = centres + screen_offsets
    radii = _radii(covariances, opacities)
    xx, xy, yy = covariances.unbind(-1)
    determinants = xx * yy - xy * xy
    low, high = centres - radii, centres + radii
    visible = (
        torch.cat([means, quats, scales, opacities[:, None], sh.flatten(1), centres, covariances], 1).isfinite().all(1)
        & (determinants > 0)
        & determinants.isfinite()
        & ((quats * quats).sum(-1) > QUATERNION_MIN_SQUARED)
        & (depths >= near)
        & (depths <= FAR)
        & (radii > 0).all(-1)
        & (high > 0).all(-1)
        & (low < low.new_tensor([width, height])).all(-1)
    )
    index = visible.nonzero().squeeze(1)
    return index[torch.sort(depths[index], stable=True).indices]


def _radii(
    covariances: Tensor,  # [M, 3]
    opacities: Tensor,  # [M]
) -> Tensor:  # [M, 2]
    """Half sides of the box outside which alpha is below ALPHA_MIN; 0 (or less) where it is everywhere."""
    extent = torch.sqrt(2.0 * torch.log(opacities / ALPHA_MIN))
    extent = torch.where(opacities > ALPHA_MIN, extent, 0.0)
    return torch.ceil(extent[:, None] * torch.sqrt(covariances[:, [0, 2]]))


def _rotation_matrices(
    quats: Tensor,  # [M, 4] wxyz, of any length
) -> Tensor:  # [M, 3, 3]
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    return torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
            torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
            torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )


def _sh_basis(
    count: int,  # 1, 4, 9 or 16
    directions: Tensor,  # [N, 3]
) -> Tensor:  # [N, count]
    basis = [torch.full_like(directions[:, 0], SH_0)]
    if count > 1:
        x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
        basis += [-SH_1 * y, SH_1 * z, -SH_1 * x]
    if count > 4:
        xx, yy, zz = x * x, y * y, z * z
        a, b, c = SH_2
        basis += [a * x * y, -a * y * z, b * (2 * zz - xx - yy), -a * x * z, c * (xx - yy)]
    if count > 9:
        a, b, c, d, e = SH_3
        basis += [
            -a * y * (3 * xx - yy),
            b * x * y * z,
            -c * y * (4 * zz - xx - yy),
            d * z * (2 * zz - 3 * xx - 3 * yy),
            -c * x * (4 * zz - xx - yy),
            e * z * (xx - yy),
            -a * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, -1)
