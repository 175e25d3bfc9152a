"""The starter prior's networks: Stable Diffusion's own classes, small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class AutoencoderSettings:
    """Sizes of the autoencoder. The side halves between two levels, finest first."""

    channels: int = 32
    encoder_blocks: tuple[int, ...] = (0, 1, 2)
    decoder_blocks: tuple[int, ...] = (0, 1, 2)
    latent_channels: int = 8


@dataclass(frozen=True)
class TextSettings:
    """Sizes of the text encoder."""

    width: int = 128
    layers: int = 3
    heads: int = 4


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes of UNet and ControlNet. Attention to the text is at the coarsest level only: elsewhere it costs as much as
    all the rest."""

    size: int = 32  # side of the latents
    latent_channels: int = 8
    channels: tuple[int, ...] = (48, 96, 128)  # one per level, each half as large as the one before
    text_levels: int = 1
    heads: int = 4
    groups: int = 8
    condition_channels: tuple[int, ...] = (8, 16, 32)  # the landmark map halves between two: it is as large as pictures
    text_width: int = 128


def build_autoencoder(settings: AutoencoderSettings, seed: int) -> nn.Module:
    """``AutoencoderTiny`` with fresh weights, the same for the same seed; torch's global generator is left as it was.

    Convolutions without normalisation: what normalisation takes out of a picture first is its colours.
    """
    from diffusers import AutoencoderTiny

    levels = len(settings.encoder_blocks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderTiny(
            encoder_block_out_channels=(settings.channels,) * levels,
            decoder_block_out_channels=(settings.channels,) * levels,
            num_encoder_blocks=settings.encoder_blocks,
            num_decoder_blocks=settings.decoder_blocks[::-1],
            latent_channels=settings.latent_channels,
        )


def build_text_encoder(
    settings: TextSettings, vocabulary_size: int, tokens: int, special: dict[str, int], seed: int
) -> nn.Module:
    """``CLIPTextModel`` with fresh weights. ``special`` holds the token ids ``start``, ``end`` and ``padding``."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary_size,
                hidden_size=settings.width,
                intermediate_size=2 * settings.width,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                max_position_embeddings=tokens,
                bos_token_id=special["start"],
                eos_token_id=special["end"],
                pad_token_id=special["padding"],
            )
        )
        # CLIP starts its embeddings for millions of pictures; here words must tell themselves apart within minutes.
        # The tokens behind the last word start without a meaning of their own: they pass on what stands before them.
        words = text_encoder.get_input_embeddings().weight
        nn.init.normal_(words, std=0.5)
        with torch.no_grad():
            words[[special["end"], special["padding"]]] = 0.0
    return text_encoder


def build_denoiser(settings: NetworkSettings, seed: int) -> dict[str, nn.Module]:
    """``UNet2DConditionModel`` and ``ControlNetModel`` with fresh weights, by name."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    plain = len(settings.channels) - settings.text_levels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=settings.size,
            in_channels=settings.latent_channels,
            out_channels=settings.latent_channels,
            block_out_channels=settings.channels,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * settings.text_levels,
            up_block_types=("CrossAttnUpBlock2D",) * settings.text_levels + ("UpBlock2D",) * plain,
            cross_attention_dim=settings.text_width,
            attention_head_dim=settings.heads,  # diffusers' historical name: it is the number of heads
            norm_num_groups=settings.groups,
            # The text as a whole also joins the timestep's embedding, which every level sees: what a caption says of
            # large areas (skin, hair) is learnt that way long before the attention has found its words
            addition_embed_type="text",
        )
        controlnet = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=settings.condition_channels, load_weights_from_unet=False
        )
        with torch.no_grad():
            for network in (unet, controlnet):
                network.add_embedding.norm2.weight.fill_(0.3)
    return {"unet": unet, "controlnet": controlnet}


def noise_scheduler():
    """Stable Diffusion's schedule (scaled linear, 1000 steps), predicting the velocity, with nothing left of the
    picture at the last step (Lin et al. 2023).

    What Stable Diffusion leaves of it there is little, but large areas can be told from it: a model that learns so
    reads the colours of hair and hats from noise that has none, instead of from the text.
    """
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )
