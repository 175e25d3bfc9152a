"""Sampling from a prior: DDIM arithmetic, prompts to tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headstudio.guidance.prior import Prior
from headstudio.starter.samples import EVALUATION_PROMPTS, neutral_views, sample, sample_sheet
from headstudio.starter.tokenizer import known_words
from headstudio.starter.vocabulary import words_of
from support.tiny_prior import write_tiny_prior


@pytest.fixture
def prior(tmp_path):
    return Prior.load(write_tiny_prior(tmp_path / "prior"), device="cpu")


def test_ddim_walks_to_the_picture_that_the_prior_is_sure_of(prior, monkeypatch):
    """A prior that knows the one true picture leads every start to it."""
    truth = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def predict_noise(latents, t, text, condition, control_scale):
        alpha = prior.alphas_cumprod[t][:, None, None, None]
        return (latents - alpha.sqrt() * truth) / (1 - alpha).sqrt()

    monkeypatch.setattr(prior, "predict_noise", predict_noise)
    size = prior.condition_size
    pictures = sample(prior, ["a", "b"], torch.zeros(2, size, size, 3), torch.ones(2), steps=7, guidance=3.0)
    torch.testing.assert_close(
        pictures, (truth.permute(0, 2, 3, 1) * 0.5 + 0.5).expand(2, -1, -1, -1), atol=1e-3, rtol=0
    )


def test_guidance_of_one_ignores_the_negative_prompt(prior):
    size = prior.condition_size
    arguments = (prior, ["abc"], torch.zeros(1, size, size, 3), torch.ones(1))
    first = sample(*arguments, steps=3, guidance=1.0, negative="")
    second = sample(*arguments, steps=3, guidance=1.0, negative="xyz")
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    assert (first - sample(*arguments, steps=3, guidance=4.0, negative="xyz")).abs().max() > 1e-3


def test_sheets_have_a_tile_for_every_prompt_and_view(prior):
    sheet = sample_sheet(prior, ("a", "b", "c", "d", "e"), [0.0, 180.0], seed=0, steps=2)
    assert sheet.shape == (2 * 16, 4 * 2 * 16, 3)
    assert (sheet[16:, 2 * 16 :] == 255).all()  # nothing behind the fifth
    again = sample_sheet(prior, ("a", "b", "c", "d", "e"), [0.0, 180.0], seed=0, steps=2)
    np.testing.assert_array_equal(sheet, again)


def test_neutral_views_show_the_face_and_hide_it():
    maps, strengths = neutral_views([0.0, -90.0, 180.0], 64, all_round=False)
    assert strengths[0] == 1
    assert strengths[2] == 0
    assert (maps[0] > 0).float().mean() > 3 * (maps[2] > 0).float().mean()
    maps, strengths = neutral_views([0.0, -90.0, 180.0], 64, all_round=True)
    assert (strengths == 1).all()
    assert (maps[2] > 0).float().mean() > 0.5 * (maps[0] > 0).float().mean()


def test_evaluation_prompts_use_known_words():
    known = set(known_words())
    assert len(set(EVALUATION_PROMPTS)) == 20
    unknown = {word for prompt in EVALUATION_PROMPTS for word in words_of(prompt)} - known
    assert unknown <= {"big"}
