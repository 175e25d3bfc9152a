"""The starter prior's networks: Stable Diffusion's own classes, small, in pixel space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes of the three networks. Attention to the text is at the two coarsest levels only: it is cheap there."""

    size: int = 64  # pixels: side of the pictures
    channels: tuple[int, ...] = (16, 32, 64, 128)  # one per level, each half as large as the one before
    text_levels: int = 2
    heads: int = 4
    groups: int = 8
    condition_channels: tuple[int, ...] = (8, 24)  # the landmark map halves between them: it is 2 x size
    text_width: int = 128
    text_layers: int = 2


def build_networks(settings: NetworkSettings, vocabulary_size: int, tokens: int, special: dict[str, int], seed: int):
    """(UNet2DConditionModel, ControlNetModel, CLIPTextModel) with fresh weights, by name.

    ``special`` holds the token ids ``start``, ``end`` and ``padding``. The same seed gives the same weights; torch's
    global generator is left as it was.
    """
    from diffusers import ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    plain = len(settings.channels) - settings.text_levels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=settings.size,
            in_channels=3,
            out_channels=3,
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
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary_size,
                hidden_size=settings.text_width,
                intermediate_size=2 * settings.text_width,
                num_hidden_layers=settings.text_layers,
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
            for network in (unet, controlnet):
                network.add_embedding.norm2.weight.fill_(0.3)
    return {"unet": unet, "controlnet": controlnet, "text_encoder": text_encoder}


def parameter_count(networks: dict[str, nn.Module]) -> int:
    return sum(parameter.numel() for network in networks.values() for parameter in network.parameters())


def noise_scheduler():
    """Stable Diffusion's schedule (scaled linear, 1000 steps), predicting the velocity."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        clip_sample=True,
    )
