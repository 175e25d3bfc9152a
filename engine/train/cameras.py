"""Random cameras for training, in the paper's ranges (Sec. 4.3: distance, field of view, elevation, azimuth)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..camera import Camera, orbit
from ..errors import UserError
from ..heads.arrays import HeadArrays


@dataclass(frozen=True)
class CameraRanges:
    """Each pair is (lowest, highest); the defaults are the paper's.

    Raises ``UserError`` for a pair that is not ordered, a distance or field of view that is no camera's, or an
    elevation at a pole, where "up" loses its meaning.
    """

    distance: tuple[float, float] = (1.5, 2.0)  # in the paper's unit, see HeadArrays.unit
    fov_y: tuple[float, float] = (40.0, 70.0)  # degrees, vertical
    elevation: tuple[float, float] = (-30.0, 30.0)  # degrees, positive looks down from above
    azimuth: tuple[float, float] = (-180.0, 180.0)  # degrees, 0 sees the face, +90 the subject's left side

    def __post_init__(self) -> None:
        limits = {
            "distance": (1e-3, 1e3),
            "fov_y": (1.0, 170.0),
            "elevation": (-89.0, 89.0),
            "azimuth": (-360.0, 360.0),
        }
        for name, (lowest, highest) in limits.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise UserError(
                    f"The camera range {name} = ({low:g}, {high:g}) must be ordered and lie within "
                    f"{lowest:g} to {highest:g}."
                )


def sample_cameras(
    count: int,
    arrays: HeadArrays,
    size: int | tuple[int, int],  # pixels: a square's side, or (width, height)
    ranges: CameraRanges,
    rng: np.random.Generator,
) -> tuple[Camera, Tensor]:
    """``count`` random cameras on the CPU that look at the head's centre, and their azimuths [count] in degrees.

    Azimuth is stratified: the range is cut into ``count`` equal slices and each camera has one slice to itself, in
    random order, so that even a small batch sees the head from all around.
    """
    slices = (rng.permutation(count) + rng.random(count)) / count
    low, high = ranges.azimuth
    azimuth = torch.as_tensor(low + (high - low) * slices, dtype=torch.float32)
    camera = orbit(
        azimuth,
        torch.as_tensor(rng.uniform(*ranges.elevation, count), dtype=torch.float32),
        torch.as_tensor(rng.uniform(*ranges.distance, count) * arrays.unit, dtype=torch.float32),
        torch.as_tensor(rng.uniform(*ranges.fov_y, count), dtype=torch.float32),
        size,
        torch.as_tensor(arrays.centre, dtype=torch.float32),
    )
    return camera, azimuth
