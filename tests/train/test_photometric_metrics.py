"""PSNR by hand; SSIM against a pixel-by-pixel evaluation and its gradient against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from headstudio.train.photometric_metrics import psnr, ssim
from scipy.ndimage import gaussian_filter


def random_pictures(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(*shape, 3, generator=generator, dtype=torch.float64)
    noise = 0.2 * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    return (truth + noise).clamp(0, 1), truth


def test_psnr_by_hand():
    truth = torch.zeros(2, 4, 4, 3)
    assert psnr(truth + 0.1, truth).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)
    assert psnr(truth, truth).tolist() == [math.inf] * 2
    assert psnr(truth + 7, truth + 1).tolist() == [math.inf] * 2  # a display cannot show more than 1
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, 0, 0] = True
    picture = truth.clone()
    picture[:, 0, 0] = 0.01
    assert psnr(picture, truth, mask).tolist() == pytest.approx([40.0, 40.0], abs=1e-3)


def test_ssim_against_scipy():
    picture, truth = random_pictures(2, 23, 31)

    def blur(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, mode="constant", truncate=5 / 1.5)

    for index, value in enumerate(ssim(picture, truth).tolist()):
        channels = []
        for channel in range(3):
            x, y = (image[index, ..., channel].numpy() for image in (picture, truth))
            mx, my = blur(x), blur(y)
            vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
            channels.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
        assert value == pytest.approx(np.mean(channels), abs=1e-9)


def test_ssim_of_equal_pictures_is_one_even_where_they_are_flat():
    _, truth = random_pictures(1, 12, 12)
    for image in (truth, torch.zeros_like(truth), torch.ones_like(truth), truth[:, :1, :1]):
        torch.testing.assert_close(ssim(image, image), torch.ones(1, dtype=torch.float64))


def test_ssim_gradient():
    picture, truth = random_pictures(1, 7, 6)
    assert torch.autograd.gradcheck(lambda x: ssim(x, truth), picture.requires_grad_())
