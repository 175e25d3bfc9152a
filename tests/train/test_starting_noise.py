"""Of several pictures the one that shows the prompt, with a prior whose knowledge can be written down."""

from __future__ import annotations

import pytest
import torch
from headstudio.train.starting_noise import surest_picture

CONDITION, CONTROL = torch.zeros(8, 8, 3), torch.tensor(1.0)


class Known:
    """Under a text it believes in that text's picture, without one in the mean of all."""

    timesteps = 1000

    def __init__(self, pictures: torch.Tensor):  # [K, C, h, w]; a text is a number, and -1 none
        self.pictures, self.batches = pictures, []

    def _alpha(self, t):
        return (1 - t.float() / self.timesteps)[:, None, None, None]

    def add_noise(self, latents, noise, t):
        return self._alpha(t).sqrt() * latents + (1 - self._alpha(t)).sqrt() * noise

    def predict_noise(self, noisy, t, text, condition, control_scale):
        assert len(noisy) == len(t) == len(text) == len(condition) == len(control_scale)
        self.batches.append(len(noisy))
        believed = [self.pictures[int(row)] if row >= 0 else self.pictures.mean(0) for row in text[:, 0, 0]]
        return (noisy - self._alpha(t).sqrt() * torch.stack(believed)) / (1 - self._alpha(t)).sqrt()


def surest(prior, latents, text: int, at_once: int = 8, seed: int = 0) -> int:
    return surest_picture(
        prior,
        latents,
        torch.full((1, 1), float(text)),
        torch.full((1, 1), -1.0),
        CONDITION,
        CONTROL,
        torch.Generator().manual_seed(seed),
        at_once,
    )


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_the_picture_of_the_text_is_found(at_once):
    pictures = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    for text in range(5):
        prior = Known(pictures)
        # None is quite what the text says; each is still nearest to its own
        blurred = 0.6 * pictures + 0.4 * pictures.roll(1, 0)
        assert surest(prior, blurred, text, at_once, seed=text) == text
        assert max(prior.batches) <= 2 * at_once


def test_a_picture_that_is_easy_without_the_text_is_not_taken_for_it():
    """The mean of all pictures has the least error with and without a text, and says nothing of it."""
    pictures = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    offered = torch.stack([pictures.mean(0), 0.9 * pictures[1] + 0.1 * pictures[0]])
    assert surest(Known(pictures), offered, 1) == 1
