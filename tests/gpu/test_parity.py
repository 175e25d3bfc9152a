"""Every part of a training step on CUDA against the CPU or the definition, at real size where that matters.

Errors are relative: the norm of the difference over the norm of the truth.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from headstudio.avatar.binding import bind, triangle_frames
from headstudio.avatar.initialise import super_dense
from headstudio.camera import orbit
from headstudio.condition.picture import condition_image
from headstudio.guidance.distil import distillation_loss, get_strategy
from headstudio.guidance.prior import Prior
from headstudio.guidance.prompts import PromptEmbeddings
from headstudio.heads.head import Head
from headstudio.motion.generators import MotionSampler
from headstudio.rasterise import cuda as gsplat_back_end
from headstudio.rasterise import rasterise
from headstudio.train.loop import TrainingStopped, train
from support.splat_scenes import picture_and_gradients, random_camera, random_gaussians
from support.tiny_prior import write_tiny_prior
from support.training import SIX_STEPS, Notes, arkit_head

SINGLE = 1e-4  # of float32 against float32
HALF = {torch.float16: 0.02, torch.bfloat16: 0.15}  # of the distillation gradient; guidance amplifies differences


@pytest.fixture(scope="module")
def prior_folder(tmp_path_factory):
    return write_tiny_prior(tmp_path_factory.mktemp("prior"), vae=True, size=32)


def needs_gsplat():
    reason = gsplat_back_end.why_unavailable()
    if reason:
        pytest.fail(f"There is a GPU, but {reason}")


@pytest.mark.cuda
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_hundred_thousand_splats_at_1024_pixels(cuda, agree, degree):
    """gsplat against the torch definition in double precision, every gradient included."""
    needs_gsplat()
    gaussians = random_gaussians(100_000, degree, seed=degree, size=0.004)
    camera = random_camera(degree, (1024, 1024))
    options = {"device": cuda, "intrinsics_gradient": False}
    truth, true_gradients = picture_and_gradients(gaussians, camera, "torch", torch.float64, **options)
    render, gradients = picture_and_gradients(gaussians, camera, "gsplat", torch.float32, **options)
    for image in ("colour", "alpha", "depth"):
        agree(image, getattr(render, image), getattr(truth, image), 1e-3)
    for name, gradient in true_gradients.items():
        agree(f"gradient of {name}", gradients[name], gradient, 1e-2)


def posed(device, arrays, numbers):
    """Vertices and Gaussians of an expression and a pose, and what a loss on them leaves on every input."""
    head = Head(arrays, device)
    expression, joints = MotionSampler(arrays).sample(numbers)
    leaves = [torch.from_numpy(array).to(device).requires_grad_() for array in (expression, joints)]
    leaves.append(torch.linspace(-1, 1, head.identity_size).to(device).requires_grad_())
    vertices = head(*(leaf[None] for leaf in leaves))[0]
    gaussians = super_dense(Head(arrays).template, Head(arrays).triangles, count=5000, sh_degree=1).to(device)
    gaussians.requires_grad_()
    result = bind(triangle_frames(vertices, head.triangles), gaussians.triangle, **gaussians.parameters())
    (result.means.square().sum() + result.scales.sum() + result.sh.square().sum()).backward()
    gradients = dict(zip(("expression", "joints", "identity"), (leaf.grad for leaf in leaves), strict=True))
    gradients |= {name: gaussians.parameters()[name].grad for name in ("offsets", "log_scales", "sh")}
    return vertices, result, gradients


@pytest.mark.cuda
def test_head_and_eq_5(cuda, agree, default_head):
    vertices, gaussians, gradients = posed("cpu", default_head, np.random.default_rng(3))
    on_gpu, gaussians_there, gradients_there = posed(cuda, default_head, np.random.default_rng(3))
    agree("vertices", on_gpu, vertices, SINGLE)
    for name in ("means", "scales", "sh"):
        agree(name, getattr(gaussians_there, name), getattr(gaussians, name), SINGLE)
    for name, gradient in gradients.items():
        # Folded lids are slivers of triangles, whose frames turn on the last digits
        agree(f"gradient of {name}", gradients_there[name], gradient, 10 * SINGLE)


@pytest.mark.cuda
def test_condition_image(cuda, agree, default_head):
    """A landmark within rounding of a pixel's edge moves a line by a pixel; nothing else may differ."""
    vertices = torch.from_numpy(default_head.vertices).expand(4, -1, -1)
    camera = orbit(torch.tensor([0.0, 40.0, -70.0, 170.0]), 5.0, 1.8 * default_head.unit, 50.0, 512)
    picture, strength = condition_image(default_head, vertices, camera)
    there, strength_there = condition_image(default_head, vertices.to(cuda), camera)
    assert there.is_cuda
    agree("strength", strength_there, strength, SINGLE)
    assert (there.cpu() != picture).float().mean() < 1e-4


def distilled(prior, name="nfsd"):
    """The strategy's gradient on latents, and on the pictures behind the autoencoder. Inputs are drawn on the CPU."""
    generator = torch.Generator().manual_seed(7)
    side = prior.image_size
    pictures = torch.rand(4, 2 * side, 2 * side, 3, generator=generator).to(prior.device).requires_grad_()
    noise = torch.randn(4, prior.latent_channels, prior.latent_size, prior.latent_size, generator=generator)
    condition = torch.rand(4, prior.condition_size, prior.condition_size, 3, generator=generator)
    arguments = {
        "t": torch.tensor([20, 199, 200, 780]).to(prior.device),
        "noise": noise.to(prior.device),
        "texts": PromptEmbeddings.encode(prior, "an old man").at(torch.tensor([0.0, 80.0, 170.0, -30.0])),
        "condition": condition.to(prior.device),
        "control_scale": torch.tensor([1.5, 0.4, 0.0, 1.0]).to(prior.device),
        "settings": SimpleNamespace(guidance_scale=7.5, negative_scale=1.0),
    }
    latents = prior.encode_images(pictures)
    latents.retain_grad()
    distillation_loss(get_strategy(name), prior, latents, **arguments).backward()
    return latents.grad, pictures.grad


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["nfsd", "sds"])
def test_distillation_in_single_precision(cuda, agree, prior_folder, name):
    truth = distilled(Prior.load(prior_folder, device="cpu"), name)
    there = distilled(Prior.load(prior_folder, device=cuda, dtype=torch.float32), name)
    agree("gradient of latents", there[0], truth[0], SINGLE)
    agree("gradient of pictures", there[1], truth[1], SINGLE)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("dtype", HALF)
def test_distillation_in_half_precision(request, agree, prior_folder, dtype, device):
    if device == "cuda":
        request.getfixturevalue("cuda")
    truth = distilled(Prior.load(prior_folder, device="cpu"))
    rough = distilled(Prior.load(prior_folder, device=device, dtype=dtype))
    agree("gradient of latents", rough[0], truth[0], HALF[dtype])
    agree("gradient of pictures", rough[1], truth[1], 2 * HALF[dtype])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_compiled_networks_give_the_same(request, agree, prior_folder, device):
    """On the CPU by a backend that only traces: inductor needs a C++ compiler there."""
    if device == "cuda":
        request.getfixturevalue("cuda")
    plain = Prior.load(prior_folder, device=device, dtype=torch.float32)
    backend = "inductor" if device == "cuda" else "eager"
    compiled = Prior.load(prior_folder, device=device, dtype=torch.float32, compile_backend=backend)
    for value, truth in zip(distilled(compiled), distilled(plain), strict=True):
        agree("gradient", value, truth, SINGLE)


@pytest.mark.cuda
def test_a_short_run(cuda, agree, prior_folder):
    """Six steps with densification and pruning: as many splats within a few, and pictures that look the same."""
    needs_gsplat()
    avatars, losses = [], []
    for device in ("cpu", cuda):
        notes = Notes()
        prior = Prior.load(prior_folder, device=device, dtype=torch.float32)
        avatars.append(train(SIX_STEPS, arkit_head(), prior, "a green orc", seed=3, reporter=notes, device=device))
        losses.append(torch.tensor([p.losses["distil"] for p in notes.progresses]))
        assert not notes.warnings
    agree("loss of the first step", losses[1][:1], losses[0][:1], 1e-3)
    agree("losses", losses[1], losses[0], 0.05)
    counts = [len(avatar.splats) for avatar in avatars]
    assert abs(counts[1] - counts[0]) <= 0.05 * counts[0], counts
    agree("mean colour", *(torch.from_numpy(avatar.splats.sh[:, 0].mean(0)) for avatar in reversed(avatars)), 0.02)


@pytest.mark.cuda
def test_a_stopped_run_goes_on(cuda, prior_folder, tmp_path):
    needs_gsplat()
    prior = Prior.load(prior_folder, device=cuda)
    arguments = (SIX_STEPS, arkit_head(), prior, "a green orc")
    with pytest.raises(TrainingStopped):
        train(*arguments, reporter=Notes(stop_after=3), checkpoint_dir=tmp_path, device=cuda)
    notes = Notes()
    avatar = train(*arguments, reporter=notes, checkpoint_dir=tmp_path, resume=True, device=cuda)
    assert [p.step for p in notes.progresses] == [4, 5, 6]
    assert np.isfinite(avatar.splats.sh).all()


@pytest.mark.cuda
def test_short_memory_halves_the_views(cuda, prior_folder):
    """A cap on torch's share of the card, which a step with all views at once would break."""
    needs_gsplat()
    settings = replace(SIX_STEPS, steps=2, views=8, render_size=1024, snapshot_every=0, checkpoint_every=0)
    prior = Prior.load(prior_folder, device=cuda)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train(settings, arkit_head(), prior, "a green orc", device=cuda)
    total = torch.cuda.get_device_properties(0).total_memory
    notes = Notes()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * torch.cuda.max_memory_reserved() / total)
    try:
        train(settings, arkit_head(), prior, "a green orc", reporter=notes, device=cuda)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("Memory is short" in warning for warning in notes.warnings), notes.warnings
    assert [p.step for p in notes.progresses] == [1, 2]


@pytest.mark.cuda
def test_a_failed_build_draws_on_the_cpu(cuda, agree, monkeypatch):
    gaussians = random_gaussians(200, 1, seed=0).to(cuda, torch.float32)
    camera = random_camera(0, (64, 48), (2,)).to(cuda, torch.float32)
    truth = rasterise(gaussians, camera, backend="torch").colour
    monkeypatch.setattr(gsplat_back_end, "why_unavailable", lambda: "the build broke (test of the fallback).")
    with pytest.warns(RuntimeWarning, match="the build broke"):
        render = rasterise(gaussians, camera)
    assert render.colour.is_cuda
    agree("colour", render.colour, truth, SINGLE)
