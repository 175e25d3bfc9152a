"""The training loop: from a prompt to an avatar (Sec. 4.2 and A.1 of the paper), top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..avatar.binding import bind, triangle_frames
from ..avatar.file import Avatar
from ..avatar.regularise import regularisation
from ..camera import Camera
from ..condition.picture import condition_image
from ..errors import UserError
from ..guidance.distil import Strategy, distillation_loss, get_strategy
from ..guidance.prior import Prior
from ..guidance.prompts import DEFAULT_NEGATIVE, PromptEmbeddings, Texts
from ..guidance.schedule import sample_timesteps, timestep_phases
from ..heads.arrays import HeadArrays
from ..heads.head import Head
from ..motion.generators import MotionSampler
from ..rasterise import rasterise
from .cameras import face_azimuth, sample_cameras
from .checkpoint import clear_checkpoints, load_checkpoint, save_checkpoint
from .progress import Clock, Progress, Reporter, SilentReporter
from .settings import TrainSettings
from .state import Request, State, random_numbers

MAX_SKIPPED_IN_A_ROW = 20


class TrainingStopped(Exception):  # noqa: N818 (nothing went wrong)
    """The reporter asked for a stop. The run's checkpoint, if it has a folder for one, is written."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}")
        self.step = step


def train(
    settings: TrainSettings,
    arrays: HeadArrays,
    prior: Prior,
    prompt: str,
    negative: str = DEFAULT_NEGATIVE,
    seed: int = 0,
    reporter: Reporter | None = None,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    start: Avatar | None = None,
) -> Avatar:
    """Trains an avatar of ``prompt``. The same arguments give the same avatar on the same machine.

    It starts from the splats and the shape of the avatar ``start``, made on the same head, or from bare splats.

    With ``checkpoint_dir`` the run can be continued by another call with ``resume``, and ends as if it had never
    stopped; without ``resume`` the checkpoints that lie there are removed.

    Raises ``TrainingStopped`` when the reporter says so, and ``UserError`` for an empty prompt, a checkpoint of another
    run, a ``start`` on another head, a full disk, too little memory for a single picture, or gradients that stay not
    finite.
    """
    reporter = reporter or SilentReporter()
    request = Request(settings, arrays, prior.name, prior.revision, prompt, negative, seed, start)
    head = Head(arrays, device)
    sampler = MotionSampler(arrays)
    strategy = get_strategy(settings.strategy)
    phases = timestep_phases(settings.timesteps, settings.late_timesteps, settings.late_from)
    texts = PromptEmbeddings.encode(prior, prompt, negative)

    state = None
    if checkpoint_dir is not None and resume:
        checkpoint = load_checkpoint(checkpoint_dir, reporter.warning)
        state = State.from_checkpoint(request, head, checkpoint) if checkpoint else None
    elif checkpoint_dir is not None:
        clear_checkpoints(checkpoint_dir)
    state = state or State.start(request, head)

    clock, began = Clock(), time.perf_counter()
    while state.step < settings.steps:
        step_began = time.perf_counter()
        numbers, generator = random_numbers(seed, state.step)
        state.set_rates()

        # 1. Random cameras and a random animation frame, which all of the step's pictures share.
        camera, azimuth = sample_cameras(settings.views, arrays, settings.render_size, settings.cameras, numbers)
        expression, joints = sampler.sample(numbers)
        if numbers.random() < settings.neutral_share:
            expression, joints = np.zeros_like(expression), np.zeros_like(joints)
        latent_shape = (settings.views, prior.latent_channels, prior.latent_size, prior.latent_size)
        views = Views(
            camera=camera.to(head.device),
            background=backgrounds(settings, numbers).to(head.device),
            texts=texts.at(azimuth - face_azimuth(arrays, joints)),
            t=sample_timesteps(state.step / settings.steps, settings.views, generator, phases, prior.timesteps).to(
                prior.device
            ),
            noise=torch.randn(latent_shape, generator=generator).to(prior.device),
        )
        pose = (torch.as_tensor(expression).to(head.device), torch.as_tensor(joints).to(head.device))

        # 2. Deform, render, distil, regularise: gradients on every parameter.
        losses = within_memory(state, reporter, lambda: backward(state, prior, strategy, views, *pose))  # noqa: B023

        # 3. Adam, unless something overflowed; then density control.
        if state.gradients_are_finite() and all(map(math.isfinite, losses.values())):
            state.optimiser.step()
            state.clamp_colours()
            state.skipped_in_a_row = 0
        else:
            skip(state, reporter)
        state.step += 1
        state.control_density(generator)

        # 4. Tell, and keep.
        now = time.perf_counter()
        remaining = clock.remaining(now - step_began, settings.steps - state.step)
        reporter.progress(Progress(state.step, settings.steps, losses, len(state.gaussians), now - began, remaining))
        if due(settings.snapshot_every, state.step) and state.step < settings.steps:
            reporter.snapshot(state.avatar(), state.step)
        stop = reporter.should_stop()
        if checkpoint_dir is not None and (stop or due(settings.checkpoint_every, state.step)):
            save_checkpoint(checkpoint_dir, state.to_checkpoint())
        if stop and state.step < settings.steps:
            raise TrainingStopped(state.step)
    return state.avatar()


@dataclass(frozen=True)
class Views:
    """What the V pictures of one step do not share."""

    camera: Camera  # of V views
    background: Tensor  # [V, 3] sRGB
    texts: Texts  # of V views
    t: Tensor  # [V] int64 timesteps
    noise: Tensor  # [V, C, h, w] standard normal

    def __len__(self) -> int:
        return len(self.t)

    def part(self, rows: slice) -> Views:
        texts = replace(self.texts, positive=self.texts.positive[rows])
        return Views(self.camera[rows], self.background[rows], texts, self.t[rows], self.noise[rows])


def backward(
    state: State,
    prior: Prior,
    strategy: Strategy,
    views: Views,
    expression: Tensor,  # [E]
    joints: Tensor,  # [J, 3]
) -> dict[str, float]:
    """Leaves the gradient of the whole loss on the parameters, and returns the loss's parts."""
    settings, head, gaussians = state.request.settings, state.head, state.gaussians
    vertices = head(expression[None], joints[None], state.identity[None])[0]  # [N, 3]
    frames = triangle_frames(vertices, head.triangles)
    posed = bind(frames, gaussians.triangle, **gaussians.parameters())
    # The pictures' gradients are collected on the posed Gaussians and go back through Eq. 5 and the head once.
    leaves = replace(posed, **{f.name: getattr(posed, f.name).detach().requires_grad_() for f in fields(posed)})

    distilled, gradients, visible = 0.0, [], []
    for start in range(0, len(views), state.views_at_once):
        part = views.part(slice(start, start + state.views_at_once))
        offsets = leaves.means.new_zeros(len(part), len(leaves), 2).requires_grad_()
        render = rasterise(leaves, part.camera, background=part.background, screen_offsets=offsets)
        condition, facing = condition_image(
            head.arrays, vertices.detach().expand(len(part), -1, -1), part.camera, prior.condition_size
        )
        loss = distillation_loss(
            strategy,
            prior,
            prior.encode_images(render.colour.to(prior.device)),
            part.t,
            part.noise,
            part.texts,
            condition.to(prior.device),
            settings.control_scale * facing,
            settings,
        )
        loss = loss * (len(part) / len(views))
        loss.backward()
        distilled += loss.item()
        gradients.append(offsets.grad)
        visible.append(render.visible)

    position, scale = regularisation(gaussians, frames)
    penalty = settings.position_weight * position + settings.scale_weight * scale
    penalty = penalty + settings.sparsity_weight * posed.opacities.mean()
    outputs = [getattr(posed, f.name) for f in fields(posed)]
    torch.autograd.backward([penalty, *outputs], [None, *(getattr(leaves, f.name).grad for f in fields(leaves))])
    if state.collects_screen_gradients:  # last, so that a step that is tried again is not counted twice
        state.density.observe(torch.cat(gradients), torch.cat(visible))
    return {"distil": distilled, "position": position.item(), "scale": scale.item()}


def within_memory(state: State, reporter: Reporter, step: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Runs the step; where memory does not suffice, again with half as many pictures at once.

    The pictures and their random numbers stay the same and their gradients add up, so that the result does, too.
    """
    while True:
        state.optimiser.zero_grad()
        try:
            return step()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # Out of the handler the error is gone, and with it the tensors that its frames held
        if state.views_at_once == 1:
            raise UserError(
                "There is not enough memory for a single picture. Choose a smaller render size or fewer splats, "
                "or a preset that needs less."
            )
        first = state.views_at_once == state.request.settings.views
        state.views_at_once = (state.views_at_once + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if first:
            reporter.warning(
                "Memory is short: the pictures of a step are now drawn in smaller groups, which is slower."
            )


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU torch has no class of its own for it
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


def skip(state: State, reporter: Reporter) -> None:
    """Counts a step whose gradient is not finite: the avatar stays as it was. Too many in a row end the run."""
    if state.skipped == 0:
        reporter.warning(f"Step {state.step + 1} gave numbers that are not finite; it is skipped.")
    state.skipped += 1
    state.skipped_in_a_row += 1
    if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise UserError(
            f"Training broke down: {MAX_SKIPPED_IN_A_ROW} steps in a row up to step {state.step + 1} gave numbers that "
            "are not finite. The last checkpoint and snapshot are good. Lower the learning rates or the guidance "
            "scale; with a half-precision prior, load it in full precision."
        )


def backgrounds(settings: TrainSettings, rng: np.random.Generator) -> Tensor:  # [V, 3]
    """Solid colours. Random ones stop the splats from hiding behind a colour that is always there."""
    fixed = {"black": 0.0, "white": 1.0}
    if settings.background in fixed:
        return torch.full((settings.views, 3), fixed[settings.background])
    return torch.as_tensor(rng.random((settings.views, 3)), dtype=torch.float32)


def due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
