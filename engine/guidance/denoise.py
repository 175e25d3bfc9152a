"""From noise to a clean picture: the prior asked again and again, with DDIM's deterministic steps in between."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from .prior import Prior


@torch.no_grad()
def denoise(
    prior: Prior,
    noisy: Tensor,  # [B, C, h, w] latents with the noise of timestep ``start``
    start: int,
    steps: int,
    text: Tensor,  # [B, T, D] what the pictures show
    opposite: Tensor,  # [T, D] what they are led away from: no text, or a negative prompt
    condition: Tensor,  # [B, S, S, 3] landmark maps in 0..1
    control_scale: Tensor,  # [B] ControlNet strength
    guidance: float,  # s of classifier-free guidance; 1 leaves ``opposite`` without a say
) -> Tensor:  # [B, C, h, w]
    """Clean latents after ``steps`` evenly spaced timesteps from ``start`` to 0; no noise is added on the way."""
    count = len(noisy)
    both = torch.cat([text, opposite.expand(count, -1, -1)])
    condition, control_scale = condition.repeat(2, 1, 1, 1), control_scale.repeat(2)
    times = torch.linspace(start, 0, steps + 1).round().long().tolist()
    latents = noisy
    for now, after in itertools.pairwise(times):
        t = torch.full((2 * count,), now)
        with_text, without = prior.predict_noise(latents.repeat(2, 1, 1, 1), t, both, condition, control_scale).chunk(2)
        noise = without + guidance * (with_text - without)
        alpha = prior.alphas_cumprod[now]
        following = prior.alphas_cumprod[after] if after else alpha.new_tensor(1.0)
        clean = (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        if prior.vae is None:  # pixels have limits, which guidance oversteps
            clean = clean.clamp(-1, 1)
            noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        latents = following.sqrt() * clean + (1 - following).sqrt() * noise
    return latents
