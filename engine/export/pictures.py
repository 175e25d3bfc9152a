"""Pictures of an avatar, and PNG files."""

from __future__ import annotations

import math
import os

import cv2
import numpy as np
import torch
from torch import Tensor

from ..avatar.atomic import atomic_write
from ..avatar.file import Avatar
from ..avatar.rigged import RiggedAvatar, RiggedGaussians
from ..camera import Camera, orbit
from ..errors import UserError
from ..gaussians import Gaussians
from ..heads.head import Head
from ..rasterise import rasterise

FIELD_OF_VIEW = 20.0  # degrees, vertical: a portrait lens
MARGIN = 1.1  # of the sphere that holds the avatar
VIEWS = {"front": 0.0, "three-quarter": 40.0, "left": 90.0, "back": 180.0, "right": -90.0}  # azimuths, degrees
MAX_SIDE = 8192  # pixels of a picture, samples included


class Stage:
    """An avatar on a device, ready to be posed, with the sphere around it at which cameras are aimed."""

    def __init__(self, avatar: Avatar, device: torch.device | str = "cpu"):
        self.arrays = avatar.head
        self.model = RiggedAvatar(Head(avatar.head, device), RiggedGaussians.from_arrays(avatar.splats, device))
        # A hat reaches beyond the head, a stray splat reaches anywhere: all but the farthest splats count
        points = self.model.head.template.cpu().numpy()
        gaussians = self.pose()
        means, reach = gaussians.means.cpu().numpy(), 2.5 * gaussians.scales.amax(1).cpu().numpy()
        inner = np.percentile(means, (0.5, 99.5), axis=0) if len(means) else points[:0]
        box = np.concatenate([points, inner])
        self.centre = 0.5 * (box.min(0) + box.max(0))  # [3] metres
        self.radius = float(np.linalg.norm(points - self.centre, axis=1).max())  # metres
        if len(means):
            far = np.percentile(np.linalg.norm(means - self.centre, axis=1) + reach, 99.5)
            self.radius = max(self.radius, float(far))

    @torch.no_grad()
    def pose(
        self,
        expression: np.ndarray | None = None,  # [E]; none: at rest
        joints: np.ndarray | None = None,  # [J, 3] axis-angle, radians; none: at rest
    ) -> Gaussians:
        """The avatar's Gaussians in world coordinates."""
        like = self.model.head.template
        expression = np.zeros(self.model.head.expression_size) if expression is None else expression
        joints = np.zeros((self.model.head.joint_count, 3)) if joints is None else joints
        return self.model.pose(like.new_tensor(expression), like.new_tensor(joints)).detach()

    def camera(self, azimuth: float, size: int | tuple[int, int], elevation: float = 0.0) -> Camera:
        """A camera that has the whole avatar in view; angles in degrees as :func:`headstudio.camera.orbit` takes them,
        ``size`` in pixels (a square's side, or width and height)."""
        width, height = (size, size) if isinstance(size, int) else size
        half = math.tan(math.radians(FIELD_OF_VIEW / 2)) * min(1.0, width / height)
        distance = MARGIN * self.radius / math.sin(math.atan(half))
        target = torch.as_tensor(self.centre, dtype=torch.float32)
        return orbit(azimuth, elevation, distance, FIELD_OF_VIEW, (width, height), target)


@torch.no_grad()
def draw(
    gaussians: Gaussians,
    camera: Camera,
    background: tuple[float, float, float] | None = (1.0, 1.0, 1.0),  # sRGB, 0..1; none: transparent
    samples: int = 1,  # along each side of a pixel
) -> np.ndarray:  # [H, W, 3], or [H, W, 4] with straight alpha; uint8, display-referred sRGB
    """One picture from one camera. Raises ``UserError`` for a size that makes no picture."""
    check_size(camera.width, camera.height, samples)
    fine = camera.resized(camera.width * samples, camera.height * samples)
    solid = background is not None
    render = rasterise(gaussians, fine, background=torch.tensor(background) if solid else None)
    layers = render.colour if solid else torch.cat([render.colour, render.alpha[..., None]], -1)
    layers = _shrink(layers.clamp(0, 1), samples)
    if not solid:
        alpha = layers[..., 3:]
        colour = torch.where(alpha > 0, layers[..., :3] / alpha.clamp(min=1e-6), 0.0)
        layers = torch.cat([colour.clamp(0, 1), alpha], -1)
    return (layers * 255).round().to(torch.uint8).cpu().numpy()


def check_size(width: int, height: int, samples: int = 1) -> None:
    """Raises ``UserError`` for a picture without pixels, or one that is larger than any machine's memory."""
    if min(width, height, samples) < 1:
        raise UserError(f"A picture of {width} x {height} pixels with {samples} samples cannot be drawn.")
    if max(width, height) * samples > MAX_SIDE:
        raise UserError(
            f"A picture of {width} x {height} pixels with {samples} samples is too large: its longer side times the "
            f"samples may be {MAX_SIDE} at most."
        )


def write_png(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Writes [H, W, 3] or [H, W, 4] uint8 (RGB, straight alpha) atomically. Raises ``UserError`` if that fails."""
    order = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, order))
    assert done, picture.shape
    with atomic_write(path) as file:
        file.write(data.tobytes())


def _shrink(image: Tensor, samples: int) -> Tensor:  # [H s, W s, C] to [H, W, C]
    height, width = image.shape[0] // samples, image.shape[1] // samples
    return image.reshape(height, samples, width, samples, -1).mean((1, 3))
