"""A diffusion prior of a few thousand random weights, built from the same classes as Stable Diffusion."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 16


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level tokenizer without any merges: every letter is a token, nothing is unknown."""
    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: row for row, word in enumerate(words)}, merges=[], model_max_length=77)


def write_tiny_prior(
    folder: str | Path,
    vae: bool | str = False,  # "tiny": AutoencoderTiny; True: AutoencoderKL
    size: int = 16,  # pixels: side of the pictures that the prior wants
    seed: int = 0,
    prediction_type: str = "epsilon",
    vocabulary: list[str] | None = None,
    pure_noise: bool = False,  # a schedule that leaves nothing of the picture at its last step
) -> Path:
    """Write an ordinary diffusers folder and return it: in pixel space, or with an autoencoder that halves the side.

    The ControlNet's output convolutions, which training starts at zero, are random too, so that conditions matter.
    """
    folder = Path(folder)
    latent_size, channels = (size // 2, 4) if vae else (size, 3)
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=2 * TEXT_WIDTH,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        autoencoder = AutoencoderKL(
            sample_size=size,
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=channels,
            norm_num_groups=4,
            scaling_factor=0.18215,
        )
        if vae == "tiny":
            autoencoder = AutoencoderTiny(
                encoder_block_out_channels=(8, 8),
                decoder_block_out_channels=(8, 8),
                num_encoder_blocks=(1, 1),
                num_decoder_blocks=(1, 1),
                latent_channels=channels,
                scaling_factor=1.3,
            )
        # Larger than the classes' own initialisation, so that text, condition and timestep visibly matter
        for module in (unet, controlnet, text_encoder, autoencoder):
            for parameter in module.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)

    unet.save_pretrained(folder / "unet")
    controlnet.save_pretrained(folder / "controlnet")
    text_encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=pure_noise,
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionControlNetPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "controlnet": ["diffusers", "ControlNetModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "vae": ["diffusers", type(autoencoder).__name__] if vae else [None, None],
    }
    if vae:
        autoencoder.save_pretrained(folder / "vae")
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    if vocabulary is not None:
        (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    return folder
