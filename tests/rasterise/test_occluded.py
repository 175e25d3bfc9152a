"""Splats among opaque surfaces: against the plain picture where nothing hides, and against counting by brute force."""

import numpy as np
import pytest
import torch
from headstudio.camera import Camera, look_at, pinhole
from headstudio.gaussians import Gaussians
from headstudio.rasterise import rasterise
from headstudio.rasterise.occluded import rasterise_occluded
from support.splat_scenes import random_gaussians

NOWHERE = (np.array([[0, 0, -9], [1, 0, -9], [0, 1, -9]], np.float32), np.array([[0, 1, 2]], np.int32))
MIDDLE = np.zeros((1, 2))


def camera(orthographic=False, width=45, height=37):
    pose = look_at(torch.tensor([0.2, 0.1, 1.5]), torch.zeros(3))
    intrinsics = pinhole(torch.tensor(0.8), width, height)
    if orthographic:
        intrinsics[:2, :2] /= 1.5
    return Camera(pose, intrinsics, width, height, orthographic=orthographic)


@pytest.fixture
def gaussians():
    return random_gaussians(300, 3, 0).to(torch.float32)


@pytest.mark.parametrize("orthographic", [False, True])
def test_without_anything_in_front_it_is_the_plain_picture(gaussians, orthographic):
    view = camera(orthographic)
    colour, alpha, depth = rasterise_occluded(gaussians, view, *NOWHERE, MIDDLE)
    plain = rasterise(gaussians, view)
    assert alpha.max() > 0.5
    np.testing.assert_allclose(colour, plain.colour, atol=1e-5)
    np.testing.assert_allclose(alpha, plain.alpha, atol=1e-5)
    np.testing.assert_allclose(depth, plain.depth, atol=1e-4)


@pytest.mark.parametrize("orthographic", [False, True])
def test_a_wall_leaves_the_splats_before_it(gaussians, orthographic):
    """A plane square to the view: what is seen is the picture of the nearer splats alone."""
    view = camera(orthographic)
    to_world = torch.linalg.inv(view.world_to_camera).double().numpy()
    corners = np.array([[-50, -50, 1.5], [50, -50, 1.5], [50, 50, 1.5], [-50, 50, 1.5]])
    wall = corners @ to_world[:3, :3].T + to_world[:3, 3]
    colour, alpha, _ = rasterise_occluded(gaussians, view, wall, np.array([[0, 1, 2], [0, 2, 3]]), MIDDLE)
    nearer = view.project(gaussians.means)[1] <= 1.5
    assert 0.1 < nearer.float().mean() < 0.9
    plain = rasterise(Gaussians(*(tensor[nearer] for tensor in vars(gaussians).values())), view)
    np.testing.assert_allclose(colour, plain.colour, atol=1e-5)
    np.testing.assert_allclose(alpha, plain.alpha, atol=1e-5)


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("border", [(0, 0, 45, 37), (20, 17, 38, 36), (21, 17, 22, 18)])
def test_a_border_is_that_part_of_the_picture(gaussians, orthographic, border):
    view = camera(orthographic)
    wall = np.array([[-5, -5, 0.1], [0, -5, -0.2], [0.1, 5, 0.2]])
    places = np.array([[-0.3, 0.2], [0.1, -0.4], [0.4, 0.3]])
    whole = rasterise_occluded(gaussians, view, wall, np.array([[0, 1, 2]]), places)
    part = rasterise_occluded(gaussians, view, wall, np.array([[0, 1, 2]]), places, border)
    left, top, right, bottom = border
    for one, two in zip(whole, part, strict=True):
        np.testing.assert_allclose(two, one[top:bottom, left:right], atol=1e-4)
    assert part[1].max() > 0.1


def test_the_edge_hides_the_share_of_places_that_it_covers():
    """One large splat behind a half-plane that ends within a column; each place in the pixel counts by itself."""
    splat = Gaussians(
        means=torch.zeros(1, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 100.0),
        opacities=torch.ones(1),
        sh=torch.zeros(1, 1, 3),
    )
    pose = look_at(torch.tensor([0.0, 0, 2]), torch.zeros(3))
    view = Camera(pose, pinhole(torch.tensor(1.0), 32, 8), 32, 8)
    focal = float(view.intrinsics[0, 0])
    edge = 4.3 / focal  # 4.3 px right of the middle at a distance of 1 m
    wall = np.array([[-9, -9, 1], [edge, -9, 1], [edge, 9, 1], [-9, 9, 1]])
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    places = np.stack([(np.arange(10) + 0.5) / 10 - 0.5, np.zeros(10)], 1)
    plain = rasterise(splat, view).alpha.numpy()
    _, alpha, _ = rasterise_occluded(splat, view, wall, triangles, places)
    assert alpha[:, :20].max() == 0
    np.testing.assert_allclose(alpha[:, 20], 0.7 * plain[:, 20], atol=1e-5)
    np.testing.assert_allclose(alpha[:, 21:], plain[:, 21:], atol=1e-5)


def test_surfaces_that_pass_the_camera_hide_as_fine_ones_do(gaussians):
    """A triangle from before the camera to behind it, and the same cut into slices, most of them wholly before it."""
    view = camera()
    a, b, c = np.array([-0.6, -1, -9.0]), np.array([0.9, -0.4, 14.0]), np.array([-0.2, 0.9, -9.0])
    steps = np.linspace(0, 1, 4001)[:, None]
    left, right = a + steps * (b - a), c + steps * (b - c)
    fine = np.concatenate([left, right])
    index = np.arange(4000)
    strips = np.concatenate(
        [np.stack([index, index + 1, index + 4001], 1), np.stack([index + 1, index + 4002, index + 4001], 1)]
    )
    whole = rasterise_occluded(gaussians, view, np.stack([a, b, c]), np.array([[0, 1, 2]]), MIDDLE)[1]
    sliced = rasterise_occluded(gaussians, view, fine, strips, MIDDLE)[1]
    plain = rasterise(gaussians, view).alpha.numpy()
    assert np.abs(whole - plain).max() > 0.3
    assert (np.abs(whole - sliced) > 1e-3).mean() < 0.01
