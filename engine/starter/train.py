"""Trains the starter prior: ``python -m headstudio.starter.train --data FOLDER --out FOLDER``.

UNet, ControlNet and text encoder learn together, from scratch, to denoise the generator's pictures. Every
step draws from its own random numbers, so a run that was stopped goes on exactly where it was: run the same command
again. New shards in the data folder are taken in as they come.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .batches import Batch, BatchSettings, make_batch
from .networks import NetworkSettings, build_networks, noise_scheduler, parameter_count
from .shards import HELD_OUT, Shard, ShardFolder, read_shard, shard_path
from .tokenizer import END, PADDING, START, TOKENS, build_tokenizer, token_words


@dataclass(frozen=True)
class StarterSettings:
    """Everything that decides the result, apart from the pictures."""

    steps: int = 6000
    small_steps: int = 0
    """The first steps run on pictures of half the side: a quarter of the time."""
    batch: int = 8
    small_batch: int = 16
    learning_rate: float = 4e-4
    warm_up: int = 100  # steps
    fall: float = 0.4  # share of the run, at its end, in which the learning rate falls to a twentieth
    average: float = 0.996  # decay of the averaged weights, which are the ones that are kept
    noisiness: float = 0.6
    """Timesteps are drawn as 1000 u^noisiness, u even in 0..1. Below 1 noisy ones come more often: what a text says of
    large areas is plain to see in all others, so that only there is anything learnt from it."""
    text_rate: float = 0.5  # learning rate of the text encoder and of the attention to it, against that of the rest
    snr_floor: float = 0.5
    snr_limit: float = 5.0
    """The squared error of the clean picture counts by its SNR within these limits. The upper one is min-SNR weighting;
    without the lower one a short training hardly learns where a head's large shapes come from, the noisiest steps."""
    seed: int = 0
    precision: str = "bfloat16"  # of the networks while they train; the weights themselves are float32
    batches: BatchSettings = field(default_factory=BatchSettings)
    networks: NetworkSettings = field(default_factory=NetworkSettings)


def settings_from_json(data: dict) -> StarterSettings:
    """The inverse of ``dataclasses.asdict`` after a way through JSON."""
    networks = {key: tuple(value) if isinstance(value, list) else value for key, value in data["networks"].items()}
    rest = {key: value for key, value in data.items() if key not in ("networks", "batches")}
    return StarterSettings(**rest, networks=NetworkSettings(**networks), batches=BatchSettings(**data["batches"]))


class Trainer:
    """Weights, their averages and Adam's moments, by the names ``NETWORK.PARAMETER``."""

    def __init__(self, settings: StarterSettings):
        self.settings = settings
        self.step = 0
        self.tokenizer = build_tokenizer()
        self.networks = self._build()
        self.weights = {name: p.detach().clone() for name, p in self._parameters()}
        self.averages = {name: w.clone() for name, w in self.weights.items()}
        self.first = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.second = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.alphas = noise_scheduler().alphas_cumprod  # [1000]
        dtype = getattr(torch, settings.precision)
        for network in self.networks.values():
            for parameter in network.parameters():
                parameter.data = parameter.data.to(dtype)
            network.train()

    def _build(self) -> dict[str, nn.Module]:
        start, end, padding = self.tokenizer.convert_tokens_to_ids([START, END, PADDING])
        special = {"start": start, "end": end, "padding": padding}
        return build_networks(self.settings.networks, len(self.tokenizer), TOKENS, special, self.settings.seed)

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{name}.{key}", p) for name, network in self.networks.items() for key, p in network.named_parameters()
        ]

    def train_step(self, data: ShardFolder) -> float:
        """One step on random pictures; returns its loss."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 1, self.step])
        small = self.step < settings.small_steps
        size = settings.networks.size // 2 if small else settings.networks.size
        count = settings.small_batch if small else settings.batch
        batch = make_batch(data.rows(rng.integers(len(data), size=count)), size, settings.batches, rng)
        loss = self.loss(batch, rng)
        loss.backward()
        self._update()
        self.step += 1
        return float(loss.detach())

    def loss(self, batch: Batch, rng: np.random.Generator) -> Tensor:
        """Mean squared error of the clean picture, each weighted by its limited SNR.

        The networks predict the velocity ``sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x``, at the noisiest steps the
        picture itself. To predict the noise there, they would have to copy it more exactly than so few channels can.
        """
        count = len(batch.captions)
        # One timestep from each of ``count`` equal ranges: less luck in a small batch
        share = ((rng.permutation(count) + rng.random(count)) / count) ** self.settings.noisiness
        t = torch.from_numpy((share * len(self.alphas)).astype(np.int64))
        noise = torch.from_numpy(rng.standard_normal(batch.pixels.shape, np.float32))
        alpha = self.alphas[t][:, None, None, None]
        noisy = alpha.sqrt() * batch.pixels + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.pixels
        predicted = self.predict(noisy, t, batch)
        # The clean picture's squared error is 1 - alpha_bar times the velocity's
        alpha = alpha.flatten()
        weight = (alpha / (1 - alpha)).clamp(self.settings.snr_floor, self.settings.snr_limit) * (1 - alpha)
        return (weight * (predicted - target).square().mean((1, 2, 3))).mean()

    def predict(self, noisy: Tensor, t: Tensor, batch: Batch) -> Tensor:  # [B, 3, S, S] -> [B, 3, S, S] float32
        dtype = getattr(torch, self.settings.precision)
        tokens = self.tokenizer(
            batch.captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        )
        text = self.networks["text_encoder"](tokens.input_ids).last_hidden_state
        noisy, conditions = noisy.to(dtype), batch.conditions.to(dtype)
        down, middle = self.networks["controlnet"](
            noisy, t, encoder_hidden_states=text, controlnet_cond=conditions, return_dict=False
        )
        scale = batch.control.to(dtype)[:, None, None, None]
        return self.networks["unet"](
            noisy,
            t,
            encoder_hidden_states=text,
            down_block_additional_residuals=[residual * scale for residual in down],
            mid_block_additional_residual=middle * scale,
            return_dict=False,
        )[0].float()

    @torch.no_grad()
    def _update(self) -> None:
        """Adam on the float32 weights, the running average, and the networks' own copies renewed."""
        settings, step = self.settings, self.step + 1
        names, gradients = [], []
        for name, parameter in self._parameters():
            if parameter.grad is not None:
                names.append(name)
                gradients.append(parameter.grad.float())
                parameter.grad = None
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, float(1.0 / norm.clamp_min(1.0)))
        weights, first, second = ([table[n] for n in names] for table in (self.weights, self.first, self.second))
        torch._foreach_lerp_(first, gradients, 0.1)
        torch._foreach_mul_(second, 0.99)
        torch._foreach_addcmul_(second, gradients, gradients, 0.01)
        root = torch._foreach_sqrt(second)
        torch._foreach_div_(root, (1 - 0.99**step) ** 0.5)
        torch._foreach_add_(root, 1e-8)
        change = torch._foreach_div(first, root)
        rate = self.learning_rate() / (1 - 0.9**step)
        rates = [rate * (settings.text_rate if n.startswith("text_encoder") or ".attn2." in n else 1.0) for n in names]
        torch._foreach_mul_(change, rates)
        torch._foreach_sub_(weights, change)
        # A short memory at first: the average must not remember the random start
        decay = min(settings.average, (1 + step) / (10 + step))
        torch._foreach_lerp_([self.averages[n] for n in names], weights, 1 - decay)
        self._renew(self.weights)

    def learning_rate(self) -> float:
        settings, step = self.settings, self.step
        rise = min(1.0, (step + 1) / settings.warm_up)
        falling = (step - settings.steps * (1 - settings.fall)) / max(1.0, settings.steps * settings.fall)
        return settings.learning_rate * rise * (1 - 0.95 * min(max(falling, 0.0), 1.0))

    @torch.no_grad()
    def _renew(self, table: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters():
            parameter.copy_(table[name])

    @torch.no_grad()
    def held_out_loss(self, shard: Shard, count: int = 64) -> float:
        """The loss of the averaged weights on the same pictures and noise each time."""
        self._renew(self.averages)
        rng = np.random.default_rng([self.settings.seed, 2])
        losses = []
        for start in range(0, min(count, len(shard)), 16):
            rows = Shard(**{k: v[start : start + 16] for k, v in vars(shard).items()})
            batch = make_batch(rows, self.settings.networks.size, BatchSettings(0.0, 0.0, 0.0), rng)
            losses.append(float(self.loss(batch, rng)))
        self._renew(self.weights)
        return float(np.mean(losses))

    def averaged_networks(self) -> dict[str, nn.Module]:
        """Fresh float32 networks with the averaged weights, by name."""
        networks = self._build()
        for name, network in networks.items():
            for key, parameter in network.named_parameters():
                parameter.data.copy_(self.averages[f"{name}.{key}"])
            network.eval()
        return networks

    def checkpoint(self) -> Checkpoint:
        tables = {"weights": self.weights, "averages": self.averages, "first": self.first, "second": self.second}
        tensors = {f"{table}/{name}": value for table, values in tables.items() for name, value in values.items()}
        return Checkpoint(self.step, tensors, {"settings": asdict(self.settings), "words": list(token_words())})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from ``checkpoint``. Other networks or another vocabulary raise ``UserError``."""
        expected = self.checkpoint()
        fits = expected.tensors.keys() == checkpoint.tensors.keys() and all(
            value.shape == checkpoint.tensors[key].shape for key, value in expected.tensors.items()
        )
        if not fits or checkpoint.state["words"] != expected.state["words"]:
            raise UserError(
                f"The checkpoint at step {checkpoint.step} belongs to other networks or another vocabulary: "
                "go on with the code that wrote it, or start again in an empty folder."
            )
        for key, value in checkpoint.tensors.items():
            table, name = key.split("/", 1)
            getattr(self, table)[name] = value
        self.step = checkpoint.step
        self._renew(self.weights)


def train(
    data: Path,
    out: Path,
    settings: StarterSettings,
    checkpoint_every: int = 200,
    report_every: int = 20,
    until: float | None = None,  # seconds since the epoch: stop then, with a checkpoint
) -> Trainer:
    """Runs or goes on with a run whose checkpoints and ``log.jsonl`` are in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    folder = ShardFolder(data)
    held_out = read_shard(shard_path(data, HELD_OUT)) if shard_path(data, HELD_OUT).exists() else None
    trainer = Trainer(settings)
    saved = load_checkpoint(out / "checkpoint", warn=print)
    if saved:
        trainer.restore(saved)
    print(
        f"{parameter_count(trainer.networks):,} parameters, {len(folder):,} pictures, at step {trainer.step}",
        flush=True,
    )
    losses: list[float] = []
    start, first = time.monotonic(), trainer.step
    while trainer.step < settings.steps and (until is None or time.time() < until):
        losses.append(trainer.train_step(folder))
        last = trainer.step == settings.steps
        if trainer.step % report_every == 0 or last:
            entry = {
                "step": trainer.step,
                "loss": round(float(np.mean(losses)), 5),
                "seconds": round((time.monotonic() - start) / (trainer.step - first), 3),
                "pictures": len(folder),
                "time": round(time.time()),
            }
            losses.clear()
            _log(out, entry)
        if trainer.step % checkpoint_every == 0 or last:
            if held_out is not None:
                _log(out, {"step": trainer.step, "held_out_loss": round(trainer.held_out_loss(held_out), 5)})
            save_checkpoint(out / "checkpoint", trainer.checkpoint())
            folder.refresh()
    save_checkpoint(out / "checkpoint", trainer.checkpoint())
    return trainer


def _log(out: Path, entry: dict) -> None:
    with open(out / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    print(entry, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards (headstudio.starter.dataset)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--steps", type=int, default=StarterSettings.steps)
    parser.add_argument("--small-steps", type=int, default=StarterSettings.small_steps)
    parser.add_argument("--batch", type=int, default=StarterSettings.batch)
    parser.add_argument("--small-batch", type=int, default=StarterSettings.small_batch)
    parser.add_argument("--learning-rate", type=float, default=StarterSettings.learning_rate)
    parser.add_argument("--seed", type=int, default=StarterSettings.seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="stop after this long, with a checkpoint")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = StarterSettings(
        steps=arguments.steps,
        small_steps=arguments.small_steps,
        batch=arguments.batch,
        small_batch=arguments.small_batch,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    until = None if arguments.minutes is None else time.time() + 60 * arguments.minutes
    train(arguments.data, arguments.out, settings, until=until)


if __name__ == "__main__":
    main()
