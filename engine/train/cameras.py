"""Random cameras for training, in the paper's ranges (Sec. 4.3: distance, field of view, elevation, azimuth)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..camera import Camera, orbit
from ..heads.arrays import HeadArrays
from ..heads.skinning import rotation_matrices
from .settings import CameraRanges

CLOSE_UP = (0.42, 0.52)
"""A close-up shows the face alone: so much of the width that a picture of the whole head would show."""
CLOSE_UP_AZIMUTH = 70.0
"""Degrees to either side up to which close-ups are taken: beyond, there is little face to see."""


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
    place = _stratified(count, rng)
    place = np.sign(place) * np.abs(place) ** ranges.focus
    low, high = ranges.azimuth
    azimuth = torch.as_tensor(0.5 * (low + high + (high - low) * place), dtype=torch.float32)
    target = torch.as_tensor(arrays.centre, dtype=torch.float32)
    return _around(target, azimuth, arrays.unit, size, ranges, rng), azimuth


def sample_close_ups(
    count: int,
    face: Tensor,  # [3] metres: the face's middle
    turn: float,  # degrees of azimuth: where the face looks
    unit: float,  # metres, see HeadArrays.unit
    size: int | tuple[int, int],  # pixels: a square's side, or (width, height)
    ranges: CameraRanges,
    rng: np.random.Generator,
) -> tuple[Camera, Tensor]:
    """``count`` random cameras on the CPU that show the face alone, and their azimuths [count] in degrees.

    They stand where others stand and have a longer lens. Not in the paper. In a picture of the whole head an iris is as
    large as what a latent of the prior stands for, and its colour a matter of luck.
    """
    azimuth = torch.as_tensor(turn + CLOSE_UP_AZIMUTH * _stratified(count, rng), dtype=torch.float32)
    camera = _around(face, azimuth, unit, size, ranges, rng)
    longer = torch.as_tensor(1 / rng.uniform(*CLOSE_UP, count), dtype=torch.float32)
    intrinsics = camera.intrinsics.clone()
    for axis in (0, 1):
        intrinsics[:, axis, axis] *= longer
    return replace(camera, intrinsics=intrinsics), azimuth


def _around(
    target: Tensor,  # [3] metres
    azimuth: Tensor,  # [V] degrees
    unit: float,
    size: int | tuple[int, int],
    ranges: CameraRanges,
    rng: np.random.Generator,
) -> Camera:
    count = len(azimuth)
    return orbit(
        azimuth,
        torch.as_tensor(rng.uniform(*ranges.elevation, count), dtype=torch.float32),
        torch.as_tensor(rng.uniform(*ranges.distance, count) * unit, dtype=torch.float32),
        torch.as_tensor(rng.uniform(*ranges.fov_y, count), dtype=torch.float32),
        size,
        target,
    )


def _stratified(count: int, rng: np.random.Generator) -> np.ndarray:  # [count] in -1..1
    return 2 * (rng.permutation(count) + rng.random(count)) / count - 1


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
