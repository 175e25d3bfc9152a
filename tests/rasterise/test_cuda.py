"""gsplat on a GPU against the torch definition.

gsplat computes in single precision with the GPU's fast exponential, so a pixel at a splat's rim may fall on the other
side of the 1 / 255 threshold: pictures are compared by their largest error (one such step) and by their 99th
percentile, gradients by the norm of the error over the norm of the truth.
"""

from dataclasses import replace

import pytest
import torch
from headstudio.rasterise import cuda, rasterise
from support.splat_scenes import picture_and_gradients, random_camera, random_gaussians

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def _needs_a_gpu():
    reason = cuda.why_unavailable()
    if reason:
        pytest.skip(f"needs an NVIDIA GPU and gsplat's kernels: {reason}")


def assert_close(render, gradients, truth, true_gradients):
    for image in ("colour", "alpha", "depth"):
        error = (getattr(render, image).cpu().double() - getattr(truth, image)).abs().flatten()
        assert error.max() < 0.02, image
        assert error.quantile(0.99) < 1e-4, image
    for name, true_gradient in true_gradients.items():
        error = (gradients[name].cpu().double() - true_gradient).norm() / true_gradient.norm()
        assert error < 1e-2, (name, error)
    assert (render.visible.cpu() != truth.visible).sum() <= 1


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_picture_and_gradients(degree, orthographic):
    gaussians = random_gaussians(400, degree, seed=degree)
    camera = random_camera(degree, (61, 45), (2,), orthographic)
    background = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    args = {"background": background, "intrinsics_gradient": False}
    truth = picture_and_gradients(gaussians, camera, "torch", torch.float64, **args)
    assert_close(*picture_and_gradients(gaussians, camera, "gsplat", torch.float32, device="cuda", **args), *truth)


def test_auto_is_gsplat_on_cuda():
    gaussians = random_gaussians(50, 0, seed=0).to("cuda", torch.float32)
    camera = random_camera(0, (16, 16)).to("cuda", torch.float32)
    render = rasterise(gaussians, camera)
    assert render.colour.is_cuda
    torch.testing.assert_close(render.colour, rasterise(gaussians, camera, backend="gsplat").colour)


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "sh"])
def test_a_bad_gaussian_is_as_if_absent(field):
    gaussians = random_gaussians(30, 1, seed=9)
    camera = random_camera(9, (32, 32), (2,))
    broken = replace(gaussians, **{field: getattr(gaussians, field).clone()})
    getattr(broken, field).view(30, -1)[[4, 17], 0] = float("nan")
    args = {"intrinsics_gradient": False}
    truth = picture_and_gradients(broken, camera, "torch", torch.float64, **args)
    render, gradients = picture_and_gradients(broken, camera, "gsplat", torch.float32, device="cuda", **args)
    assert_close(render, gradients, *truth)
    assert not gradients[field][[4, 17]].any()


def test_nothing_to_draw_is_the_background():
    camera = random_camera(0, (20, 18), (2,)).to("cuda", torch.float32)
    background = torch.tensor([0.2, 0.4, 0.6], device="cuda")
    for n in (0, 3):
        gaussians = random_gaussians(n, 0, seed=0).to("cuda", torch.float32)
        gaussians = replace(gaussians, opacities=torch.zeros_like(gaussians.opacities))
        render = rasterise(gaussians, camera, background=background)
        torch.testing.assert_close(render.colour, background.expand(2, 18, 20, 3))
        assert not render.visible.any()


def test_intrinsics_have_no_gradient():
    gaussians = random_gaussians(5, 0, seed=0).to("cuda", torch.float32)
    camera = random_camera(0, (8, 8)).to("cuda", torch.float32)
    camera.intrinsics.requires_grad_()
    with pytest.raises(ValueError, match="intrinsics"):
        rasterise(gaussians, camera)


def test_offsets_have_the_screen_space_gradient():
    gaussians, camera = random_gaussians(100, 0, seed=1), random_camera(1, (40, 40))
    _, truth = picture_and_gradients(gaussians, camera, "torch", torch.float64, intrinsics_gradient=False)
    _, gradients = picture_and_gradients(
        gaussians, camera, "gsplat", torch.float32, device="cuda", intrinsics_gradient=False
    )
    error = (gradients["screen_offsets"].cpu().double() - truth["screen_offsets"]).norm()
    assert error < 1e-2 * truth["screen_offsets"].norm()
