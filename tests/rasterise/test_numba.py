"""The numba back end against the float64 torch definition, and what it promises about bits, threads and bad input.

Relative error: largest absolute error over the largest absolute true value of the tensor.
"""

import multiprocessing
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from headstudio.gaussians import Gaussians
from headstudio.rasterise import cpu_bin, cpu_blend, rasterise
from hypothesis import given, settings
from hypothesis import strategies as st
from support.splat_scenes import (
    GAUSSIAN_FIELDS,
    picture_and_gradients,
    random_camera,
    random_gaussians,
    relative_error,
)

TOLERANCE = 1e-5


def assert_equal_to_truth(gaussians, camera, background=None):
    render, gradients = picture_and_gradients(gaussians, camera, "numba", torch.float32, background)
    truth, true_gradients = picture_and_gradients(gaussians, camera, "torch", torch.float64, background)
    assert truth.alpha.max() > 0.1
    assert torch.equal(render.visible, truth.visible)
    assert torch.equal(render.radii.double(), truth.radii)
    errors = {image: relative_error(getattr(render, image), getattr(truth, image)) for image in ("colour", "alpha")}
    errors["depth"] = relative_error(render.depth, truth.depth)
    errors |= {name: relative_error(gradients[name], true_gradients[name]) for name in true_gradients}
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_picture_and_every_gradient(degree, orthographic):
    size = [(64, 48), (37, 61), (16, 16), (100, 33)][degree]
    camera = random_camera(degree, size, orthographic=orthographic)
    assert_equal_to_truth(random_gaussians(400, degree, seed=degree), camera)


def test_a_batch_with_a_background_each():
    background = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert_equal_to_truth(random_gaussians(200, 1, seed=11), random_camera(11, (40, 30), batch=(2, 3)), background)


def test_splats_outside_the_frustum_margin():
    """A close camera with a small field of view: most centres lie outside, where the Jacobian is clamped."""
    camera = random_camera(21, (32, 32))
    intrinsics = camera.intrinsics.clone()
    intrinsics[..., :2, :2] *= 8
    assert_equal_to_truth(random_gaussians(300, 0, seed=21, size=0.1), replace(camera, intrinsics=intrinsics))


def test_opaque_splats_that_cap_alpha_and_end_pixels():
    gaussians = random_gaussians(300, 0, seed=31, size=0.06)
    gaussians.opacities[::2] = 1.0
    assert_equal_to_truth(gaussians, random_camera(31, (48, 48)))


def test_many_splats_per_tile():
    """More than one block of the early stop, and deep pixels."""
    assert_equal_to_truth(random_gaussians(3000, 0, seed=41, size=0.01), random_camera(41, (33, 17)))


def test_offsets_move_splats_by_pixels():
    gaussians, camera = random_gaussians(50, 0, seed=1).to(torch.float32), random_camera(1, (64, 64)).to(torch.float32)
    shift = torch.tensor([3.0, -2.0])
    moved = replace(camera, intrinsics=camera.intrinsics + torch.tensor([[0, 0, 3.0], [0, 0, -2.0], [0, 0, 0]]))
    # Orthographic, so that the principal point has no part in the clamped Jacobian.
    render = rasterise(gaussians, replace(camera, orthographic=True), screen_offsets=shift.expand(50, 2))
    expected = rasterise(gaussians, replace(moved, orthographic=True))
    torch.testing.assert_close(render.colour, expected.colour, rtol=0, atol=2e-5)


def test_gradients_against_finite_differences_in_single_precision():
    gaussians = random_gaussians(5, 1, seed=2, size=0.1).to(torch.float32)
    gaussians = replace(gaussians, opacities=gaussians.opacities * 0.5)
    camera = random_camera(2, (12, 10)).to(torch.float32)
    weights = torch.rand(10, 12, 3, generator=torch.Generator().manual_seed(0))

    def loss(**changes):
        return (rasterise(replace(gaussians, **changes), camera).colour * weights).double().sum()

    for name in GAUSSIAN_FIELDS:
        value = getattr(gaussians, name)
        leaf = value.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(**{name: leaf}), leaf)
        direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
        step = 2e-3 * value.abs().mean()
        difference = (loss(**{name: value + step * direction}) - loss(**{name: value - step * direction})) / (2 * step)
        expected = (gradient * direction).double().sum()
        assert abs(difference - expected) < 0.02 * (gradient * direction).double().abs().sum(), name


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    degree=st.integers(0, 3),
    orthographic=st.booleans(),
)
def test_any_size_and_scene(seed, n, width, height, degree, orthographic):
    """Against torch in single precision; a pixel where alpha meets its threshold may fall on either side of it."""
    gaussians = random_gaussians(n, degree, seed, size=0.05).to(torch.float32)
    camera = random_camera(seed, (width, height), orthographic=orthographic).to(torch.float32)
    render, truth = (rasterise(gaussians, camera, backend=backend) for backend in ("numba", "torch"))
    assert render.colour.shape == (height, width, 3)
    assert render.alpha.min() >= 0
    assert render.alpha.max() < 1
    wrong = (render.alpha - truth.alpha).abs() > 1e-5
    assert wrong.sum() <= 1
    assert (render.alpha - truth.alpha).abs().max() < 1.01 / 255
    assert (render.colour - truth.colour)[~wrong].abs().max() < 1e-4


def empty_gaussians() -> Gaussians:
    return random_gaussians(0, 0, seed=0).to(torch.float32)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_nothing_to_draw_is_the_background(backend, batch):
    camera = random_camera(0, (20, 18), batch).to(torch.float32)
    behind = random_gaussians(10, 0, seed=0).to(torch.float32)
    pose = camera.world_to_camera.clone()
    pose[..., 2, 3] = -5.0
    transparent = replace(behind, opacities=torch.zeros(10))
    background = torch.tensor([0.2, 0.4, 0.6])
    for gaussians, view in (
        (empty_gaussians(), camera),
        (behind, replace(camera, world_to_camera=pose)),
        (transparent, camera),
    ):
        leaf = gaussians.means.clone().requires_grad_()
        render = rasterise(replace(gaussians, means=leaf), view, background=background, backend=backend)
        assert torch.equal(render.colour, background.expand(*batch, 18, 20, 3))
        assert not render.alpha.any()
        assert not render.visible.any()
        assert render.radii.shape == (*batch, len(gaussians))
        assert not render.expected_depth.any()
        if render.colour.requires_grad:
            render.colour.sum().backward()
            assert not leaf.grad.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 1), (16, 16), (33, 31)])
def test_sizes_that_are_no_multiple_of_a_tile(size):
    assert_equal_to_truth(random_gaussians(200, 0, seed=6, size=0.1), random_camera(6, size))


def test_huge_splats():
    gaussians = random_gaussians(20, 0, seed=8)
    gaussians.scales[:10] = 50.0  # metres: far wider than the picture
    assert_equal_to_truth(gaussians, random_camera(8, (50, 40)))
    # So wide that single precision loses their shape: still finite, still without harm to gradients.
    gaussians = gaussians.to(torch.float32)
    gaussians.scales[5] = 1e18
    gaussians.scales[6, 0] = 1e12
    render, gradients = picture_and_gradients(gaussians, random_camera(8, (50, 40)), "numba", torch.float32)
    assert render.colour.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


BAD = [(f, value) for f in GAUSSIAN_FIELDS for value in (float("nan"), float("inf"), -float("inf"))]


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize(("field", "value"), [*BAD, ("quats", 0.0)])
def test_a_bad_gaussian_is_as_if_absent(field, value, backend):
    gaussians, camera = random_gaussians(30, 1, seed=9).to(torch.float32), random_camera(9, (32, 32), (2,))
    broken = replace(gaussians, **{field: getattr(gaussians, field).clone()})
    bad = [4, 17]
    getattr(broken, field).view(30, -1)[bad, slice(None) if value == 0 else 0] = value
    good = [i for i in range(30) if i not in bad]
    render, gradients = picture_and_gradients(broken, camera, backend, torch.float32)
    kept, kept_gradients = picture_and_gradients(gaussians._map(lambda t: t[good]), camera, backend, torch.float32)
    assert torch.equal(render.colour, kept.colour)
    assert not render.visible[:, bad].any()
    for name in GAUSSIAN_FIELDS:
        assert not gradients[name][bad].any(), name
        torch.testing.assert_close(gradients[name][good], kept_gradients[name])
    assert not gradients["screen_offsets"][:, bad].any()
    torch.testing.assert_close(gradients["world_to_camera"], kept_gradients["world_to_camera"])


def test_other_types_are_refused():
    gaussians, camera = random_gaussians(3, 0, seed=0), random_camera(0, (8, 8))
    with pytest.raises(ValueError, match="float32"):
        rasterise(gaussians, camera)


def scene_bits(threads: int) -> list[bytes]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        render, gradients = picture_and_gradients(
            random_gaussians(6000, 1, seed=3), random_camera(3, (130, 70), (3,)), "numba", torch.float32
        )
    finally:
        torch.set_num_threads(before)
    tensors = [render.colour, render.alpha, render.depth, *gradients.values()]
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


def test_the_bits_do_not_depend_on_threads_or_luck():
    expected = scene_bits(1)
    for threads in (1, 2, 2, 5):
        assert scene_bits(threads) == expected


def test_several_python_threads_at_once():
    expected, results = scene_bits(2), [None] * 4

    def work(k):
        results[k] = scene_bits(2)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def _draw_in_child(connection):
    connection.send(scene_bits(1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_draws_the_same():
    expected = scene_bits(2)  # the parent's helper threads exist
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_draw_in_child, args=(theirs,))
    child.start()
    assert ours.poll(60), "the child hangs"
    assert ours.recv() == expected
    child.join()
    assert child.exitcode == 0


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_kernels_compile_where_no_folder_can_be_written(tmp_path):
    """numba finds no place for its cache: it must compile all the same."""
    code = (
        "from headstudio.rasterise.jit import kernel\n"
        "def add(a, b):\n    return a + b\n"
        "add.__code__ = add.__code__.replace(co_filename='/proc/nowhere.py')\n"
        "assert kernel(add)(1, 2) == 3\n"
    )
    environment = {**os.environ, "HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}
    environment.pop("NUMBA_CACHE_DIR", None)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_radix_sort_is_a_stable_sort():
    rng = np.random.default_rng(0)
    depths = np.concatenate([rng.normal(size=5000), rng.integers(-3, 3, 5000)]).astype(np.float32)
    keys = np.array([cpu_bin._ascending(depth) for depth in depths], np.uint32)
    order = cpu_bin._radix_sort(keys, np.arange(len(depths), dtype=np.int32))
    np.testing.assert_array_equal(order, np.argsort(depths, kind="stable"))


def test_the_exponential():
    x = np.linspace(0, 40, 20001).astype(np.float32)
    values = np.array([cpu_blend._exp_of_minus(value) for value in x])
    np.testing.assert_allclose(values, np.exp(-x.astype(np.float64)), rtol=2e-7)


@pytest.mark.parametrize(("function", "floats"), [(cpu_blend._blend_one, 14), (cpu_blend._blend_one_backward, 13)])
def test_pixel_loops_are_vectorised(function, floats):
    """A factor of six hangs on this, and a harmless-looking edit can lose it without any other sign."""
    compiled = numba.njit(error_model="numpy")(function.py_func)
    arrays = [numba.float32[::1], numba.int64, numba.int64]
    gradient = [numba.float32[::1]] if function is cpu_blend._blend_one_backward else []
    compiled.compile((*arrays, *[numba.float32] * floats, *gradient))
    (assembly,) = compiled.inspect_asm().values()
    packed = len(re.findall(r"\bv?mulps\b|\bfmul(\.4s|\tv)", assembly))
    assert packed > 20
