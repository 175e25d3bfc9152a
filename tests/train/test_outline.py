"""Outlines of painted pictures, and the backgrounds behind them."""

import pytest
import torch
from headstudio.train.outline import exchange_background, silhouette

SIZE = 128


def on_noise(seed: int, strength: float = 0.03) -> torch.Tensor:  # [S, S, 3]
    """A grey background that is not quite even."""
    return 0.5 + strength * torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(seed))


def test_an_outline_is_filled_and_may_leave_the_picture_below():
    picture = on_noise(1)
    picture[20:, 30:60] = torch.tensor([0.9, 0.2, 0.2])
    picture[40:50, 40:50] = 0.5  # of the background's colour, within
    wanted = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    wanted[20:, 30:60] = True
    outline = silhouette(picture)
    assert torch.equal(outline.filled, wanted)
    wanted[40:50, 40:50] = False
    assert torch.equal(outline.shown, wanted)


def test_noise_has_no_outline():
    noise = on_noise(0, 0.5)
    assert silhouette(noise) is None
    assert torch.equal(exchange_background(noise, torch.zeros(3)), noise)


@pytest.mark.parametrize(
    "colour", [(0.9, 0.2, 0.2), (0.1, 0.1, 0.1), (0.95, 0.95, 0.95)], ids=["red", "black", "white"]
)
def test_the_background_is_exchanged_and_nothing_else(colour):
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    away = ((rows - 70) ** 2 + (columns - 64) ** 2).sqrt()
    disc = torch.sigmoid((30 - away) / 0.7)[..., None]  # its edge blends with the background, as a render's does
    wanted, blue = torch.tensor(colour), torch.tensor([0.1, 0.2, 0.9])
    exchanged = exchange_background(disc * wanted + (1 - disc) * on_noise(2), blue)
    assert (exchanged[away < 26] - wanted).abs().max() < 0.02
    assert (exchanged[away > 36] - blue).abs().max() < 1e-6
    # As if it had been drawn before the other background, but for the pixels around its edge
    truth = disc * wanted + (1 - disc) * blue
    assert (exchanged - truth).abs().amax(-1).gt(0.1).float().mean() < 0.015


def test_what_is_before_a_plain_background_of_that_colour_stays_as_it_is():
    picture = torch.full((SIZE, SIZE, 3), 0.5)
    picture[40:90, 30:80] = torch.tensor([0.8, 0.6, 0.5])
    assert torch.allclose(exchange_background(picture, torch.full((3,), 0.5)), picture, atol=1e-6)
