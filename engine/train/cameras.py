"""Random cameras for training, in the paper's ranges (Sec. 4.3: distance, field of view, elevation, azimuth)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..camera import Camera, orbit
from ..heads.arrays import HeadArrays
from ..heads.skinning import rotation_matrices
from .settings import CameraRanges


def sample_cameras(
    count: int,
    arrays: HeadArrays,
    size: int | tuple[int, int],  # pixels: a square's side, or (width, height)
    ranges: CameraRanges,
    rng: np.random.Generator,
) -> tuple[Camera, Tensor]:
    """``count`` random cameras on the CPU that look at the head's centre, and their azimuths [count] in degrees.

    Azimuth is stratified: the range is cut into ``count`` equally likely slices and each camera has one slice to
    itself, in random order, so that even a small batch sees the head from all around.
    """
    place = 2 * (rng.permutation(count) + rng.random(count)) / count - 1  # in -1..1
    place = np.sign(place) * np.abs(place) ** ranges.focus
    low, high = ranges.azimuth
    azimuth = torch.as_tensor(0.5 * (low + high + (high - low) * place), dtype=torch.float32)
    camera = orbit(
        azimuth,
        torch.as_tensor(rng.uniform(*ranges.elevation, count), dtype=torch.float32),
        torch.as_tensor(rng.uniform(*ranges.distance, count) * arrays.unit, dtype=torch.float32),
        torch.as_tensor(rng.uniform(*ranges.fov_y, count), dtype=torch.float32),
        size,
        torch.as_tensor(arrays.centre, dtype=torch.float32),
    )
    return camera, azimuth


def face_azimuth(
    arrays: HeadArrays,
    joints: np.ndarray,  # [J, 3] axis-angle, radians
) -> float:
    """Where the face looks, in degrees of azimuth: 0 at rest, +90 towards the subject's left.

    A camera's azimuth less this is the side of the head that it sees: a head turned away shows its side to the front.
    """
    joint, rotation = arrays.joint_names.index("neck"), np.eye(3)
    while joint >= 0:
        rotation = rotation_matrices(joints[joint]) @ rotation
        joint = int(arrays.parents[joint])
    return float(np.degrees(np.arctan2(rotation[0, 2], rotation[2, 2])))
