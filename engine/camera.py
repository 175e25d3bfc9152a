"""Cameras: one convention for the rasteriser, the condition image and Blender.

World: metres, y up, the face looks towards +z, the subject's left is +x.
Camera: OpenCV axes (x right, y down, z forward). Pixel (column i, row j) has its centre at (i + 0.5, j + 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .picture_constants import NEAR


@dataclass(frozen=True)
class Camera:
    """One camera, or a batch of cameras of the same size (leading dimensions ``...`` on both tensors).

    A pinhole camera maps the camera-space point (x, y, z) to pixel (fx x / z + cx, fy y / z + cy); an orthographic one
    to (fx x + cx, fy y + cy), its fx and fy being pixels per metre.
    """

    world_to_camera: Tensor  # [..., 4, 4] rigid
    intrinsics: Tensor  # [..., 3, 3] pixels
    width: int
    height: int
    near: float = NEAR  # metres; nothing nearer is drawn
    orthographic: bool = False

    def __post_init__(self) -> None:
        assert self.world_to_camera.shape[-2:] == (4, 4), self.world_to_camera.shape
        assert self.intrinsics.shape[-2:] == (3, 3), self.intrinsics.shape
        assert self.world_to_camera.shape[:-2] == self.intrinsics.shape[:-2], self.intrinsics.shape

    def __getitem__(self, index) -> Camera:
        return replace(self, world_to_camera=self.world_to_camera[index], intrinsics=self.intrinsics[index])

    def __len__(self) -> int:
        """Number of cameras in a batch of one leading dimension."""
        return self.world_to_camera.shape[0]

    @property
    def centre(self) -> Tensor:  # [..., 3] world
        rotation, translation = self.world_to_camera[..., :3, :3], self.world_to_camera[..., :3, 3]
        return -(rotation.transpose(-1, -2) @ translation.unsqueeze(-1)).squeeze(-1)

    def to(self, *args, **kwargs) -> Camera:
        return replace(
            self,
            world_to_camera=self.world_to_camera.to(*args, **kwargs),
            intrinsics=self.intrinsics.to(*args, **kwargs),
        )

    def resized(self, width: int, height: int) -> Camera:
        """The same view on another pixel grid."""
        scale = self.intrinsics.new_tensor([width / self.width, height / self.height, 1.0])
        return replace(self, intrinsics=self.intrinsics * scale[:, None], width=width, height=height)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points [..., P, 3] to pixels [..., P, 2] and camera depth [..., P] in metres."""
        rotation, translation = self.world_to_camera[..., :3, :3], self.world_to_camera[..., :3, 3]
        local = points @ rotation.transpose(-1, -2) + translation.unsqueeze(-2)
        depth = local[..., 2]
        plane = local[..., :2]
        if not self.orthographic:
            # A point in the camera's own plane has no picture; callers look at the depth before they use the pixel.
            plane = plane / torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth).unsqueeze(-1)
        focal = torch.stack([self.intrinsics[..., 0, 0], self.intrinsics[..., 1, 1]], -1).unsqueeze(-2)
        return plane * focal + self.intrinsics[..., :2, 2].unsqueeze(-2), depth


def joined(first: Camera, second: Camera) -> Camera:
    """Two batches of cameras, which must be of one kind and size, as one."""
    same = replace(second, world_to_camera=first.world_to_camera, intrinsics=first.intrinsics)
    assert same == first, (first, second)
    return replace(
        first,
        world_to_camera=torch.cat([first.world_to_camera, second.world_to_camera]),
        intrinsics=torch.cat([first.intrinsics, second.intrinsics]),
    )


def look_at(eye: Tensor, target: Tensor, up: Tensor | None = None) -> Tensor:
    """World-to-camera matrices [..., 4, 4] of cameras at ``eye`` [..., 3] looking at ``target`` [..., 3].

    ``up`` (default +y) must not be parallel to the viewing direction.
    """
    up = eye.new_tensor([0.0, 1.0, 0.0]) if up is None else up
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up.expand_as(forward), dim=-1), dim=-1)
    down = torch.linalg.cross(forward, right, dim=-1)
    rotation = torch.stack([right, down, forward], dim=-2)
    matrix = torch.zeros(*eye.shape[:-1], 4, 4, dtype=eye.dtype, device=eye.device)
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = -(rotation @ eye.unsqueeze(-1)).squeeze(-1)
    matrix[..., 3, 3] = 1.0
    return matrix


def pinhole(fov_y: Tensor, width: int, height: int) -> Tensor:
    """Intrinsics [..., 3, 3] of a centred camera with square pixels; ``fov_y`` [...] is vertical, in radians."""
    focal = 0.5 * height / torch.tan(0.5 * fov_y)
    matrix = torch.zeros(*fov_y.shape, 3, 3, dtype=fov_y.dtype, device=fov_y.device)
    matrix[..., 0, 0] = matrix[..., 1, 1] = focal
    matrix[..., 0, 2] = 0.5 * width
    matrix[..., 1, 2] = 0.5 * height
    matrix[..., 2, 2] = 1.0
    return matrix


def orbit(
    azimuth: Tensor | float,  # [...] degrees; 0 sees the face, +90 the subject's left side, 180 the back
    elevation: Tensor | float,  # [...] degrees; positive looks down from above
    distance: Tensor | float,  # [...] metres
    fov_y: Tensor | float,  # [...] degrees
    size: int | tuple[int, int],  # pixels: a square's side, or (width, height)
    target: Tensor | None = None,  # [..., 3] metres; default the origin
) -> Camera:
    """Cameras on a sphere around ``target``, upright."""
    azimuth, elevation, distance, fov_y = torch.broadcast_tensors(
        *(torch.as_tensor(value, dtype=torch.float32) for value in (azimuth, elevation, distance, fov_y))
    )
    width, height = (size, size) if isinstance(size, int) else size
    theta, phi = azimuth * (math.pi / 180), elevation * (math.pi / 180)
    direction = torch.stack([theta.sin() * phi.cos(), phi.sin(), theta.cos() * phi.cos()], -1)
    target = torch.zeros_like(direction) if target is None else target.to(direction).expand_as(direction)
    return Camera(
        world_to_camera=look_at(target + direction * distance.unsqueeze(-1), target),
        intrinsics=pinhole(fov_y * (math.pi / 180), width, height),
        width=width,
        height=height,
    )
