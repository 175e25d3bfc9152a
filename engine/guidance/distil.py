"""Distillation: a gradient on rendered pictures (as latents) that makes them what the prior expects of the prompt.

A strategy turns one batch of latents into a gradient; ``distillation_loss`` hands it to autograd. Strategies hold no
state: whatever differs from step to step is an argument.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..errors import UserError
from .prior import Prior
from .prompts import Texts
from .schedule import distillation_weight

CLEAN_BELOW = 200
"""Timesteps (of 1000) below which the prior's score counts as free of noise (Eq. 7)."""


class GuidanceSettings(Protocol):
    """The fields of the training settings that the strategies read."""

    guidance_scale: float  # s: how strongly the prompt pulls
    negative_scale: float  # s_neg: how strongly the negative prompt pushes away


class Strategy(Protocol):
    """One way to distil. Tensors are on the prior's device (``t`` may stay on the CPU); autograd sees none of it."""

    def gradient(
        self,
        prior: Prior,
        latents: Tensor,  # [B, C, h, w]
        t: Tensor,  # [B] int64 timesteps
        noise: Tensor,  # [B, C, h, w] standard normal
        texts: Texts,
        condition: Tensor,  # [B, S, S, 3] landmark maps in 0..1
        control_scale: Tensor | float,  # [B] or one for all: ControlNet strength
        settings: GuidanceSettings,
    ) -> Tensor:  # [B, C, h, w]
        ...


def _predict(
    prior: Prior,
    noisy: Tensor,  # [B, C, h, w]
    t: Tensor,  # [B]
    requests: list[tuple[list[int], Tensor]],  # per text: R rows of the batch, embedding [B, T, D] or [T, D]
    condition: Tensor,  # [B, S, S, 3]
    control_scale: Tensor | float,  # [B] or one for all
) -> list[Tensor]:
    """Predicted noise [R, C, h, w] per request, all requests in one call of the prior."""
    rows = [row for picked, _ in requests for row in picked]
    text = torch.cat([e[picked] if e.ndim == 3 else e.expand(len(picked), -1, -1) for picked, e in requests])
    if isinstance(control_scale, Tensor):
        control_scale = control_scale.cpu()[rows]  # the prior decides by it what to evaluate
    index = torch.tensor(rows, device=noisy.device)
    predicted = prior.predict_noise(noisy[index], t[rows], text, condition[index], control_scale)
    return list(predicted.split([len(picked) for picked, _ in requests]))


def _weight(prior: Prior, t: Tensor) -> Tensor:
    """w(t) as [B, 1, 1, 1] on the prior's device."""
    return distillation_weight(prior.alphas_cumprod, t.to(prior.device))[:, None, None, None]


class ScoreDistillation:
    """Score distillation sampling (Eq. 6): ``w(t) (eps_null + s (eps_y - eps_null) - noise)``."""

    @torch.no_grad()
    def gradient(self, prior, latents, t, noise, texts, condition, control_scale, settings) -> Tensor:
        rows = list(range(len(latents)))
        noisy = prior.add_noise(latents, noise, t)
        requests = [(rows, texts.positive), (rows, texts.null)]
        eps_y, eps_null = _predict(prior, noisy, t, requests, condition, control_scale)
        return _weight(prior, t) * (eps_null + settings.guidance_scale * (eps_y - eps_null) - noise)


class NoiseFreeScoreDistillation:
    """Noise-free score distillation (Eq. 7), the paper's choice.

    ``w(t) (s (eps_y - eps_null) + r)`` where the residual ``r`` is ``eps_null`` for t < 200, where the prior's score is
    taken as clean, and ``s_neg (eps_null - eps_neg)`` from there on, where the negative prompt stands for the noise.
    Eq. 7 writes it as a difference of two guided scores with scales s and s_neg, which is the same.
    """

    @torch.no_grad()
    def gradient(self, prior, latents, t, noise, texts, condition, control_scale, settings) -> Tensor:
        rows = list(range(len(latents)))
        noisy = prior.add_noise(latents, noise, t)
        t = t.cpu()  # the one time that the host waits for it
        # Where the score is clean the negative prompt plays no part: those rows are not evaluated for it.
        unclean = [row for row, step in enumerate(t.tolist()) if step * 1000 >= CLEAN_BELOW * prior.timesteps]
        requests = [(rows, texts.positive), (rows, texts.null), (unclean, texts.negative)]
        eps_y, eps_null, eps_neg = _predict(prior, noisy, t, requests, condition, control_scale)
        residual = eps_null.clone()
        index = torch.tensor(unclean, dtype=torch.int64, device=residual.device)
        residual[index] = settings.negative_scale * (eps_null[index] - eps_neg)
        return _weight(prior, t) * (settings.guidance_scale * (eps_y - eps_null) + residual)


STRATEGIES: dict[str, Strategy] = {"nfsd": NoiseFreeScoreDistillation(), "sds": ScoreDistillation()}


def get_strategy(name: str) -> Strategy:
    """The strategy of that name. An unknown name raises ``UserError`` that lists the known ones."""
    if name not in STRATEGIES:
        raise UserError(f"There is no distillation strategy called {name!r}; choose one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]


def distillation_loss(
    strategy: Strategy,
    prior: Prior,
    latents: Tensor,  # [B, C, h, w] with gradient, from prior.encode_images
    t: Tensor,  # [B] int64
    noise: Tensor,  # [B, C, h, w]
    texts: Texts,
    condition: Tensor,  # [B, S, S, 3]
    control_scale: Tensor | float,  # [B] or one for all
    settings: GuidanceSettings,
) -> Tensor:
    """A scalar whose gradient to ``latents`` is the strategy's gradient divided by B: the mean over the batch.

    Its value is half the mean squared norm of that gradient: a figure to watch, not a loss that falls to zero.
    """
    gradient = strategy.gradient(prior, latents.detach(), t, noise, texts, condition, control_scale, settings)
    # The difference is zero in value and one in slope, so the gradient arrives without a rounding error.
    slope = ((latents - latents.detach()) * gradient).sum()
    return (slope + 0.5 * gradient.square().sum()) / len(latents)
