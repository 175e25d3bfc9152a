"""Stable Diffusion 1.5 and its ControlNet at their real size, on the meta device: every shape, no weights.

The small models of the other tests and the real ones run through the same code; they differ in these numbers alone.
"""

from types import SimpleNamespace

import pytest
import torch
from headstudio.guidance.distil import STRATEGIES, distillation_loss
from headstudio.guidance.prior import Prior
from headstudio.guidance.prompts import PromptEmbeddings

from benchmarks.sd15 import SD15, random_prior


def build(**options) -> Prior:
    return random_prior(SD15, "meta", torch.float32, **options)


@pytest.fixture(scope="module")
def prior():
    return build()


def test_it_is_the_real_size(prior):
    """The parameter counts of the published weights."""
    counts = [
        sum(p.numel() for p in network.parameters())
        for network in (prior.unet, prior.controlnet, prior.text_encoder, prior.vae)
    ]
    assert counts == [859_520_964, 361_279_120, 123_060_480, 83_653_863]


def test_sizes(prior):
    assert prior.image_size == 512
    assert prior.latent_size == 64
    assert prior.latent_channels == 4
    assert prior.condition_size == 512
    assert prior.encode_text(["a man", ""]).shape == (2, 77, 768)
    assert prior.decode(torch.empty(2, 4, 64, 64, device="meta")).shape == (2, 512, 512, 3)


@pytest.mark.parametrize(("strategy", "views_at_once"), [("sds", None), ("nfsd", None), ("nfsd", 5)])
def test_shapes_of_a_training_step(strategy, views_at_once):
    """From the paper's 1024 px renders to their gradient: eight views, both sides of t = 200, some without a map."""
    prior = build(views_at_once=views_at_once)
    images = torch.empty(8, 1024, 1024, 3, device="meta", requires_grad=True)
    latents = prior.encode_images(images)
    assert latents.shape == (8, 4, 64, 64)
    azimuth = torch.linspace(-180, 180, 8)
    t = torch.tensor([20, 199, 200, 300, 400, 500, 600, 800])
    scale = 1.5 * torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])
    arguments = (
        prior,
        latents,
        t,
        torch.empty_like(latents),
        PromptEmbeddings.encode(prior, "a man").at(azimuth),
        torch.empty(8, 512, 512, 3, device="meta"),
        scale,
        SimpleNamespace(guidance_scale=7.5, negative_scale=1.0),
    )
    assert STRATEGIES[strategy].gradient(*arguments).shape == latents.shape
    loss = distillation_loss(STRATEGIES[strategy], *arguments)
    assert loss.shape == ()
    loss.backward()
    assert images.grad.shape == images.shape
