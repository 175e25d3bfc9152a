"""How much of some splats a camera sees, in front of and behind all the others."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..camera import Camera
from ..gaussians import Gaussians
from ..picture_constants import SH_0, SH_OFFSET
from ..rasterise import rasterise


@torch.no_grad()
def share_picture(
    gaussians: Gaussians,
    chosen: Tensor,  # [N] bool
    camera: Camera,  # or a batch of them
) -> Tensor:  # [..., H, W] in 0..1
    """The share of each pixel that the chosen splats make up: they drawn white, all others black, before black."""
    level = (chosen.to(gaussians.means)[:, None, None] - SH_OFFSET) / SH_0
    painted = replace(gaussians, sh=level.expand(-1, 1, 3).contiguous())
    return rasterise(painted, camera).colour[..., 0].clamp(0, 1)


def pixel_area(camera: Camera, depth: float) -> float:
    """Square centimetres that a pixel covers on the plane at that many metres from the camera."""
    fx, fy = camera.intrinsics[0, 0].item(), camera.intrinsics[1, 1].item()
    return depth**2 / (fx * fy) * 1e4


def distance_to(camera: Camera, point: Tensor) -> float:  # [3] metres
    """Depth of a point in front of the camera, metres."""
    depth = camera.project(point.to(camera.world_to_camera)[None])[1][0].item()
    return depth if math.isfinite(depth) else 0.0
