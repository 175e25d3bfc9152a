"""The dataset-update strategy: the prior paints over pictures of the avatar, and the avatar is fitted to them.

In rounds, as in Instruct-NeRF2NeRF (Haque et al. 2023) and dataset updates since: render, add noise, denoise under the
prompt and the landmark map, fit photometrically, and again with less noise. Each round starts from what the one before
agreed on, so that pictures which were painted apart grow alike.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ..condition.picture import condition_image
from ..gaussians import Gaussians
from ..guidance.denoise import denoise
from ..guidance.prior import Prior
from ..rasterise import rasterise
from .carve import carve
from .outline import exchange_background
from .scenes import Scene, SceneSampler
from .settings import TrainSettings
from .state import State, random_numbers

_ROUNDS = 2**33  # the streams of random numbers that rounds draw from: no step has such a number


class Rounds:
    """The scenes of the present round. Its pictures are part of the state, and of its checkpoints."""

    def __init__(self, prior: Prior, draw_scene: SceneSampler, seed: int):
        self.prior, self.draw_scene, self.seed = prior, draw_scene, seed
        self.number = -1
        self.painting = 0.0  # seconds that the latest step spent on painting
        self._seconds_per_level = 0.0

    def scene_and_pictures(self, state: State) -> tuple[Scene, Tensor]:
        """One scene of the round that the state's step belongs to, and its pictures [V, S, S, 3] in 0..1.

        Paints them all where the round begins.
        """
        settings = state.request.settings
        number = round_of(state.step, settings)
        numbers, generator = random_numbers(self.seed, _ROUNDS + number)
        if number != self.number:
            self.scenes = [self.draw_scene(numbers) for _ in range(settings.repaint_scenes)]
            self.number = number
        self.painting = 0.0
        if state.painted is None or state.step == round_begin(number, settings):
            began = time.perf_counter()
            painted = paint(state, self.prior, self.scenes, number, generator)
            if 0 < number <= settings.repaint_carvings:
                pictures, identity = painted.float() / 255, state.identity.detach()
                state.add(carve(state.head, identity, self.scenes, pictures, state.gaussians))
            state.painted = painted
            self.painting = time.perf_counter() - began
            self._seconds_per_level = self.painting / noise_level(number, settings)
        row = (state.step - round_begin(number, settings)) % len(self.scenes)
        return self.scenes[row], state.painted[row].float() / 255

    def painting_left(self, settings: TrainSettings) -> float:
        """Seconds that the rounds to come will spend on painting: they take denoising steps as their noise asks for."""
        coming = range(self.number + 1, settings.repaint_rounds)
        return self._seconds_per_level * sum(noise_level(number, settings) for number in coming)


def round_of(step: int, settings: TrainSettings) -> int:
    """Number of the round that a step belongs to; all rounds have the same share of the run."""
    return step * settings.repaint_rounds // settings.steps


def round_begin(number: int, settings: TrainSettings) -> int:
    """The first step of a round."""
    return -(-number * settings.steps // settings.repaint_rounds)


def noise_level(number: int, settings: TrainSettings, timesteps: int = 1000) -> int:
    """Timestep that a round's pictures are noised to: from the first to the last of ``repaint_noise``, evenly."""
    first, last = settings.repaint_noise
    return round((first + (last - first) * _share(number, settings)) * timesteps / 1000)


def guidance_scale(number: int, settings: TrainSettings) -> float:
    """The guidance scale of a round: from ``guidance_scale`` to the share of it that ``repaint_calm`` says, evenly."""
    return settings.guidance_scale * (1 + (settings.repaint_calm - 1) * _share(number, settings))


def _share(number: int, settings: TrainSettings) -> float:
    """How far a round is between the first, 0, and the last, 1."""
    return number / max(settings.repaint_rounds - 1, 1)


@torch.no_grad()
def paint(
    state: State,
    prior: Prior,
    scenes: list[Scene],
    number: int,  # of the round
    generator: torch.Generator,
) -> Tensor:  # [G, V, S, S, 3] uint8, S = prior.image_size
    """The round's pictures, one row per scene.

    In the first round all pictures start from the same noise: what the prior makes of it, it then makes of them alike.
    ``state.views_at_once`` limits the pictures that are painted together; they stay the same.
    """
    settings, head = state.request.settings, state.head
    shape = (settings.views, prior.latent_channels, prior.latent_size, prior.latent_size)
    shared = torch.randn(shape[1:], generator=generator)
    painted = []
    for scene in scenes:
        vertices = head(scene.expression[None], scene.joints[None], state.identity[None])[0]  # [N, 3]
        posed = state.gaussians.pose(vertices, head.triangles)
        noise = torch.randn(shape, generator=generator) if number else shared.expand(shape)
        parts = scene.parts(state.views_at_once)
        painted.append(
            torch.cat([_paint_over(posed, vertices, part, noise[rows], number, state, prior) for rows, part in parts])
        )
    return torch.stack(painted)


def _paint_over(
    posed: Gaussians,
    vertices: Tensor,  # [N, 3]
    scene: Scene,  # of R views
    noise: Tensor,  # [R, C, h, w]
    number: int,  # of the round
    state: State,
    prior: Prior,
) -> Tensor:  # [R, S, S, 3] uint8
    settings, count = state.request.settings, len(scene)
    level = noise_level(number, settings, prior.timesteps)
    pictures = rasterise(posed, scene.camera, background=scene.background).colour
    condition, facing = condition_image(
        state.head.arrays, vertices.expand(count, -1, -1), scene.camera, prior.condition_size, prior.all_round
    )
    latents = prior.encode_images(pictures.to(prior.device))
    clean = denoise(
        prior,
        prior.add_noise(latents, noise.to(prior.device), torch.full((count,), level)),
        level,
        max(1, round(settings.repaint_steps * level / prior.timesteps)),
        scene.texts.positive,
        scene.texts.negative,
        condition.to(prior.device),
        settings.control_scale * facing.to(prior.device),
        guidance_scale(number, settings),
    )
    painted = zip(prior.decode(clean).cpu(), scene.background.cpu(), strict=True)
    return (torch.stack([exchange_background(*each) for each in painted]) * 255).round().byte()
