"""Stable Diffusion 1.5 and its ControlNet at their real size, on the meta device: every shape, no weights.

The small models of the other tests and the real ones run through the same code; they differ in these numbers alone.
"""

from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from headstudio.guidance.distil import STRATEGIES, distillation_loss
from headstudio.guidance.prior import Prior
from headstudio.guidance.prompts import PromptEmbeddings
from support.tiny_prior import tiny_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel

WIDTHS = (320, 640, 1280, 1280)
CROSS = "CrossAttn"
UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": WIDTHS,
    "down_block_types": (f"{CROSS}DownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + (f"{CROSS}UpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
}
CONTROLNET = {
    "in_channels": 4,
    "block_out_channels": WIDTHS,
    "down_block_types": (f"{CROSS}DownBlock2D",) * 3 + ("DownBlock2D",),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "controlnet_conditioning_channel_order": "rgb",
}
AUTOENCODER = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
}


def build(**options) -> Prior:
    with torch.device("meta"):
        return Prior(
            unet=UNet2DConditionModel(**UNET),
            controlnet=ControlNetModel(**CONTROLNET),
            text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT)),
            tokenizer=tiny_tokenizer(),
            scheduler_config=SCHEDULER,
            vae=AutoencoderKL(**AUTOENCODER),
            name="stable-diffusion-v1-5",
            **options,
        )


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
