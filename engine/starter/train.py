"""Trains the starter prior's denoiser: ``python -m headstudio.starter.train --data FOLDER --out FOLDER``.

UNet and ControlNet learn together, from scratch, to denoise latents of the generator's pictures; the autoencoder and
the text encoder come trained (``headstudio.starter.autoencoder``, ``headstudio.starter.language``) and stay as they
are. Every step draws from its own random numbers, so a run that was stopped goes on exactly where it was: run the same
command again. New shards in the data folder are taken in as they come.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from ..errors import UserError
from ..train.checkpoint import Checkpoint
from .autoencoder import kept_autoencoder, trained_autoencoder
from .batches import Batch, BatchSettings, irises, make_batch
from .language import taught_text_encoder
from .learner import Learner, RunSettings, add_run_arguments, deadline, run, run_settings
from .networks import NetworkSettings, build_denoiser, noise_scheduler
from .shards import ShardFolder
from .tokenizer import TOKENS, build_tokenizer, check_words, token_words


@dataclass(frozen=True)
class StarterSettings(RunSettings):
    """Everything that decides the result, apart from the pictures and the two trained encoders."""

    steps: int = 16_000
    small_steps: int = 5000
    """The first steps run on pictures of half the side: a quarter of the arithmetic."""
    batch: int = 8
    small_batch: int = 16
    noisiness: float = 0.7
    """Timesteps are drawn as 1000 u^noisiness, u even in 0..1. Below 1 noisy ones come more often: what a text says of
    large areas is plain to see in all others, so that only there is anything learnt from it."""
    snr_floor: float = 0.5
    snr_limit: float = 5.0
    """The squared error of the clean latents counts by its SNR within these limits. The upper one is min-SNR weighting;
    without the lower one a short training hardly learns where a head's large shapes come from, the noisiest steps."""
    eye_weight: float = 40.0
    """An error at an iris counts so much more: both are a thousandth of a picture."""
    batches: BatchSettings = field(default_factory=BatchSettings)
    networks: NetworkSettings = field(default_factory=NetworkSettings)

    @staticmethod
    def from_json(data: dict) -> StarterSettings:
        """The inverse of ``dataclasses.asdict`` after a way through JSON."""
        networks = {key: tuple(value) if isinstance(value, list) else value for key, value in data["networks"].items()}
        parts = {"networks": NetworkSettings(**networks), "batches": BatchSettings(**data["batches"])}
        return StarterSettings(**{**data, **parts})


class DenoiserTrainer:
    """A ``learner.Trainer``. ``vae`` and ``text_encoder`` are frozen, in float32."""

    def __init__(self, settings: StarterSettings, data: ShardFolder, vae: nn.Module, text_encoder: nn.Module):
        self.settings, self.data, self.vae, self.text_encoder = settings, data, vae, text_encoder
        self.tokenizer = build_tokenizer()
        self.learner = Learner(lambda: build_denoiser(settings.networks, settings.seed), settings)
        for network in self.learner.networks.values():
            # For so few tokens the plain product of matrices is a tenth of a step faster than torch's fused attention
            network.set_attn_processor(AttnProcessor())
        self.alphas = noise_scheduler().alphas_cumprod  # [1000]
        self.image_size = settings.networks.size * 2 ** (len(vae.config.encoder_block_out_channels) - 1)

    def train_step(self) -> float:
        settings, step = self.settings, self.learner.step
        rng = np.random.default_rng([settings.seed, 1, step])
        small = step < settings.small_steps
        size = self.image_size // 2 if small else self.image_size
        count = settings.small_batch if small else settings.batch
        batch = make_batch(self.data.rows(rng.integers(len(self.data), size=count)), size, settings.batches, rng)
        loss = self.loss(batch, rng)
        loss.backward()
        self.learner.update()
        return float(loss.detach())

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Tensor:  # [B, 3, S, S] in -1..1 -> [B, C, S/4, S/4]
        return self.vae.encode(pixels).latents * self.vae.config.scaling_factor

    def loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Mean squared error of the clean latents, each weighted by its limited SNR, and more at irises.

        The networks predict the velocity ``sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x``, at the noisiest steps the
        latents themselves. To predict the noise there, they would have to copy it more exactly than so few channels
        can.
        """
        clean, count = self.latents(batch.pixels), len(batch.captions)
        # One timestep from each of ``count`` equal ranges: less luck in a small batch
        share = ((rng.permutation(count) + rng.random(count)) / count) ** self.settings.noisiness
        t = torch.from_numpy((share * len(self.alphas)).astype(np.int64))
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        alpha = self.alphas[t][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        predicted = self.predict(noisy, t, batch)
        # The clean latents' squared error is 1 - alpha_bar times the velocity's
        alpha = alpha.flatten()
        weight = (alpha / (1 - alpha)).clamp(self.settings.snr_floor, self.settings.snr_limit) * (1 - alpha)
        iris = F.adaptive_max_pool2d(irises(batch.conditions), clean.shape[-2:])
        error = (1 + self.settings.eye_weight * iris) * (predicted - target).square()
        return (weight * error.mean((1, 2, 3))).mean()

    def predict(self, noisy: Tensor, t: Tensor, batch: Batch) -> Tensor:  # [B, C, s, s] -> [B, C, s, s] float32
        dtype = getattr(torch, self.settings.precision)
        networks = self.learner.networks
        text = self._encode(batch.captions).to(dtype)
        noisy, conditions = noisy.to(dtype), batch.conditions.to(dtype)
        down, middle = networks["controlnet"](
            noisy, t, encoder_hidden_states=text, controlnet_cond=conditions, return_dict=False
        )
        scale = batch.control.to(dtype)[:, None, None, None]
        return networks["unet"](
            noisy,
            t,
            encoder_hidden_states=text,
            down_block_additional_residuals=[residual * scale for residual in down],
            mid_block_additional_residual=middle * scale,
            return_dict=False,
        )[0].float()

    @torch.no_grad()
    def _encode(self, captions: list[str]) -> Tensor:  # [B, T, D]
        tokens = self.tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids).last_hidden_state

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """The loss of the averaged weights on the same pictures, captions and noise each time."""
        if self.data.held_out is None:
            return {}
        self.learner.use(self.learner.averages)
        rng = np.random.default_rng([self.settings.seed, 2])
        losses = []
        for rows in np.array_split(np.arange(min(64, len(self.data.held_out))), 4):
            plain = BatchSettings(text_dropped=0.0, control_dropped=0.0, spoilt=0.0)
            batch = make_batch(self.data.held_out.rows(rows), self.image_size, plain, rng)
            losses.append(float(self.loss(batch, rng)))
        self.learner.use(self.learner.weights)
        return {"loss": float(np.mean(losses))}

    def checkpoint(self) -> Checkpoint:
        return self.learner.checkpoint({"settings": asdict(self.settings), "words": list(token_words())})

    def restore(self, checkpoint: Checkpoint) -> None:
        check_words(checkpoint.state["words"], of=f"The checkpoint at step {checkpoint.step}")
        self.learner.restore(checkpoint)

    def refresh(self) -> None:
        self.data.refresh()


def load_encoders(run_folder: Path) -> tuple[nn.Module, nn.Module]:
    """(autoencoder, text encoder) that a run was begun with. Raises ``UserError`` if they are not there."""
    from transformers import CLIPTextModel

    if not (run_folder / "vae").is_dir() or not (run_folder / "text_encoder").is_dir():
        raise UserError(f"{run_folder} holds no autoencoder and text encoder: begin a run there with both.")
    vae = kept_autoencoder(run_folder / "vae")
    text_encoder = CLIPTextModel.from_pretrained(run_folder / "text_encoder", local_files_only=True)
    return vae, text_encoder.requires_grad_(False).eval()


def keep_encoders(run_folder: Path, autoencoder_run: Path, language_run: Path, data: ShardFolder) -> None:
    """Copies the two trained encoders into a new run's folder, so that later trainings of theirs cannot change it."""
    trained_autoencoder(autoencoder_run, data).save_pretrained(run_folder / "vae")
    taught_text_encoder(language_run).save_pretrained(run_folder / "text_encoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = StarterSettings()
    add_run_arguments(parser, defaults)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards (headstudio.starter.dataset)")
    parser.add_argument("--autoencoder", type=Path, help="folder of its run; only when a run begins")
    parser.add_argument("--language", type=Path, help="folder of the text encoder's run; only when a run begins")
    parser.add_argument("--small-steps", type=int, default=defaults.small_steps)
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--small-batch", type=int, default=defaults.small_batch)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = ShardFolder(arguments.data)
    if not (arguments.out / "text_encoder").is_dir():
        if not arguments.autoencoder or not arguments.language:
            parser.error("a new run needs --autoencoder and --language")
        keep_encoders(arguments.out, arguments.autoencoder, arguments.language, data)
    settings = StarterSettings(
        **run_settings(arguments),
        small_steps=arguments.small_steps,
        batch=arguments.batch,
        small_batch=arguments.small_batch,
    )
    trainer = DenoiserTrainer(settings, data, *load_encoders(arguments.out))
    run(trainer, arguments.out, until=deadline(arguments))


if __name__ == "__main__":
    main()
