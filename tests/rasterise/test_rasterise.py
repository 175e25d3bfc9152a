"""The public function: shapes, refusals, the choice of the back end, and rigid motion of the whole scene."""

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from headstudio.camera import orbit
from headstudio.errors import UserError
from headstudio.gaussians import Gaussians
from headstudio.rasterise import cuda, rasterise
from scipy.spatial.transform import Rotation
from support.splat_scenes import random_camera, random_gaussians

rasterise_module = sys.modules[rasterise.__module__]


def single(function):
    return lambda *args, **kwargs: function(*args, **kwargs).to(torch.float32)


gaussians_of = single(random_gaussians)
camera_of = single(random_camera)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_shapes_follow_the_camera(batch, backend):
    gaussians, camera = gaussians_of(7, 2, seed=0), camera_of(0, (12, 9), batch)
    render = rasterise(gaussians, camera, backend=backend)
    assert render.colour.shape == (*batch, 9, 12, 3)
    assert render.alpha.shape == render.depth.shape == render.expected_depth.shape == (*batch, 9, 12)
    assert render.visible.shape == render.radii.shape == (*batch, 7)
    assert render.visible.dtype == torch.bool
    assert not render.radii.requires_grad


def test_a_batch_is_its_views_one_by_one():
    gaussians, camera = gaussians_of(100, 1, seed=4), camera_of(4, (30, 20), (3,))
    together = rasterise(gaussians, camera)
    for k in range(3):
        alone = rasterise(gaussians, camera[k])
        assert torch.equal(together.colour[k], alone.colour)
        assert torch.equal(together.radii[k], alone.radii)


@pytest.mark.parametrize("size", [(0, 4), (4, -1)])
def test_a_picture_needs_pixels(size):
    camera = replace(camera_of(0, (4, 4)), width=size[0], height=size[1])
    with pytest.raises(ValueError, match="at least one pixel"):
        rasterise(gaussians_of(1, 0, seed=0), camera)


def test_wrong_shapes_say_the_shape():
    gaussians, camera = gaussians_of(5, 0, seed=0), camera_of(0, (8, 8), (2,))
    with pytest.raises(AssertionError, match=r"\[4\]"):
        rasterise(gaussians, camera, background=torch.ones(4))
    with pytest.raises(AssertionError, match=r"\[1, 2, 3\]"):
        rasterise(gaussians, camera, background=torch.ones(1, 2, 3))
    with pytest.raises(AssertionError, match=r"\[5, 2\]"):
        rasterise(gaussians, camera, screen_offsets=torch.zeros(5, 2))
    with pytest.raises(AssertionError, match=r"\[5, 2, 3\]"):
        replace(gaussians, sh=torch.zeros(5, 2, 3))


def test_unknown_back_ends_and_near_planes_are_refused():
    gaussians, camera = gaussians_of(1, 0, seed=0), camera_of(0, (4, 4))
    with pytest.raises(ValueError, match="one of auto, numba"):
        rasterise(gaussians, camera, backend="opengl")
    with pytest.raises(ValueError, match="no camera"):
        rasterise(gaussians, camera_of(0, (4, 4), (0,)))
    with pytest.raises(ValueError, match="near plane"):
        rasterise(gaussians, replace(camera, near=0.0))


def test_the_near_plane_cuts():
    gaussians, camera = gaussians_of(200, 0, seed=2), camera_of(2, (24, 24))
    depth = camera.project(gaussians.means)[1]
    cut = replace(camera, near=depth.median().item())
    render = rasterise(gaussians, cut)
    assert not render.visible[depth < cut.near].any()
    assert render.visible[depth >= cut.near].sum() > 50


def test_auto_is_numba_on_the_cpu():
    gaussians, camera = gaussians_of(50, 0, seed=0), camera_of(0, (16, 16))
    assert torch.equal(rasterise(gaussians, camera).colour, rasterise(gaussians, camera, backend="numba").colour)


def test_gsplat_without_a_gpu_says_what_to_do():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="no CUDA device"):
        rasterise(gaussians_of(1, 0, seed=0), camera_of(0, (4, 4)), backend="gsplat")


def test_without_kernels_a_cuda_scene_is_drawn_on_the_cpu_with_one_warning(monkeypatch):
    monkeypatch.setattr(cuda, "why_unavailable", lambda: "there is no compiler (test).")
    like = type("Like", (), {"device": torch.device("cuda")})()
    with pytest.warns(RuntimeWarning, match="no compiler"):
        render = rasterise_module._render("auto", like)
    assert render is rasterise_module._on_cpu
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rasterise_module._render("auto", like) is render


def test_the_detour_over_the_cpu_is_differentiable():
    gaussians, camera = gaussians_of(20, 0, seed=0), camera_of(0, (16, 16), (1,))
    means = gaussians.means.requires_grad_()
    args = (means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.sh, camera.world_to_camera)
    results = rasterise_module._on_cpu(*args, camera.intrinsics, torch.zeros(1, 3), None, 16, 16, 0.01, False)
    (gradient,) = torch.autograd.grad(results[0].sum(), means)
    (expected,) = torch.autograd.grad(rasterise(gaussians, camera).colour.sum(), means)
    assert torch.equal(gradient, expected)


def test_importing_the_rasteriser_does_not_import_numba_or_gsplat():
    code = "import sys, headstudio.rasterise; assert not {'numba', 'gsplat'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_moving_the_world_and_the_camera_together_changes_nothing():
    gaussians, camera = gaussians_of(150, 0, seed=6), camera_of(6, (40, 30))
    rotation = Rotation.from_rotvec([0.4, -1.1, 0.7])
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.from_numpy(rotation.as_matrix())
    matrix[:3, 3] = torch.tensor([0.3, -0.2, 0.5])
    x, y, z, w = rotation.as_quat()
    a, b, c, d = gaussians.quats.unbind(-1)
    turned = torch.stack(
        [w * a - x * b - y * c - z * d, w * b + x * a + y * d - z * c, w * c - x * d + y * a + z * b,
         w * d + x * c - y * b + z * a], -1,
    ).float()  # fmt: skip
    moved = Gaussians(
        gaussians.means @ matrix[:3, :3].T + matrix[:3, 3], turned, gaussians.scales, gaussians.opacities, gaussians.sh
    )
    view = replace(camera, world_to_camera=camera.world_to_camera @ torch.linalg.inv(matrix))
    expected, render = rasterise(gaussians, camera), rasterise(moved, view)
    difference = (expected.colour - render.colour).abs()
    # A splat may lose or gain a pixel at its rim, where alpha is 1 / 255.
    assert difference.max() < 0.01
    assert difference.quantile(0.99) < 1e-4


def test_a_face_on_the_left_is_drawn_on_the_right():
    """The subject's left (+x) is on the picture's right when the camera looks at the face from the front."""
    gaussians = gaussians_of(1, 0, seed=0)
    gaussians.means[:] = torch.tensor([0.2, 0.1, 0.0])
    gaussians.opacities[:] = 0.9
    alpha = rasterise(gaussians, orbit(0.0, 0.0, 1.5, 40.0, 64)).alpha
    row, column = divmod(alpha.argmax().item(), 64)
    assert column > 36
    assert row < 30, "+y is up"
