"""Trains the starter prior's autoencoder: ``python -m headstudio.starter.autoencoder --data FOLDER --out FOLDER``.

It comes first: the denoiser then works on latents of a quarter of the side, a fraction of the arithmetic. Trained on
crops, which is as good for a network that only looks around itself. With ``--like FOLDER`` it begins as an autoencoder
that is finished, and keeps its latents as far as it may: a denoiser that was trained on those can go on.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..train.checkpoint import Checkpoint, load_checkpoint
from .batches import BatchSettings, irises, make_pictures
from .learner import Learner, RunSettings, add_run_arguments, deadline, run, run_settings
from .networks import AutoencoderSettings, build_autoencoder
from .shards import ShardFolder

LIKE = "like"  # folder within a run's, of the autoencoder that it began as


@dataclass(frozen=True)
class AutoencoderRun(RunSettings):
    """Everything that decides the result, apart from the pictures."""

    steps: int = 5000
    learning_rate: float = 1e-3
    average: float = 0.995
    batch: int = 16
    crop: int = 64  # pixels
    edge_weight: float = 1.0
    """Weight of the absolute error of the differences between neighbours, beside that of the pixels themselves."""
    colour_weight: float = 2.0
    """Weight of the absolute error of means over 8 x 8 pixels: large areas must have their colour first of all."""
    noise: float = 0.05
    """Standard deviation of noise on the latents while training, so that close latents mean close pictures."""
    size_weight: float = 0.01
    """Weight of the latents' mean square, which the noise would otherwise blow up."""
    eye_crops: float = 0.5
    """Share of the crops that are laid around the irises, where a picture has any."""
    eye_weight: float = 300.0
    """An error at an iris counts so much more: it is three pixels wide, and its colour is the first to go."""
    like_weight: float = 0.1
    """Weight of the absolute difference from the latents of the autoencoder that it is to be like, if any."""
    keep_latents: bool = False
    """Only the decoder learns: a denoiser that was trained on the latents of the one it is like needs no training."""
    spoilt: float = 0.06
    network: AutoencoderSettings = field(default_factory=AutoencoderSettings)

    @staticmethod
    def from_json(data: dict) -> AutoencoderRun:
        network = {key: tuple(value) if isinstance(value, list) else value for key, value in data["network"].items()}
        return AutoencoderRun(**{**data, "network": AutoencoderSettings(**network)})


class AutoencoderTrainer:
    """A ``learner.Trainer``. ``like``: the autoencoder to begin as, frozen, in float32."""

    def __init__(self, settings: AutoencoderRun, data: ShardFolder, like: nn.Module | None = None):
        self.settings, self.data, self.like = settings, data, like
        self.learner = Learner(self._build, settings)

    def _build(self) -> dict[str, nn.Module]:
        vae = build_autoencoder(self.settings.network, self.settings.seed)
        if self.like is not None:
            vae.load_state_dict(self.like.state_dict())
        return {"vae": vae}

    def train_step(self) -> float:
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 4, self.learner.step])
        rows = self.data.rows(rng.integers(len(self.data), size=settings.batch))
        pixels, conditions = make_pictures(rows, BatchSettings(spoilt=settings.spoilt), rng)
        crops = self._crops(torch.cat([pixels, irises(conditions)], 1), rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        loss = self.loss(crops[:, :3], crops[:, 3:], generator)
        loss.backward()
        self.learner.update()
        return float(loss.detach())

    def _crops(self, pictures: Tensor, rng: np.random.Generator) -> Tensor:  # [B, 4, S, S], the last: irises
        """[B, 4, crop, crop]: from anywhere, or with the middle of both irises anywhere within."""
        size, crop = pictures.shape[2], self.settings.crop
        crops = []
        for picture in pictures:
            corner = rng.integers(0, size - crop + 1, 2)  # y, x
            eyes = picture[3].nonzero()
            if rng.random() < self.settings.eye_crops and len(eyes):
                within = rng.integers(0, crop, 2)
                corner = np.clip(eyes.float().mean(0).numpy().astype(int) - within, 0, size - crop)
            crops.append(picture[:, corner[0] : corner[0] + crop, corner[1] : corner[1] + crop])
        return torch.stack(crops)

    def loss(
        self,
        pixels: Tensor,  # [B, 3, S, S] in -1..1
        iris: Tensor,  # [B, 1, S, S] 0 or 1
        generator: torch.Generator,
    ) -> Tensor:
        vae = self.learner.networks["vae"]
        with torch.set_grad_enabled(not self.settings.keep_latents):
            latents = vae.encode(pixels.to(getattr(torch, self.settings.precision))).latents
        noise = self.settings.noise * torch.randn(latents.shape, generator=generator)
        copy = vae.decode(latents + noise.to(latents.dtype)).sample.float()
        error = copy - pixels
        colour = F.avg_pool2d(error, 8).abs().mean()
        error = error * (1 + self.settings.eye_weight * iris)
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        loss = (
            error.abs().mean()
            + self.settings.edge_weight * edges
            + self.settings.colour_weight * colour
            + self.settings.size_weight * latents.float().square().mean()
        )
        if self.like is not None and not self.settings.keep_latents:
            with torch.no_grad():
                before = self.like.encode(pixels).latents
            loss = loss + self.settings.like_weight * (latents.float() - before).abs().mean()
        return loss

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """PSNR in decibels of whole held-out pictures through the averaged weights, and of their irises."""
        if self.data.held_out is None:
            return {}
        vae = self.learner.averaged_networks()["vae"]
        pixels, conditions = self._held_out_pictures()
        copies = torch.cat([vae.decode(vae.encode(part).latents).sample.clamp(-1, 1) for part in pixels.split(16)])
        error = ((copies - pixels) / 2).square().mean(1)  # [B, S, S]
        figures = {"psnr": float(-10 * error.mean((1, 2)).log10().mean())}
        shown = irises(conditions)[:, 0] > 0
        return {**figures, "psnr_irises": float(-10 * error[shown].mean().log10())} if shown.any() else figures

    def _held_out_pictures(self) -> tuple[Tensor, Tensor]:
        if self.data.held_out is None:
            raise UserError(f"{self.data.folder} lacks shard 0, on which the autoencoder is measured: make it.")
        rows = self.data.held_out.rows(np.arange(min(64, len(self.data.held_out))))
        return make_pictures(rows, BatchSettings(spoilt=0.0), np.random.default_rng(0))

    @torch.no_grad()
    def finished(self) -> nn.Module:
        """The averaged autoencoder, its ``scaling_factor`` set so that latents have unit variance, or to that of the
        one it is like."""
        vae = self.learner.averaged_networks()["vae"]
        if self.like is not None:
            factor = self.like.config.scaling_factor
        else:
            latents = torch.cat([vae.encode(part).latents for part in self._held_out_pictures()[0].split(16)])
            factor = round(1 / float(latents.std()), 4)
        vae.register_to_config(scaling_factor=factor)
        return vae

    def checkpoint(self) -> Checkpoint:
        return self.learner.checkpoint({"settings": asdict(self.settings)})

    def restore(self, checkpoint: Checkpoint) -> None:
        self.learner.restore(checkpoint)

    def refresh(self) -> None:
        self.data.refresh()


def trained_autoencoder(run_folder: Path, data: ShardFolder) -> nn.Module:
    """The autoencoder of the run's latest checkpoint. Raises ``UserError`` if there is none."""
    checkpoint = load_checkpoint(run_folder / "checkpoint", warn=print)
    if checkpoint is None:
        raise UserError(
            f"There is no autoencoder in {run_folder}: train it first, with headstudio.starter.autoencoder."
        )
    settings = AutoencoderRun.from_json(checkpoint.state["settings"])
    trainer = AutoencoderTrainer(settings, data, kept_autoencoder(run_folder / LIKE))
    trainer.restore(checkpoint)
    return trainer.finished()


def kept_autoencoder(folder: Path) -> nn.Module | None:
    """The autoencoder in a diffusers folder, frozen, in float32; None if there is no such folder."""
    from diffusers import AutoencoderTiny

    if not folder.is_dir():
        return None
    return AutoencoderTiny.from_pretrained(folder, local_files_only=True).float().requires_grad_(False).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, AutoencoderRun())
    parser.add_argument("--data", type=Path, required=True, help="folder of shards (headstudio.starter.dataset)")
    parser.add_argument("--like", type=Path, help="folder of a finished autoencoder; only when a run begins")
    parser.add_argument("--keep-latents", action="store_true", help="train the decoder alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.like is not None and not (arguments.out / LIKE).is_dir():
        like = kept_autoencoder(arguments.like) or parser.error(f"there is no autoencoder in {arguments.like}")
        like.save_pretrained(arguments.out / LIKE)
    elif arguments.keep_latents and not (arguments.out / LIKE).is_dir():
        parser.error("--keep-latents keeps those of another autoencoder: name it with --like")
    settings = AutoencoderRun(**run_settings(arguments), keep_latents=arguments.keep_latents)
    data = ShardFolder(arguments.data)
    trainer = AutoencoderTrainer(settings, data, kept_autoencoder(arguments.out / LIKE))
    run(trainer, arguments.out, until=deadline(arguments))


if __name__ == "__main__":
    main()
