"""The plain torch definition against analytic values, a loop over pixels, scipy and finite differences."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from headstudio.camera import Camera
from headstudio.gaussians import Gaussians
from headstudio.rasterise import rasterise, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support.splat_scenes import (
    GAUSSIAN_FIELDS,
    random_camera,
    random_gaussians,
    with_gradients,
)


def front_camera(size: int, focal: float, orthographic: bool = False) -> Camera:
    """At the origin, looking along +z, y down."""
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], dtype=torch.float64)
    return Camera(torch.eye(4, dtype=torch.float64), intrinsics, size, size, orthographic=orthographic)


def one_gaussian(z: float = 2.0, scale: float = 0.1, opacity: float = 0.7, sh: float = 1.0) -> Gaussians:
    return Gaussians(
        means=torch.tensor([[0.0, 0.0, z]], dtype=torch.float64),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64),
        scales=torch.full((1, 3), scale, dtype=torch.float64),
        opacities=torch.tensor([opacity], dtype=torch.float64),
        sh=torch.full((1, 1, 3), sh, dtype=torch.float64),
    )


@pytest.mark.parametrize("orthographic", [False, True])
def test_a_round_splat_is_the_blurred_gaussian(orthographic):
    size, focal, z, scale, opacity = 65, 100.0, 2.0, 0.1, 0.7
    camera = front_camera(size, focal, orthographic)
    render = rasterise(one_gaussian(z, scale, opacity), camera, backend="torch")
    variance = ((focal if orthographic else focal / z) * scale) ** 2 + 0.3
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) + 0.5 - size / 2] * 2, indexing="ij")
    expected = opacity * torch.exp(-(x**2 + y**2) / (2 * variance))
    expected = torch.where(expected >= 1 / 255, expected, 0.0)
    torch.testing.assert_close(render.alpha, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(render.depth, z * expected, rtol=1e-12, atol=1e-12)
    colour = 0.5 + 0.5 / math.sqrt(math.pi)  # Y_0 = 1 / (2 sqrt(pi))
    torch.testing.assert_close(render.colour, (colour * expected)[..., None].expand(-1, -1, 3))
    assert render.radii.item() == math.ceil(math.sqrt(2 * math.log(255 * opacity) * variance))
    torch.testing.assert_close(render.expected_depth, torch.where(expected > 0, z, 0.0).to(torch.float64))


def test_covariance_is_the_jacobian_sandwich():
    """cov2d = J W (R S S^T R^T) W^T J^T + 0.3 I, with J from autograd of the projection itself."""
    gaussians = random_gaussians(20, 0, seed=3)
    gaussians.means.mul_(0.5)
    camera = random_camera(3, (400, 300))
    pose, intrinsics = camera.world_to_camera, camera.intrinsics
    args = (gaussians.means, gaussians.quats, gaussians.scales, pose, intrinsics, 400, 300, False)
    centres, covariances, depths = reference._project_moments(*args)
    pixels, z = camera.project(gaussians.means)
    torch.testing.assert_close(centres, pixels)
    torch.testing.assert_close(depths, z)
    from scipy.spatial.transform import Rotation

    for i in range(20):
        assert (centres[i] - torch.tensor([200, 150])).abs().max() < 150, "so that nothing is clamped"
        jacobian = torch.autograd.functional.jacobian(lambda p: camera.project(p[None])[0][0], gaussians.means[i])
        w, x, y, z = gaussians.quats[i].tolist()
        axes = Rotation.from_quat([x, y, z, w]).as_matrix() * gaussians.scales[i].numpy()
        expected = jacobian.numpy() @ axes @ axes.T @ jacobian.numpy().T + 0.3 * np.eye(2)
        np.testing.assert_allclose(covariances[i], expected[[0, 0, 1], [0, 1, 1]], rtol=1e-10, atol=1e-12)


def loop_over_pixels(splats: reference.Projected, width: int, height: int) -> np.ndarray:
    """Blending as a person would write it down: one pixel, one splat at a time."""
    picture = np.zeros((height, width, 5))
    for row in range(height):
        for column in range(width):
            transmittance = 1.0
            for k in range(len(splats.index)):
                dx, dy = column + 0.5 - splats.centres[k, 0], row + 0.5 - splats.centres[k, 1]
                a, b, c = splats.conics[k]
                sigma = float(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy)
                alpha = min(0.999, float(splats.opacities[k]) * math.exp(-sigma))
                if sigma < 0 or alpha < 1 / 255:
                    continue
                if transmittance * (1 - alpha) <= 1e-4:
                    break
                weight = alpha * transmittance
                picture[row, column, :3] += weight * splats.colours[k].numpy()
                picture[row, column, 3] += weight * float(splats.depths[k])
                picture[row, column, 4] += weight
                transmittance *= 1 - alpha
    return picture


@pytest.mark.parametrize("orthographic", [False, True])
def test_blending_equals_a_loop_over_pixels(orthographic):
    gaussians = random_gaussians(60, 1, seed=5, size=0.06)
    gaussians.opacities[:30] = 1.0  # caps alpha, and ends pixels
    camera = random_camera(5, (13, 11), orthographic=orthographic)
    splats = reference.project(
        *(getattr(gaussians, f) for f in GAUSSIAN_FIELDS), camera.world_to_camera, camera.intrinsics, None, 13, 11,
        camera.near, orthographic,
    )  # fmt: skip
    assert len(splats.index) > 30
    assert (splats.depths.diff() >= 0).all()
    expected = loop_over_pixels(splats, 13, 11)
    assert expected[..., 4].max() > 0.9995, "some pixels end early"
    np.testing.assert_allclose(reference.composite(splats, 13, 11, chunk=5), expected, rtol=1e-9, atol=1e-12)


def test_spherical_harmonics_against_scipy():
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    basis = reference._sh_basis(16, directions.double()).numpy()
    x, y, z = directions.double().numpy().T
    polar, azimuth = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    for degree in range(4):
        for order in range(-degree, degree + 1):
            complex_value = scipy.special.sph_harm_y(degree, abs(order), polar, azimuth)
            if order < 0:
                expected = math.sqrt(2) * complex_value.imag
            elif order > 0:
                expected = math.sqrt(2) * complex_value.real
            else:
                expected = complex_value.real
            np.testing.assert_allclose(basis[:, degree * degree + degree + order], expected, atol=1e-6)


def test_colour_is_clamped_at_zero_and_not_above():
    black, bright = one_gaussian(sh=-9.0), one_gaussian(sh=9.0)
    camera = front_camera(9, 100.0)
    assert rasterise(black, camera, backend="torch").colour.max() == 0
    assert rasterise(bright, camera, backend="torch").colour.max() > 1


def test_the_jacobian_is_clamped_outside_the_picture():
    """A splat far outside the picture keeps the shape that it has at the margin of 1.3 half widths."""
    camera = front_camera(100, 100.0)  # half width: slope 0.5, margin 0.5 + 0.15
    gaussians = one_gaussian(1.0, 0.2)
    gaussians.means[0, 0] = 5.0
    args = (gaussians.quats, gaussians.scales, camera.world_to_camera, camera.intrinsics, 100, 100, False)
    _, covariances, _ = reference._project_moments(gaussians.means, *args)
    slope = 0.5 + 0.3 * 0.5
    expected = (100.0 * 0.2) ** 2 * (1 + slope**2) + 0.3
    assert covariances[0, 0].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gradients_against_finite_differences(degree, orthographic):
    gaussians, camera = with_gradients(
        random_gaussians(4, degree, seed=degree, size=0.08),
        random_camera(degree, (6, 4), batch=(2,), orthographic=orthographic),
    )
    background = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)

    def draw(means, quats, scales, opacities, sh, pose, intrinsics, background, offsets):
        render = rasterise(
            Gaussians(means, quats, scales, opacities, sh),
            Camera(pose, intrinsics, 6, 4, orthographic=orthographic),
            background=background,
            screen_offsets=offsets,
            backend="torch",
        )
        return render.colour, render.alpha, render.depth

    inputs = [getattr(gaussians, f) for f in GAUSSIAN_FIELDS]
    inputs += [camera.world_to_camera, camera.intrinsics, background, offsets]
    # A step so small that no pixel crosses a threshold.
    assert torch.autograd.gradcheck(draw, inputs, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=degree != 1)


def test_the_chunk_does_not_matter():
    gaussians, camera = random_gaussians(200, 0, seed=1), random_camera(1, (37, 23))
    args = [getattr(gaussians, f) for f in GAUSSIAN_FIELDS]
    args += [
        camera.world_to_camera[None],
        camera.intrinsics[None],
        torch.ones(1, 3).double(),
        None,
        37,
        23,
        0.01,
        False,
    ]
    whole = reference.render(*args, chunk=64)
    for chunk in (1, 8, 19):
        for a, b in zip(reference.render(*args, chunk=chunk), whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_drawing_again_in_the_backward_pass_gives_the_same_gradient(monkeypatch):
    gaussians, camera = with_gradients(random_gaussians(50, 1, seed=2), random_camera(2, (20, 20)))
    gradients = []
    for pairs in (2**40, 0):
        monkeypatch.setattr(reference, "MAX_REMEMBERED_PAIRS", pairs)
        colour = rasterise(gaussians, camera, backend="torch").colour
        gradients.append(torch.autograd.grad(colour.square().sum(), gaussians.means)[0])
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(9, 7), (4, 1)]), st.booleans())
def test_properties_of_every_picture(seed, size, orthographic):
    gaussians = random_gaussians(30, 0, seed=seed, size=0.08)
    camera = random_camera(seed, size, orthographic=orthographic)
    black = rasterise(gaussians, camera, backend="torch")
    white = rasterise(gaussians, camera, background=torch.ones(3), backend="torch")
    assert black.alpha.min() >= 0
    assert black.alpha.max() < 1
    torch.testing.assert_close(white.colour - black.colour, (1 - black.alpha)[..., None].expand_as(black.colour))
    assert (black.expected_depth[black.alpha > 0] >= camera.near).all()
    # The order in which Gaussians are given does not matter.
    shuffled = gaussians._map(lambda t: t.flip(0))
    torch.testing.assert_close(rasterise(shuffled, camera, backend="torch").colour, black.colour)
