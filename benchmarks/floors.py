"""The least time that a part of a training step can take: its arithmetic and its traffic over the device's ceilings.

A floor is a lower bound, not a forecast: of the traffic it counts what must be read and written once (weights,
parameters, pictures), and no intermediate result.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from headstudio.guidance.prior import Prior
from headstudio.heads.head import Head
from headstudio.train.settings import TrainSettings

from benchmarks.sd15 import Sizes, flops_per_picture

FLOAT = 4  # bytes


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Ceilings:
    """What the device reaches in practice, measured."""

    flops: float  # a second, of a large matrix product in the networks' type
    bytes: float  # a second, read and written, of a large copy

    @staticmethod
    def measure(device: torch.device, dtype: torch.dtype) -> Ceilings:
        on_gpu = device.type == "cuda"
        side, words = (8192, 2**28) if on_gpu else (512, 2**22)
        # Random numbers: a product of zeros takes less power, and so less time
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        source = torch.rand(words, device=device)
        target = torch.empty_like(source)
        product = _seconds(lambda: torch.mm(left, right), 10 if on_gpu else 3)
        copy = _seconds(lambda: target.copy_(source), 10 if on_gpu else 3)
        return Ceilings(2 * side**3 / product, 2 * FLOAT * words / copy)

    def floor_ms(self, flops: float, bytes_: float) -> float:
        return 1000 * max(flops / self.flops, bytes_ / self.bytes)


def _seconds(function, repetitions: int) -> float:
    """Mean over calls in a row, after a warm-up."""
    function()
    synchronise()
    began = time.perf_counter()
    for _ in range(repetitions):
        function()
    synchronise()
    return (time.perf_counter() - began) / repetitions


def work(
    sizes: Sizes,
    prior: Prior,
    head: Head,
    settings: TrainSettings,
    splats: int,
    rows: dict[str, float],  # pictures with a text that UNet and ControlNet evaluate in a step, on average
) -> dict[str, tuple[float, float]]:
    """Operations and bytes of each part of one step, by the names of ``benchmarks.training``."""
    flops = flops_per_picture(sizes)
    views, pixels = settings.views, settings.views * settings.render_size**2
    splat = 3 + 4 + 3 + 1 + 3  # numbers: centre, quaternion, scales, opacity, colour
    picture = 3 + 1 + 1  # numbers: colour, alpha, depth
    drawn = FLOAT * (views * splats * splat + pixels * picture)
    matrices = (head._identity, head._expression, head._correctives, head.joint_regressor, head.skin_weights)
    head_bytes = FLOAT * sum(matrix.numel() for matrix in matrices)
    encoder = _bytes(prior.vae.encoder)
    return {
        "head": (0, head_bytes),
        "frames and Eq. 5": (0, FLOAT * 2 * splats * splat),
        "render": (0, drawn),
        "render, backward": (0, 2 * drawn),
        "autoencoder": (views * flops["autoencoder"], encoder + FLOAT * 3 * pixels),
        "autoencoder, backward": (views * flops["autoencoder, backward"], encoder + FLOAT * 3 * pixels),
        "controlnet": (rows["controlnet"] * flops["controlnet"], _bytes(prior.controlnet)),
        "unet": (rows["unet"] * flops["unet"], _bytes(prior.unet)),
        "regularisation": (0, FLOAT * 6 * splats),
        "Eq. 5 and head, backward": (0, head_bytes + FLOAT * 3 * splats * splat),
        "density": (0, views * splats * (2 * FLOAT + 1)),
        "finite?": (0, FLOAT * splats * splat),
        "Adam": (0, 7 * FLOAT * splats * splat),  # reads value, gradient and two moments; writes three
    }


def _bytes(module: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
