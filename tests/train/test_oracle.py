"""The loop with a perfect prior: one that knows the true picture must give the true avatar.

The oracle's predicted noise is the one that would turn the noisy picture into the true one, so that SDS at scale 1 is
the gradient of a squared difference: everything but the diffusion model is put to the test at once.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from headstudio.avatar.initialise import super_dense
from headstudio.avatar.rigged import RiggedAvatar, RiggedGaussians
from headstudio.avatar.sh_rotation import SH_C0
from headstudio.camera import orbit
from headstudio.guidance.prior import resize_pictures
from headstudio.heads.head import Head
from headstudio.rasterise import rasterise
from headstudio.train import loop, repaint
from headstudio.train.loop import train
from support.training import SIX_STEPS


class Oracle:
    """A prior whose landmark map is the true picture itself (see ``true_pictures``)."""

    name, revision, timesteps, latent_channels, latent_size, condition_size = "oracle", "1", 1000, 3, 32, 32
    image_size, vae, all_round = 32, None, False
    device = torch.device("cpu")
    alphas_cumprod = torch.linspace(0.999, 0.01, 1000)

    def encode_text(self, prompts):
        return torch.zeros(len(prompts), 2, 4)

    def encode_images(self, images):
        return resize_pictures(images, 32).permute(0, 3, 1, 2) * 2 - 1

    def decode(self, latents):
        return (latents.permute(0, 2, 3, 1) * 0.5 + 0.5).clamp(0, 1)

    def add_noise(self, latents, noise, t):
        alpha = self.alphas_cumprod[t][:, None, None, None]
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def predict_noise(self, noisy, t, text, condition, control_scale):
        alpha = self.alphas_cumprod[t][:, None, None, None]
        return (noisy - alpha.sqrt() * (condition.permute(0, 3, 1, 2) * 2 - 1)) / (1 - alpha).sqrt()


def painted(head: Head) -> RiggedGaussians:
    """The truth: a red cap, a white front, a blue back, green ears."""
    truth = super_dense(head.template, head.triangles, count=1500, opacity=0.95)
    place = head.template[head.triangles].mean(1)[truth.triangle]
    colour = torch.where(place[:, 2:] > 0.01, torch.tensor([0.9, 0.85, 0.8]), torch.tensor([0.1, 0.2, 0.7]))
    colour = torch.where(place[:, :1].abs() > 0.06, torch.tensor([0.1, 0.7, 0.2]), colour)
    colour = torch.where(place[:, 1:2] > 0.08, torch.tensor([0.8, 0.1, 0.1]), colour)
    truth.sh[:, 0] = (colour - 0.5) / SH_C0
    return truth


STRATEGIES = {
    # At scale 1, SDS is the gradient of a squared difference
    "sds": {"strategy": "sds", "guidance_scale": 1.0, "timesteps": (300, 300), "late_timesteps": (300, 300)},
    "repaint": {"strategy": "repaint", "repaint_rounds": 3, "repaint_scenes": 8, "repaint_steps": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_perfect_prior_gives_the_true_avatar_from_all_sides_and_in_motion(head, monkeypatch, strategy):
    rig = Head(head)
    truth = painted(rig)

    def true_pictures(arrays, vertices, cameras, size, all_round):
        picture = rasterise(truth.pose(vertices[0], rig.triangles), cameras)  # on black, as in the settings below
        return resize_pictures(picture.colour, size), torch.ones(len(cameras))

    for module in (loop, repaint):
        monkeypatch.setattr(module, "condition_image", true_pictures)
    settings = replace(
        SIX_STEPS, steps=150, views=4, render_size=64, splats=1500, background="black", lr_shape=0.0, lr_colour=0.03,
        lr_opacity=0.05, lr_scale=0.01, lr_offset=1e-3, position_weight=0.0, scale_weight=0.0,
        densify_threshold=1.0, prune_at=(), final_lr=0.1, **STRATEGIES[strategy],
    )  # fmt: skip
    trained = train(settings, head, Oracle(), "painted")

    expression = torch.tensor([0.5, 0.0, 1.0, 0.0])
    joints = torch.zeros(5, 3)
    joints[1] = torch.tensor([0.1, 0.4, 0.0])
    camera = orbit(
        torch.tensor([0.0, 70.0, 180.0, -100.0]), 10.0, 2.1 * head.unit, 45.0, 64, torch.as_tensor(head.centre)
    )

    def picture(gaussians):
        return rasterise(RiggedAvatar(rig, gaussians).pose(expression, joints), camera).colour.clamp(0, 1)

    def psnr(gaussians):
        error = (picture(gaussians) - picture(truth)).square().mean((1, 2, 3))
        return -10 * error.log10().numpy()

    start = psnr(super_dense(rig.template, rig.triangles, count=1500, opacity=0.1))
    end = psnr(RiggedGaussians.from_arrays(trained.splats))
    assert np.all(end > 28), end
    assert np.all(end > start + 12), (start, end)
