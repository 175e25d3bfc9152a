"""Stable Diffusion 1.5 and its ControlNet at their published sizes, with random weights, and the same made tiny.

Arithmetic takes the same time whatever the weights are: no download is needed to measure a training step. Weights are
made on the device, so that nothing of that size passes through the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from headstudio.guidance.prior import Prior
from torch.utils.flop_counter import FlopCounterMode

_CROSS = "CrossAttn"
_BLOCKS = (f"{_CROSS}DownBlock2D",) * 3 + ("DownBlock2D",)
_SHARED = {"in_channels": 4, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}
_SHARED |= {"down_block_types": _BLOCKS, "cross_attention_dim": 768, "attention_head_dim": 8}


@dataclass(frozen=True)
class Sizes:
    """Configurations of the networks, as diffusers and transformers take them."""

    unet: dict
    controlnet: dict
    autoencoder: dict
    text: dict


SD15 = Sizes(
    unet={
        **_SHARED,
        "sample_size": 64,
        "out_channels": 4,
        "up_block_types": ("UpBlock2D",) + (f"{_CROSS}UpBlock2D",) * 3,
        "norm_num_groups": 32,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    },
    controlnet={
        **_SHARED,
        "conditioning_embedding_out_channels": (16, 32, 96, 256),
        "controlnet_conditioning_channel_order": "rgb",
    },
    autoencoder={
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    },
    text={
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    },
)

# The same blocks, a tenth as wide and at 32 px
TOY = Sizes(
    unet=SD15.unet | {"sample_size": 8, "block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 32},
    controlnet=SD15.controlnet
    | {
        "block_out_channels": (32, 32, 64, 64),
        "cross_attention_dim": 32,
        "conditioning_embedding_out_channels": (4, 8, 8),
    },
    autoencoder=SD15.autoencoder
    | {
        "sample_size": 32,
        "block_out_channels": (32, 32, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    },
    text=SD15.text | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
)

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
}


def random_prior(sizes: Sizes, device: str, dtype: torch.dtype, seed: int = 0, **options) -> Prior:
    """A prior of random weights; ``options`` are the constructor's (``views_at_once``, ``compile_backend``)."""
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            networks = {
                "unet": UNet2DConditionModel(**sizes.unet),
                "controlnet": ControlNetModel(**sizes.controlnet),
                "text_encoder": CLIPTextModel(CLIPTextConfig(**sizes.text)),
                "vae": AutoencoderKL(**sizes.autoencoder),
            }
    finally:
        torch.set_default_dtype(usual)
    name = "stable-diffusion-v1-5 of random weights" if sizes is SD15 else "toy of random weights"
    return Prior(**networks, tokenizer=_byte_tokenizer(), scheduler_config=SCHEDULER, name=name, **options)


def _byte_tokenizer():
    """CLIP's tokenizer without any merges: every prompt has a length of 77 tokens anyway."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: row for row, word in enumerate(words)}, merges=[], model_max_length=77)


def flops_per_picture(sizes: Sizes) -> dict[str, int]:
    """Floating-point operations (a product and a sum are two) that one picture costs in each network.

    Counted on the meta device: matrix products, convolutions and attention; what is left out is small.
    "map embedding" is the part of the ControlNet that reads neither text nor timestep.
    """
    prior = random_prior(sizes, "meta", torch.float32)
    latents = torch.empty(1, prior.latent_channels, prior.latent_size, prior.latent_size, device="meta")
    condition = torch.empty(1, 3, prior.condition_size, prior.condition_size, device="meta")
    text = torch.empty(1, prior.token_limit, prior.unet.config.cross_attention_dim, device="meta")
    t = torch.zeros(1, dtype=torch.int64, device="meta")
    pictures = torch.empty(1, prior.image_size, prior.image_size, 3, device="meta", requires_grad=True)

    def count(function) -> tuple[int, object]:
        with FlopCounterMode(display=False) as counter:
            result = function()
        return counter.get_total_flops(), result

    with torch.no_grad():
        residuals_flops, residuals = count(lambda: prior._residuals(latents, t, text, condition, [1.0]))
        unet = count(lambda: prior.unet(latents, t, text, **residuals))[0]
        embedding = count(lambda: prior.controlnet.controlnet_cond_embedding(condition))[0]
    forward, encoded = count(lambda: prior.encode_images(pictures))
    backward = count(lambda: encoded.sum().backward())[0]
    return {
        "unet": unet,
        "controlnet": residuals_flops,
        "map embedding": embedding,
        "autoencoder": forward,
        "autoencoder, backward": backward,
    }
