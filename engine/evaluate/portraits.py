"""Pictures of an avatar at rest, all to one scale, beside what the bare head would show at each pixel.

Whatever is measured on them knows the head's anatomy and the picture, not which splat was meant for what.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch

from ..camera import Camera, orbit
from ..gaussians import Gaussians
from ..heads.arrays import HeadArrays
from ..rasterise import rasterise

SIZE = 224  # pixels
WINDOW = 0.44  # metres that the picture is wide: the default head is 0.16 wide, a broad hat 0.4
_DISTANCE = 4.0  # metres: so far away that a picture's plane coordinates are metres, to 3 %
_BITS = 4  # after the point, of the coordinates that cv2 fills


@dataclass(frozen=True)
class Portrait:
    """One view. Plane coordinates are metres from the picture's middle: to the picture's right, and up."""

    head: HeadArrays
    azimuth: float  # degrees
    colour: np.ndarray  # [H, W, 3] float32 sRGB in 0..1, over black
    alpha: np.ndarray  # [H, W] float32
    triangle: np.ndarray  # [H, W] int32: the nearest triangle of the bare head, -1 where it has none

    @cached_property
    def region(self) -> np.ndarray:  # [H, W] int: index into the head's region_names, -1 outside
        return np.where(self.triangle >= 0, self.head.region[self.triangle].astype(int), -1)

    def shows(self, *words: str) -> np.ndarray:  # [H, W] bool
        """Where the bare head shows a region whose name starts with one of these words."""
        wanted = [row for row, name in enumerate(self.head.region_names) if name.startswith(words)]
        return np.isin(self.region, wanted)

    @cached_property
    def plane(self) -> np.ndarray:  # [2, H, W] metres: right, up
        side = (np.arange(SIZE) + 0.5 - SIZE / 2) * (WINDOW / SIZE)
        return np.stack(np.meshgrid(side, -side))

    def place(self, points: np.ndarray) -> np.ndarray:  # [K, 3] metres -> [K, 2] plane coordinates
        pixels, _ = portrait_camera(self.head, self.azimuth).project(torch.as_tensor(points, dtype=torch.float32))
        return (pixels.numpy() - SIZE / 2) * [1, -1] * (WINDOW / SIZE)


def portrait_camera(head: HeadArrays, azimuth: float, elevation: float = 0.0) -> Camera:
    """The camera of a portrait; the scale does not depend on what the head wears."""
    field_of_view = 2 * math.degrees(math.atan(0.5 * WINDOW / _DISTANCE))
    target = torch.as_tensor(head.centre, dtype=torch.float32)
    return orbit(azimuth, elevation, _DISTANCE, field_of_view, SIZE, target)


@torch.no_grad()
def portrait(head: HeadArrays, gaussians: Gaussians, azimuth: float) -> Portrait:
    """The posed splats from one side; ``head`` is at rest, and so must they be."""
    camera = portrait_camera(head, azimuth)
    render = rasterise(gaussians, camera.to(gaussians.means.device))
    return Portrait(
        head,
        azimuth,
        render.colour.clamp(0, 1).cpu().numpy(),
        render.alpha.clamp(0, 1).cpu().numpy(),
        nearest_triangles(head.vertices, head.triangles, camera),
    )


def nearest_triangles(
    vertices: np.ndarray,  # [N, 3] metres
    triangles: np.ndarray,  # [M, 3]
    camera: Camera,
) -> np.ndarray:  # [H, W] int32
    """The triangle that a pixel's centre sees first, -1 for none. Triangles are drawn from far to near by their
    centres, which is exact for a mesh that is fine and does not cut itself."""
    pixels, depth = camera.project(torch.as_tensor(vertices, dtype=torch.float32))
    corners = np.rint((pixels.numpy() - 0.5) * 2**_BITS).astype(np.int32)[triangles]
    order = np.argsort(-depth.numpy()[triangles].mean(1), kind="stable")
    picture = np.full((camera.height, camera.width), -1, np.int32)
    for row in order:
        cv2.fillConvexPoly(picture, corners[row], int(row), cv2.LINE_8, _BITS)
    return picture
