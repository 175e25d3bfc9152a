"""The training loop: from a prompt to an avatar (Sec. 4.2 and A.1 of the paper), top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..avatar.binding import bind, triangle_frames
from ..avatar.file import Avatar
from ..avatar.regularise import regularisation
from ..condition.picture import condition_image
from ..errors import UserError
from ..guidance.distil import Strategy, distillation_loss, get_strategy
from ..guidance.prior import Prior, resize_pictures
from ..guidance.prompts import DEFAULT_NEGATIVE, PromptEmbeddings
from ..guidance.schedule import sample_timesteps, timestep_phases
from ..heads.arrays import HeadArrays
from ..heads.head import Head
from ..rasterise import rasterise
from .checkpoint import clear_checkpoints, load_checkpoint, save_checkpoint
from .photometric_metrics import likeness_loss
from .progress import Clock, Progress, Reporter, SilentReporter
from .repaint import Rounds
from .scenes import Scene, SceneSampler
from .settings import TrainSettings
from .state import Request, State, random_numbers

MAX_SKIPPED_IN_A_ROW = 20

Result = TypeVar("Result")


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
    strategy = None if settings.strategy == "repaint" else get_strategy(settings.strategy)
    phases = timestep_phases(settings.timesteps, settings.late_timesteps, settings.late_from)
    draw_scene = SceneSampler(settings, head, PromptEmbeddings.encode(prior, prompt, negative))
    rounds = Rounds(prior, draw_scene, seed)

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

        # 1. Random cameras and a random animation frame, which all of the step's pictures share; and what they are
        #    compared with: the prior's score, or what the prior has painted.
        if settings.strategy == "repaint":
            scene, painted = within_memory(state, reporter, lambda: rounds.scene_and_pictures(state))
            loss_of = likeness(prior, painted, settings)
        else:
            scene = draw_scene(numbers, settings.close_ups)
            shape = (settings.views, prior.latent_channels, prior.latent_size, prior.latent_size)
            t = sample_timesteps(state.step / settings.steps, settings.views, generator, phases, prior.timesteps)
            noise = torch.randn(shape, generator=generator).to(prior.device)
            loss_of = distillation(head, prior, strategy, scene, t.to(prior.device), noise, settings)

        # 2. Deform, render, compare, regularise: gradients on every parameter.
        losses = within_memory(state, reporter, lambda: backward(state, scene, loss_of))  # noqa: B023

        # 3. Adam, unless something overflowed; then density control.
        if state.gradients_are_finite() and all(map(math.isfinite, losses.values())):
            state.hold_eyes_and_mouth()
            state.optimiser.step()
            state.clamp_colours()
            state.skipped_in_a_row = 0
        else:
            skip(state, reporter)
        state.step += 1
        state.control_density(generator)

        # 4. Tell, and keep.
        now = time.perf_counter()
        remaining = clock.remaining(now - step_began - rounds.painting, settings.steps - state.step)
        remaining += rounds.painting_left(settings)
        reporter.progress(Progress(state.step, settings.steps, losses, len(state.gaussians), now - began, remaining))
        if due(settings.snapshot_every, state.step) and state.step < settings.steps:
            reporter.snapshot(state.avatar(), state.step)
        stop = reporter.should_stop()
        if checkpoint_dir is not None and (stop or due(settings.checkpoint_every, state.step)):
            save_checkpoint(checkpoint_dir, state.to_checkpoint())
        if stop and state.step < settings.steps:
            raise TrainingStopped(state.step)
    return state.avatar()


LossOf = Callable[[slice, Tensor, Tensor], Tensor]
"""Rows of a scene's views, their renders [R, S, S, 3], the posed vertices [N, 3]: the mean loss over those rows."""


def distillation(
    head: Head,
    prior: Prior,
    strategy: Strategy,
    scene: Scene,
    t: Tensor,  # [V] int64 timesteps
    noise: Tensor,  # [V, C, h, w] standard normal
    settings: TrainSettings,
) -> LossOf:
    """The loss whose gradient is the strategy's, under the scene's landmark maps."""

    def loss(rows: slice, colour: Tensor, vertices: Tensor) -> Tensor:
        part = scene.part(rows)
        condition, facing = condition_image(
            head.arrays, vertices.detach().expand(len(part), -1, -1), part.camera, prior.condition_size, prior.all_round
        )
        return distillation_loss(
            strategy,
            prior,
            prior.encode_images(colour.to(prior.device)),
            t[rows],
            noise[rows],
            part.texts,
            condition.to(prior.device),
            settings.control_scale * facing,
            settings,
        )

    return loss


def likeness(
    prior: Prior,
    painted: Tensor,  # [V, S, S, 4] in 0..1: colour, and where it counts
    settings: TrainSettings,
) -> LossOf:
    """The photometric loss against painted pictures, at their size."""

    def loss(rows: slice, colour: Tensor, vertices: Tensor) -> Tensor:
        colour = resize_pictures(colour, prior.image_size)
        target, counts = painted[rows].to(colour).split([3, 1], -1)
        return likeness_loss(colour, torch.lerp(colour.detach(), target, counts), settings.repaint_dssim)

    return loss


def backward(state: State, scene: Scene, loss_of: LossOf) -> dict[str, float]:
    """Leaves the gradient of the whole loss on the parameters, and returns the loss's parts."""
    settings, head, gaussians = state.request.settings, state.head, state.gaussians
    vertices = scene.vertices(head, state.identity)
    frames = triangle_frames(vertices, head.triangles)
    posed = bind(frames, gaussians.triangle, **gaussians.parameters())
    # The pictures' gradients are collected on the posed Gaussians and go back through Eq. 5 and the head once.
    leaves = replace(posed, **{f.name: getattr(posed, f.name).detach().requires_grad_() for f in fields(posed)})

    compared, gradients, visible = 0.0, [], []
    for rows, part in scene.parts(state.views_at_once):
        offsets = leaves.means.new_zeros(len(part), len(leaves), 2).requires_grad_()
        render = rasterise(leaves, part.camera, background=part.background, screen_offsets=offsets)
        loss = loss_of(rows, render.colour, vertices) * (len(part) / len(scene))
        loss.backward()
        compared += loss.item()
        gradients.append(offsets.grad)
        visible.append(render.visible)

    position, scale = regularisation(gaussians, frames)
    penalty = settings.position_weight * position + settings.scale_weight * scale
    penalty = penalty + settings.sparsity_weight * posed.opacities.mean()
    outputs = [getattr(posed, f.name) for f in fields(posed)]
    torch.autograd.backward([penalty, *outputs], [None, *(getattr(leaves, f.name).grad for f in fields(leaves))])
    if state.collects_screen_gradients:  # last, so that a step that is tried again is not counted twice
        state.density.observe(torch.cat(gradients), torch.cat(visible))
    return {
        "distil" if settings.strategy != "repaint" else "repaint": compared,
        "position": position.item(),
        "scale": scale.item(),
    }


def within_memory(state: State, reporter: Reporter, work: Callable[[], Result]) -> Result:
    """Does the work; where memory does not suffice, again with half as many pictures at once.

    The pictures and their random numbers stay the same and their gradients add up, so that the result does, too.
    """
    while True:
        state.optimiser.zero_grad()
        try:
            return work()
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


def due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
