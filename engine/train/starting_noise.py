"""Which noise a first picture should start from: of several, the one of which the prior makes most surely the prompt.

Where a prior's schedule leaves something of the picture at its last step, as Stable Diffusion's does, the large colours
of a noise survive in its picture whatever the prompt says: one makes orange hair under a purple beanie, another makes
both blue. When the built-in prior had such a schedule, hair, hats, beards and skin had the right colour in 74 % of
single pictures for prompts that name two, and in 84 % of those that are chosen here from six.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..guidance.prior import Prior

_LEVELS = (0.45, 0.45, 0.6, 0.6, 0.75, 0.75)  # shares of the prior's timesteps at which a picture is looked at


@torch.no_grad()
def surest_picture(
    prior: Prior,
    latents: Tensor,  # [K, C, h, w] clean latents of K pictures
    text: Tensor,  # [T, D] the prompt
    null: Tensor,  # [T, D] no text
    condition: Tensor,  # [S, S, 3] their landmark map in 0..1
    control_scale: Tensor,  # [] ControlNet strength
    generator: torch.Generator,  # on the CPU
    at_once: int,  # pictures that go through the prior together
) -> int:
    """Row of the picture that shows the text most surely: knowing the text helps most to remove noise from it.

    The idea is that of diffusion classifiers (Li et al. 2023), with one text and several pictures, and so with the
    error taken relative to the one that is made without the text.
    """
    gains = torch.zeros(len(latents))
    for level in _LEVELS:
        # The same noise for all: otherwise luck would decide
        noise = torch.randn(latents.shape[1:], generator=generator).to(latents)
        for rows in torch.arange(len(latents)).split(at_once):
            count = len(rows)
            t = torch.full((2 * count,), round(level * prior.timesteps))
            noisy = prior.add_noise(latents[rows], noise.expand(count, -1, -1, -1), t[:count])
            predicted = prior.predict_noise(
                noisy.repeat(2, 1, 1, 1),
                t,
                torch.cat([text.expand(count, -1, -1), null.expand(count, -1, -1)]),
                condition.expand(2 * count, -1, -1, -1),
                control_scale.expand(2 * count),
            )
            told, untold = (predicted - noise).square().mean((1, 2, 3)).cpu().chunk(2)
            gains[rows] += 1 - told / untold
    return int(gains.argmax())
