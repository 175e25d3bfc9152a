"""DDIM: where it leads, where it starts, and what guidance does on the way."""

import pytest
import torch
from diffusers import DDPMScheduler
from headstudio.guidance.denoise import denoise
from headstudio.guidance.prior import Prior
from support.tiny_prior import write_tiny_prior


@pytest.fixture
def prior(tmp_path):
    return Prior.load(write_tiny_prior(tmp_path / "prior", vae=True), device="cpu")


def arguments(prior, count: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, prior.latent_channels, prior.latent_size, prior.latent_size)
    condition = torch.rand(count, prior.condition_size, prior.condition_size, 3, generator=generator)
    return torch.randn(shape, generator=generator), condition, torch.ones(count)


def test_a_prior_that_is_sure_leads_every_start_to_its_picture(prior, monkeypatch):
    truth = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def predict_noise(latents, t, text, condition, control_scale):
        alpha = prior.alphas_cumprod[t][:, None, None, None]
        return (latents - alpha.sqrt() * truth) / (1 - alpha).sqrt()

    monkeypatch.setattr(prior, "predict_noise", predict_noise)
    noisy, condition, scale = arguments(prior, 2)
    text = prior.encode_text(["a", "b"])
    for start, steps in ((999, 7), (400, 1), (50, 3)):
        clean = denoise(prior, noisy, start, steps, text, text[0], condition, scale, 3.0)
        torch.testing.assert_close(clean, truth.expand(2, -1, -1, -1), atol=1e-3, rtol=0)


def test_a_schedule_may_end_in_pure_noise(tmp_path):
    """There the velocity is the picture itself, negated, and the noise that is taken out says nothing of it."""
    folder = write_tiny_prior(tmp_path, vae=True, prediction_type="v_prediction", pure_noise=True)
    prior = Prior.load(folder, device="cpu")
    truth = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    alphas = DDPMScheduler.from_pretrained(folder / "scheduler").alphas_cumprod.double()
    assert alphas[-1] == 0

    def velocity(latents, t, *_, **__):
        alpha = alphas[t][:, None, None, None]
        noise = (latents - alpha.sqrt() * truth) / (1 - alpha).sqrt()
        return ((alpha.sqrt() * noise - (1 - alpha).sqrt() * truth).float(),)

    prior.unet.forward = velocity
    noisy, condition, scale = arguments(prior, 2)
    text = prior.encode_text(["a", "b"])
    for start, steps in ((999, 1), (999, 8), (980, 8)):
        clean = denoise(prior, noisy, start, steps, text, text[0], condition, scale, 3.0)
        torch.testing.assert_close(clean, truth.expand(2, -1, -1, -1), atol=5e-3, rtol=0)


def test_one_step_is_the_predicted_clean_picture(prior):
    noisy, condition, scale = arguments(prior, 2)
    text, opposite = prior.encode_text(["a", "b"]), prior.encode_text(["c"])[0]
    alpha = prior.alphas_cumprod[600]
    t = torch.tensor([600, 600])
    with_text = prior.predict_noise(noisy, t, text, condition, scale)
    without = prior.predict_noise(noisy, t, opposite.expand(2, -1, -1), condition, scale)
    noise = without + 2.5 * (with_text - without)
    found = denoise(prior, noisy, 600, 1, text, opposite, condition, scale, 2.5)
    torch.testing.assert_close(found, (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt(), atol=1e-4, rtol=1e-4)


def test_more_steps_ask_at_timesteps_between(prior, monkeypatch):
    asked = []
    predict = prior.predict_noise

    def noted(latents, t, *rest):
        asked.append(sorted(set(t.tolist())))
        return predict(latents, t, *rest)

    monkeypatch.setattr(prior, "predict_noise", noted)
    noisy, condition, scale = arguments(prior, 1)
    text = prior.encode_text(["a"])
    denoise(prior, noisy, 800, 4, text, text[0], condition, scale, 1.0)
    assert asked == [[800], [600], [400], [200]]
