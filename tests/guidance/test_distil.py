"""The distillation gradient against its formula, evaluated term by term on the raw diffusers models."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from headstudio.errors import UserError
from headstudio.guidance.distil import distillation_loss, get_strategy
from headstudio.guidance.prior import Prior
from headstudio.guidance.prompts import PromptEmbeddings
from support.tiny_prior import write_tiny_prior

BATCH = 4
TIMES = torch.tensor([20, 199, 200, 780])  # both sides of 200, and the two timesteps next to it
SCALES = torch.tensor([1.5, 0.4, 0.0, 1.0])
SETTINGS = SimpleNamespace(guidance_scale=7.5, negative_scale=1.0)


@pytest.fixture(scope="module", params=["pixels", "autoencoder"])
def prior(request, tmp_path_factory):
    folder = write_tiny_prior(tmp_path_factory.mktemp("prior"), vae=request.param == "autoencoder")
    return Prior.load(folder, device="cpu")


@pytest.fixture(scope="module")
def step(prior):
    """One training step's inputs: pictures twice the prior's size, and what is drawn at random."""
    generator = torch.Generator().manual_seed(7)
    side, channels = prior.latent_size, prior.latent_channels
    return SimpleNamespace(
        images=torch.rand(BATCH, 2 * prior.image_size, 2 * prior.image_size, 3, generator=generator),
        noise=torch.randn(BATCH, channels, side, side, generator=generator),
        condition=torch.rand(BATCH, prior.condition_size, prior.condition_size, 3, generator=generator),
        azimuth=torch.tensor([0.0, 80.0, 170.0, -30.0]),
        prompts=PromptEmbeddings.encode(prior, "an old man", "blurry"),
    )


def noise_of(prior, latent, noise, t, text, condition, scale) -> torch.Tensor:
    """eps(x_t; y, C, t) [C, h, w] of one picture, straight from the networks."""
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    noisy = scheduler.add_noise(latent[None], noise[None], t[None])
    with torch.no_grad():
        down, middle = prior.controlnet(
            noisy, t, text[None], condition.permute(2, 0, 1)[None], conditioning_scale=float(scale), return_dict=False
        )
        return prior.unet(
            noisy,
            t,
            text[None],
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample[0]


def guided(prior, step, latents, row, positive, scale) -> torch.Tensor:
    """eps^s: null + s (text - null), the paper's notation."""
    arguments = (TIMES[row], step.condition[row], SCALES[row])
    t, condition, control = arguments
    text = noise_of(prior, latents[row], step.noise[row], t, positive, condition, control)
    null = noise_of(prior, latents[row], step.noise[row], t, step.prompts.null, condition, control)
    return null + scale * (text - null)


def gradient(prior, step, latents, name="nfsd", settings=SETTINGS):
    texts = step.prompts.at(step.azimuth)
    return get_strategy(name).gradient(prior, latents, TIMES, step.noise, texts, step.condition, SCALES, settings)


def weight(t) -> torch.Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - torch.cumprod(1 - betas, 0)[t]).float()


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scale", "negative"), [(7.5, 1.0), (3.0, 0.5)])
def test_nfsd_is_equation_7(prior, step, scale, negative):
    latents = prior.encode_images(step.images)
    result = gradient(prior, step, latents, settings=SimpleNamespace(guidance_scale=scale, negative_scale=negative))
    for row, view in enumerate([0, 1, 2, 0]):
        expected = guided(prior, step, latents, row, step.prompts.views[view], scale)
        if TIMES[row] >= 200:
            expected = expected - guided(prior, step, latents, row, step.prompts.negative, negative)
        close(result[row], weight(TIMES[row]) * expected)


def test_nfsd_as_the_sum_of_its_parts(prior, step):
    """s (eps_y - eps_null) + (eps_null below 200, else eps_null - eps_neg): the form that method.md gives."""
    latents = prior.encode_images(step.images)
    result = gradient(prior, step, latents)
    for row, view in enumerate([0, 1, 2, 0]):
        common = (prior, latents[row], step.noise[row], TIMES[row])
        y, null, negative = (
            noise_of(*common, text, step.condition[row], SCALES[row])
            for text in (step.prompts.views[view], step.prompts.null, step.prompts.negative)
        )
        residual = null if TIMES[row] < 200 else null - negative
        close(result[row], weight(TIMES[row]) * (7.5 * (y - null) + residual))


@pytest.mark.parametrize("times", [[0, 10, 100, 199], [200, 500, 700, 999]])
def test_nfsd_where_all_timesteps_are_on_one_side(prior, step, times):
    """Each picture's gradient is its own business: the same as in a mixed batch."""
    latents = prior.encode_images(step.images)
    texts = step.prompts.at(step.azimuth)
    other = [600, 50, 300, 10] if times[0] < 200 else [600, 50, 300, 10][::-1]

    def run(t):
        arguments = (prior, latents, torch.tensor(t), step.noise, texts, step.condition, SCALES, SETTINGS)
        return get_strategy("nfsd").gradient(*arguments)

    pure = run(times)
    for row in range(BATCH):
        mixed = [*other[:row], times[row], *other[row + 1 :]]
        close(run(mixed)[row], pure[row])


def test_sds_is_equation_6(prior, step):
    latents = prior.encode_images(step.images)
    result = gradient(prior, step, latents, "sds")
    for row, view in enumerate([0, 1, 2, 0]):
        expected = guided(prior, step, latents, row, step.prompts.views[view], 7.5) - step.noise[row]
        close(result[row], weight(TIMES[row]) * expected)


def test_every_text_is_conditioned_on_the_landmark_map(prior, step):
    """Another map changes each of the three scores, so none of them ran without it."""
    latents = prior.encode_images(step.images)
    changed = SimpleNamespace(**{**vars(step), "condition": step.condition.flip(1)})
    for settings in (
        SimpleNamespace(guidance_scale=0.0, negative_scale=0.0),  # eps_null below 200, nothing above
        SimpleNamespace(guidance_scale=1.0, negative_scale=1.0),
    ):
        difference = gradient(prior, step, latents, settings=settings) - gradient(
            prior, changed, latents, settings=settings
        )
        assert difference[0].abs().max() > 1e-4
        assert difference[2].abs().max() == 0  # its ControlNet scale is 0
    assert difference[3].abs().max() > 1e-4


@pytest.mark.parametrize("name", ["nfsd", "sds"])
def test_autograd_carries_the_gradient_into_the_pictures(prior, step, name):
    images = step.images.clone().requires_grad_()
    latents = prior.encode_images(images)
    latents.retain_grad()
    texts = step.prompts.at(step.azimuth)
    loss = distillation_loss(
        get_strategy(name), prior, latents, TIMES, step.noise, texts, step.condition, SCALES, SETTINGS
    )
    loss.backward()
    expected = gradient(prior, step, latents.detach(), name) / BATCH
    torch.testing.assert_close(latents.grad, expected, rtol=0, atol=0)
    torch.testing.assert_close(loss.detach(), 0.5 * BATCH * expected.square().sum(), rtol=1e-5, atol=0)

    # The chain rule through the encoder, by another route
    source = step.images.clone().requires_grad_()
    pixels = source.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).mean((2, 4)).permute(0, 3, 1, 2) * 2 - 1
    if prior.vae is not None:
        pixels = prior.vae.encode(pixels).latent_dist.mean * 0.18215
    pixels.backward(expected)
    torch.testing.assert_close(images.grad, source.grad, rtol=1e-4, atol=1e-6)
    assert images.grad.abs().max() > 0


def test_networks_get_no_gradient(prior, step):
    images = step.images.clone().requires_grad_()
    latents = prior.encode_images(images)
    texts = PromptEmbeddings.encode(prior, "an old man").at(step.azimuth)
    distillation_loss(
        get_strategy("nfsd"), prior, latents, TIMES, step.noise, texts, step.condition, SCALES, SETTINGS
    ).backward()
    assert images.grad is not None
    networks = [n for n in (prior.unet, prior.controlnet, prior.text_encoder, prior.vae) if n is not None]
    assert len(networks) == (4 if prior.latent_channels == 4 else 3)
    for network in networks:
        assert not network.training
        for parameter in network.parameters():
            assert parameter.grad is None
            assert not parameter.requires_grad
    assert not texts.positive.requires_grad


@pytest.mark.parametrize("options", [{"views_at_once": 1}, {"views_at_once": 3}, {"attention_slicing": True}])
def test_memory_savers_change_nothing(prior, step, tmp_path, options):
    folder = write_tiny_prior(tmp_path, vae=prior.vae is not None)
    small = Prior.load(folder, device="cpu", **options)

    def run(which):
        images = step.images.clone().requires_grad_()
        latents = which.encode_images(images)
        texts = step.prompts.at(step.azimuth)
        distillation_loss(
            get_strategy("nfsd"), which, latents, TIMES, step.noise, texts, step.condition, SCALES, SETTINGS
        ).backward()
        return images.grad, which.decode(latents.detach())

    for actual, expected in zip(run(small), run(prior), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_negative_prompt_is_not_evaluated_where_it_has_no_part(prior, step, monkeypatch):
    rows = []
    original = Prior.predict_noise

    def counted(self, latents, *rest):
        rows.append(len(latents))
        return original(self, latents, *rest)

    monkeypatch.setattr(Prior, "predict_noise", counted)
    gradient(prior, step, prior.encode_images(step.images))
    assert rows == [4 + 4 + 2]  # one call: prompt and null for all, negative for the two at t >= 200


def test_unknown_strategy_is_named():
    with pytest.raises(UserError, match=r"'sdi'.*nfsd, sds"):
        get_strategy("sdi")
