"""Rotation of spherical harmonics: f'(d) = f(R^T d), against scipy's own harmonics and as a representation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from headstudio.avatar.sh_rotation import SH_C0, band, rotate_sh, sh_rotations
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

ANGLES = st.tuples(*[st.floats(-math.pi, math.pi)] * 3)


def directions(count: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def basis(degree: int, points: np.ndarray) -> np.ndarray:
    parts = [np.full((len(points), 1), SH_C0)]
    parts += [np.stack(band(level, *points.T), -1) for level in range(1, degree + 1)]
    return np.concatenate(parts, 1)


def test_basis_is_the_real_spherical_harmonics_with_condon_shortley_phase():
    points = directions(50)
    polar, azimuth = np.arccos(points[:, 2]), np.arctan2(points[:, 1], points[:, 0])
    ours = basis(3, points)
    for degree in range(4):
        for order in range(-degree, degree + 1):
            complex_value = sph_harm_y(degree, abs(order), polar, azimuth)
            part = complex_value.real if order >= 0 else complex_value.imag
            expected = part * (1 if order == 0 else math.sqrt(2))
            np.testing.assert_allclose(ours[:, degree**2 + degree + order], expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(angles=ANGLES)
def test_turned_colours_equal_colours_from_the_turned_direction(angles):
    rotation = Rotation.from_rotvec(angles).as_matrix()
    sh = np.random.default_rng(1).normal(size=(2, 16, 3))
    turned = rotate_sh(sh, rotation[None], np.array([0, 0]))
    points = directions(30, 2)
    np.testing.assert_allclose(basis(3, points) @ turned, basis(3, points @ rotation) @ sh, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(first=ANGLES, second=ANGLES)
def test_rotations_compose_and_are_orthogonal(first, second):
    a, b = (Rotation.from_rotvec(angles).as_matrix() for angles in (first, second))
    for one, two, both in zip(sh_rotations(a, 3), sh_rotations(b, 3), sh_rotations(a @ b, 3), strict=True):
        np.testing.assert_allclose(one @ two, both, atol=1e-10)
        np.testing.assert_allclose(one @ one.T, np.eye(len(one)), atol=1e-10)


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_torch_and_numpy_agree_in_float32(coefficients):
    rng = np.random.default_rng(coefficients)
    rotation = Rotation.random(20, rng).as_matrix().astype(np.float32)
    sh = rng.normal(size=(100, coefficients, 3)).astype(np.float32)
    index = rng.integers(0, 20, 100)
    ours = rotate_sh(sh, rotation, index)
    theirs = rotate_sh(torch.from_numpy(sh), torch.from_numpy(rotation), torch.from_numpy(index))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    points = directions(10)
    for k in range(10):
        exact = basis(3, points @ rotation[index[k]].astype(np.float64))[:, :coefficients] @ sh[k]
        np.testing.assert_allclose(basis(3, points)[:, :coefficients] @ ours[k], exact, atol=1e-5)


def test_unknown_degree_is_refused():
    with pytest.raises(ValueError, match="degree 4"):
        band(4, 1.0, 0.0, 0.0)
