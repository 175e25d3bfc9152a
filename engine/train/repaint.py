"""The dataset-update strategy: the prior paints over pictures of the avatar, and the avatar is fitted to them.

In rounds, as in Instruct-NeRF2NeRF (Haque et al. 2023) and dataset updates since: render, add noise, denoise under the
prompt and the landmark map, fit photometrically, and again with less noise. Each round starts from what the one before
agreed on, so that pictures which were painted apart grow alike.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..condition.picture import condition_image, face_direction
from ..evaluate.visible import share_picture
from ..gaussians import Gaussians
from ..guidance.denoise import denoise
from ..guidance.prior import Prior
from ..rasterise import rasterise
from .carve import carve
from .outline import exchange_background
from .scenes import Scene, SceneSampler
from .settings import TrainSettings
from .starting_noise import surest_picture
from .state import State, random_numbers
from .unseen import colour_unseen

_COARSE = 8  # latents: side of the squares whose mean noise all pictures share
_MARGIN = 3  # pixels of a close-up, to the edge of the avatar
_GLIMPSE = 0.1  # share of a pixel from which on it counts as showing an eye
_ROUNDS = 2**33  # the streams of random numbers that rounds draw from: no step has such a number


class Rounds:
    """The scenes of the present round. Its pictures are part of the state, and of its checkpoints."""

    def __init__(self, prior: Prior, draw_scene: SceneSampler, seed: int):
        self.prior, self.draw_scene, self.seed = prior, draw_scene, seed
        self.number = -1
        self.painting = 0.0  # seconds that the latest step spent on painting
        self._seconds_per_level = 0.0

    def scene_and_pictures(self, state: State) -> tuple[Scene, Tensor]:
        """One scene of the round that the state's step belongs to, and its pictures [V, S, S, 4] in 0..1, as of
        ``paint``.

        Paints them all where the round begins.
        """
        settings = state.request.settings
        number = round_of(state.step, settings)
        numbers, generator = random_numbers(self.seed, _ROUNDS + number)
        if number != self.number:
            self.scenes = self._scenes(number, numbers)
            self.number = number
        self.painting = 0.0
        if state.painted is None or state.step == round_begin(number, settings):
            entered = time.perf_counter()
            # The avatar that a run starts from has a back of its own
            if number == 1 and settings.repaint_front < 180 and state.request.start is None:
                colour_unseen(state, self._scenes(0, random_numbers(self.seed, _ROUNDS)[0]))
            if number == 0:
                state.first_noise = starting_noise(state, self.prior, self.scenes, generator)
            began = time.perf_counter()
            painted = paint(state, self.prior, self.scenes, number, generator)
            self._seconds_per_level = (time.perf_counter() - began) / noise_level(number, settings)
            if 0 < number <= settings.repaint_carvings:
                # Only pictures of the whole head have outlines
                whole, identity = slice(settings.views - settings.close_ups), state.identity.detach()
                scenes = [scene.part(whole) for scene in self.scenes]
                pictures = painted[:, whole, ..., :3].float() / 255
                state.add(carve(state.head, identity, scenes, pictures, state.gaussians))
            state.painted = painted
            self.painting = time.perf_counter() - entered
        row = (state.step - round_begin(number, settings)) % len(self.scenes)
        return self.scenes[row], state.painted[row].float() / 255

    def _scenes(self, number: int, numbers: np.random.Generator) -> list[Scene]:
        """The scenes of a round. The first has no close-ups, for which the noise that its pictures share would mean
        something else, and looks at the front alone."""
        settings = self.draw_scene.settings
        if number:
            return [self.draw_scene(numbers, settings.close_ups) for _ in range(settings.repaint_scenes)]
        low, high = np.clip(settings.cameras.azimuth, -settings.repaint_front, settings.repaint_front).tolist()
        front = replace(settings.cameras, azimuth=(low, high))
        return [self.draw_scene(numbers, cameras=front) for _ in range(settings.repaint_scenes)]

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
    """Timestep that a round's pictures are noised to: ``repaint_start``, then evenly from the first to the last of
    ``repaint_noise``."""
    second, last = settings.repaint_noise
    later = second + (last - second) * _share(number - 1, settings.repaint_rounds - 1)
    return round((later if number else settings.repaint_start) * timesteps / 1000)


def guidance_scale(number: int, settings: TrainSettings) -> float:
    """The guidance scale of a round: from ``guidance_scale`` to the share of it that ``repaint_calm`` says, evenly."""
    return settings.guidance_scale * (1 + (settings.repaint_calm - 1) * _share(number, settings.repaint_rounds))


def _share(number: int, rounds: int) -> float:
    """How far a round is between the first of so many, 0, and the last, 1."""
    return number / max(rounds - 1, 1)


@torch.no_grad()
def starting_noise(
    state: State, prior: Prior, scenes: list[Scene], generator: torch.Generator
) -> Tensor:  # [C, h, w] on the CPU
    """What all pictures of the first round start from: what the prior makes of it, it then makes of them alike.

    Of ``repaint_tries`` noises it is the one whose picture of the most frontal view shows the prompt most surely.
    """
    settings = state.request.settings
    shape = (prior.latent_channels, prior.latent_size, prior.latent_size)
    noises = torch.stack([torch.randn(shape, generator=generator) for _ in range(settings.repaint_tries)])
    if len(noises) == 1:
        return noises[0]
    scene, vertices, view = _most_frontal(state, scenes)
    scene = scene.part(slice(view, view + 1))
    posed = state.gaussians.pose(vertices, state.head.triangles)
    seen = _seen(posed, vertices, scene, state, prior)
    latents = torch.cat([_denoised(seen, scene, noise[None], 0, state, prior) for noise in noises])
    text, null, condition, control = scene.texts.positive[0], scene.texts.null, seen.condition[0], seen.control[0]
    return noises[surest_picture(prior, latents, text, null, condition, control, generator, state.views_at_once)]


@torch.no_grad()
def paint(
    state: State,
    prior: Prior,
    scenes: list[Scene],
    number: int,  # of the round
    generator: torch.Generator,
) -> Tensor:  # [G, V, S, S, 4] uint8, S = prior.image_size
    """The round's pictures, one row per scene: colours, and where they count.

    ``state.views_at_once`` limits the pictures that are painted together; they stay the same.
    """
    settings = state.request.settings
    shape = (settings.views, prior.latent_channels, prior.latent_size, prior.latent_size)
    painted = []
    for scene in scenes:
        vertices = scene.vertices(state.head, state.identity)
        posed = state.gaussians.pose(vertices, state.head.triangles)
        noise = state.first_noise.expand(shape)
        if number:
            own = torch.randn(shape, generator=generator)
            # Close by, the places of the first round's noise mean something else
            noise = torch.where(scene.close_up[:, None, None, None], own, with_coarse_part(own, noise))
        pictures = [
            _paint_over(posed, vertices, part, noise[rows], number, state, prior)
            for rows, part in scene.parts(state.views_at_once)
        ]
        painted.append(torch.cat(pictures))
    return torch.stack(painted)


class _Seen(NamedTuple):
    """What the prior is given of R views."""

    latents: Tensor  # [R, C, h, w] of the avatar as it looks now
    alpha: Tensor  # [R, H, W] of the avatar, on its own device
    condition: Tensor  # [R, S, S, 3] landmark maps
    control: Tensor  # [R] ControlNet strength


def _paint_over(
    posed: Gaussians,
    vertices: Tensor,  # [N, 3]
    scene: Scene,  # of R views
    noise: Tensor,  # [R, C, h, w]
    number: int,  # of the round
    state: State,
    prior: Prior,
) -> Tensor:  # [R, S, S, 4] uint8
    seen = _seen(posed, vertices, scene, state, prior)
    pictures = prior.decode(_denoised(seen, scene, noise, number, state, prior)).cpu()
    counts = torch.ones(pictures.shape[:3])
    # Where there are close-ups, eyes learn from them alone: elsewhere an iris is a blend of itself and a lid
    eyes = _eyes(posed, scene, state, counts.shape[1]).cpu() if number and state.request.settings.close_ups else None
    for row, close_up in enumerate(scene.close_up):
        if close_up:
            counts[row] = _well_within(seen.alpha[row].cpu(), counts.shape[1])
        else:
            pictures[row] = exchange_background(pictures[row], scene.background[row].cpu())
            if eyes is not None:
                counts[row] -= eyes[row]
    return (torch.cat([pictures, counts[..., None]], -1) * 255).round().byte()


def _eyes(posed: Gaussians, scene: Scene, state: State, size: int) -> Tensor:  # [R, size, size] 0 or 1
    """The pixels of the scene's R views that show anything of an eyeball."""
    shown = share_picture(posed, state.eyes[state.gaussians.triangle], scene.camera)
    return (F.adaptive_max_pool2d(shown[:, None], size)[:, 0] > _GLIMPSE).float()


def _well_within(
    alpha: Tensor,  # [H, H]
    size: int,  # pixels
) -> Tensor:  # [size, size] 0 or 1
    """The pixels that an avatar covers, with all around them: a picture of a face alone has no outline to tell what is
    background and what is hair beside the head."""
    alpha = F.interpolate(alpha[None, None], (size, size), mode="area")
    return (-F.max_pool2d(-alpha, 2 * _MARGIN + 1, stride=1, padding=_MARGIN) > 0.5)[0, 0].float()


def _seen(posed: Gaussians, vertices: Tensor, scene: Scene, state: State, prior: Prior) -> _Seen:
    render = rasterise(posed, scene.camera, background=scene.background)
    condition, facing = condition_image(
        state.head.arrays, vertices.expand(len(scene), -1, -1), scene.camera, prior.condition_size, prior.all_round
    )
    control = state.request.settings.control_scale * facing
    latents = prior.encode_images(render.colour.to(prior.device))
    return _Seen(latents, render.alpha, condition.to(prior.device), control.to(prior.device))


def _denoised(
    seen: _Seen,
    scene: Scene,  # of R views
    noise: Tensor,  # [R, C, h, w]
    number: int,  # of the round
    state: State,
    prior: Prior,
) -> Tensor:  # [R, C, h, w] clean latents
    settings = state.request.settings
    level = noise_level(number, settings, prior.timesteps)
    return denoise(
        prior,
        prior.add_noise(seen.latents, noise.to(prior.device), torch.full((len(scene),), level)),
        level,
        max(1, round(settings.repaint_steps * level / prior.timesteps)),
        scene.texts.positive,
        scene.texts.negative,
        seen.condition,
        seen.control,
        guidance_scale(number, settings),
    )


def with_coarse_part(
    noise: Tensor,  # [R, C, h, w] or [C, h, w], white
    other: Tensor,  # of the same shape, white
) -> Tensor:  # the same, white
    """``noise`` with the means of its squares of ``_COARSE`` latents exchanged for those of ``other``.

    From the first rounds' noise levels on, the large colours of a picture come from its noise as much as from what was
    there. Pictures that share this part of it agree on them, and go on to differ in all else.
    """
    means = F.avg_pool2d(other - noise, _COARSE, ceil_mode=True)
    spread = means.repeat_interleave(_COARSE, -2).repeat_interleave(_COARSE, -1)
    return noise + spread[..., : noise.shape[-2], : noise.shape[-1]]


def _most_frontal(state: State, scenes: list[Scene]) -> tuple[Scene, Tensor, int]:
    """The scene, its vertices [N, 3], and which of its views looks most straight into the face."""
    found = []
    for scene in scenes:
        vertices = scene.vertices(state.head, state.identity)
        forward, centre = face_direction(state.head.arrays, vertices[None])
        towards = scene.camera.centre.to(centre) - centre  # [V, 3]
        cosine, view = torch.cosine_similarity(towards, forward, dim=-1).max(0)
        found.append((float(cosine), scene, vertices, int(view)))
    return max(found, key=lambda each: each[0])[1:]
