"""Trains the starter prior's autoencoder: ``python -m headstudio.starter.autoencoder --data FOLDER --out FOLDER``.

It comes first: the denoiser then works on latents of a quarter of the side, a fraction of the arithmetic. Trained on
crops, which is as good for a network that only looks around itself.
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
from .batches import BatchSettings, make_pixels
from .learner import Learner, RunSettings, add_run_arguments, deadline, run, run_settings
from .networks import AutoencoderSettings, build_autoencoder
from .shards import ShardFolder


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
    noise: float = 0.1
    """Standard deviation of noise on the latents while training, so that close latents mean close pictures."""
    size_weight: float = 0.01
    """Weight of the latents' mean square, which the noise would otherwise blow up."""
    spoilt: float = 0.06
    network: AutoencoderSettings = field(default_factory=AutoencoderSettings)

    @staticmethod
    def from_json(data: dict) -> AutoencoderRun:
        network = {key: tuple(value) if isinstance(value, list) else value for key, value in data["network"].items()}
        return AutoencoderRun(**{**data, "network": AutoencoderSettings(**network)})


class AutoencoderTrainer:
    """A ``learner.Trainer``."""

    def __init__(self, settings: AutoencoderRun, data: ShardFolder):
        self.settings, self.data = settings, data
        self.learner = Learner(self._build, settings)

    def _build(self) -> dict[str, nn.Module]:
        return {"vae": build_autoencoder(self.settings.network, self.settings.seed)}

    def train_step(self) -> float:
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 4, self.learner.step])
        rows = self.data.rows(rng.integers(len(self.data), size=settings.batch))
        pixels = make_pixels(rows, BatchSettings(spoilt=settings.spoilt), rng)
        y, x = rng.integers(0, pixels.shape[2] - settings.crop + 1, 2)
        crops = pixels[:, :, y : y + settings.crop, x : x + settings.crop]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        loss = self.loss(crops, generator)
        loss.backward()
        self.learner.update()
        return float(loss.detach())

    def loss(self, pixels: Tensor, generator: torch.Generator) -> Tensor:  # [B, 3, S, S] in -1..1
        vae = self.learner.networks["vae"]
        latents = vae.encode(pixels.to(getattr(torch, self.settings.precision))).latents
        noise = self.settings.noise * torch.randn(latents.shape, generator=generator)
        copy = vae.decode(latents + noise.to(latents.dtype)).sample.float()
        error = copy - pixels
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        colour = F.avg_pool2d(error, 8).abs().mean()
        return (
            error.abs().mean()
            + self.settings.edge_weight * edges
            + self.settings.colour_weight * colour
            + self.settings.size_weight * latents.float().square().mean()
        )

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """PSNR in decibels of whole held-out pictures through the averaged weights."""
        if self.data.held_out is None:
            return {}
        vae = self.learner.averaged_networks()["vae"]
        errors = []
        for pixels in self._held_out_pixels().split(16):
            copy = vae.decode(vae.encode(pixels).latents).sample.clamp(-1, 1)
            errors.append(((copy - pixels) / 2).square().mean((1, 2, 3)))
        return {"psnr": float(-10 * torch.cat(errors).log10().mean())}

    def _held_out_pixels(self) -> Tensor:
        if self.data.held_out is None:
            raise UserError(f"{self.data.folder} lacks shard 0, on which the autoencoder is measured: make it.")
        rows = self.data.held_out.rows(np.arange(min(64, len(self.data.held_out))))
        return make_pixels(rows, BatchSettings(spoilt=0.0), np.random.default_rng(0))

    @torch.no_grad()
    def finished(self) -> nn.Module:
        """The averaged autoencoder, its ``scaling_factor`` set so that latents have unit variance."""
        vae = self.learner.averaged_networks()["vae"]
        latents = torch.cat([vae.encode(p).latents for p in self._held_out_pixels().split(16)])
        vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
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
    trainer = AutoencoderTrainer(AutoencoderRun.from_json(checkpoint.state["settings"]), data)
    trainer.restore(checkpoint)
    return trainer.finished()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, AutoencoderRun())
    parser.add_argument("--data", type=Path, required=True, help="folder of shards (headstudio.starter.dataset)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trainer = AutoencoderTrainer(AutoencoderRun(**run_settings(arguments)), ShardFolder(arguments.data))
    run(trainer, arguments.out, until=deadline(arguments))


if __name__ == "__main__":
    main()
