"""Networks while they learn: float32 weights, their running averages, Adam; and the run that carries them to its end.

The three trainings of the starter prior (language, autoencoder, denoiser) differ in their loss alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class RunSettings:
    """What every training run has."""

    steps: int = 6000
    learning_rate: float = 4e-4
    warm_up: int = 100  # steps
    fall: float = 0.4  # share of the run, at its end, in which the learning rate falls to a twentieth
    average: float = 0.996  # decay of the averaged weights, which are the ones that are kept
    seed: int = 0
    precision: str = "bfloat16"  # of the networks while they train; the weights themselves are float32

    def rate(self, step: int) -> float:
        """Learning rate of a step: it rises, stays, and falls."""
        rise = min(1.0, (step + 1) / self.warm_up)
        falling = (step - self.steps * (1 - self.fall)) / max(1.0, self.steps * self.fall)
        return self.learning_rate * rise * (1 - 0.95 * min(max(falling, 0.0), 1.0))


class Learner:
    """Weights, their averages and Adam's moments, by the names ``NETWORK.PARAMETER``.

    ``networks`` hold copies of the weights in ``settings.precision``; ``build`` makes them, always alike.
    """

    def __init__(self, build: Callable[[], dict[str, nn.Module]], settings: RunSettings):
        self.settings, self.build = settings, build
        self.step = 0
        self.networks = build()
        self.weights = {name: p.detach().clone() for name, p in self._parameters()}
        self.averages = {name: w.clone() for name, w in self.weights.items()}
        self.first = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.second = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        dtype = getattr(torch, settings.precision)
        for network in self.networks.values():
            for parameter in network.parameters():
                parameter.data = parameter.data.to(dtype)
            network.train()

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{name}.{key}", p) for name, network in self.networks.items() for key, p in network.named_parameters()
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Ends a step: Adam on the float32 weights, the running average, and the networks' own copies renewed."""
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
        torch._foreach_mul_(change, settings.rate(self.step) / (1 - 0.9**step))
        torch._foreach_sub_(weights, change)
        # A short memory at first: the average must not remember the random start
        decay = min(settings.average, (1 + step) / (10 + step))
        torch._foreach_lerp_([self.averages[n] for n in names], weights, 1 - decay)
        self.use(self.weights)
        self.step = step

    @torch.no_grad()
    def use(self, table: dict[str, Tensor]) -> None:
        """The networks compute with these weights (``weights`` or ``averages``) from now on."""
        for name, parameter in self._parameters():
            parameter.copy_(table[name])

    def averaged_networks(self) -> dict[str, nn.Module]:
        """Fresh float32 networks with the averaged weights, by name."""
        networks = self.build()
        for name, network in networks.items():
            for key, parameter in network.named_parameters():
                parameter.data.copy_(self.averages[f"{name}.{key}"])
            network.requires_grad_(False).eval()
        return networks

    def checkpoint(self, state: dict) -> Checkpoint:
        tables = {"weights": self.weights, "averages": self.averages, "first": self.first, "second": self.second}
        tensors = {f"{table}/{name}": value for table, values in tables.items() for name, value in values.items()}
        return Checkpoint(self.step, tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from ``checkpoint``. One of other networks raises ``UserError``."""
        expected = self.checkpoint({}).tensors
        fits = expected.keys() == checkpoint.tensors.keys() and all(
            value.shape == checkpoint.tensors[key].shape for key, value in expected.items()
        )
        if not fits:
            raise UserError(
                f"The checkpoint at step {checkpoint.step} belongs to other networks: "
                "go on with the code that wrote it, or start again in an empty folder."
            )
        for key, value in checkpoint.tensors.items():
            table, name = key.split("/", 1)
            getattr(self, table)[name] = value
        self.step = checkpoint.step
        self.use(self.weights)


class Trainer(Protocol):
    """What ``run`` carries to its end."""

    settings: RunSettings
    learner: Learner

    def train_step(self) -> float: ...  # the loss
    def held_out(self) -> dict[str, float]: ...  # figures on what is never trained on
    def checkpoint(self) -> Checkpoint: ...
    def restore(self, checkpoint: Checkpoint) -> None: ...
    def refresh(self) -> None: ...  # takes in training data that have come since


def run(
    trainer: Trainer,
    out: Path,
    checkpoint_every: int = 200,
    report_every: int = 20,
    until: float | None = None,  # seconds since the epoch: stop then, with a checkpoint
) -> None:
    """Runs or goes on with a run whose checkpoints and ``log.jsonl`` are in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    learner, settings = trainer.learner, trainer.settings
    saved = load_checkpoint(out / "checkpoint", warn=print)
    if saved:
        trainer.restore(saved)
    count = sum(weight.numel() for weight in learner.weights.values())
    print(f"{count:,} parameters, at step {learner.step}", flush=True)
    losses: list[float] = []
    start, first = time.monotonic(), learner.step
    while learner.step < settings.steps and (until is None or time.time() < until):
        losses.append(trainer.train_step())
        last = learner.step == settings.steps
        if learner.step % report_every == 0 or last:
            seconds = (time.monotonic() - start) / (learner.step - first)
            left = (settings.steps - learner.step) * seconds
            entry = {"step": learner.step, "loss": round(float(np.mean(losses)), 5), "seconds": round(seconds, 3),
                     "minutes_left": round(left / 60, 1), "time": round(time.time())}  # fmt: skip
            losses.clear()
            _log(out, entry)
        if learner.step % checkpoint_every == 0 or last:
            held_out = {f"held_out_{name}": round(value, 5) for name, value in trainer.held_out().items()}
            if held_out:
                _log(out, {"step": learner.step, **held_out})
            save_checkpoint(out / "checkpoint", trainer.checkpoint())
            trainer.refresh()
    save_checkpoint(out / "checkpoint", trainer.checkpoint())


def _log(out: Path, entry: dict) -> None:
    with open(out / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    print(entry, flush=True)


def add_run_arguments(parser: argparse.ArgumentParser, defaults: RunSettings) -> None:
    """Arguments that every training command has; ``run_settings`` and ``deadline`` read them."""
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="stop after this long, with a checkpoint")


def run_settings(arguments: argparse.Namespace) -> dict:
    """Keyword arguments for a class of ``RunSettings``."""
    return {"steps": arguments.steps, "learning_rate": arguments.learning_rate, "seed": arguments.seed}


def deadline(arguments: argparse.Namespace) -> float | None:
    return None if arguments.minutes is None else time.time() + 60 * arguments.minutes
