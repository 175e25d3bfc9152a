"""Fitting an avatar to posed pictures: the photometric strategy, beside distillation from a prompt.

Every picture comes with its camera, expression and joints. Each step draws some pictures, poses the avatar as they
say, and moves the Gaussians towards them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..avatar.binding import bind, triangle_frames
from ..avatar.density import DensityControl, DensitySettings
from ..avatar.initialise import super_dense
from ..avatar.regularise import regularisation
from ..avatar.rigged import RiggedGaussians
from ..camera import Camera
from ..heads.head import Head
from ..rasterise.rasterise import rasterise
from .photometric_metrics import likeness_loss

_VIEW_DEPENDENT_RATE = 0.05  # of the constant colour's learning rate, as in 3D Gaussian splatting


@dataclass(frozen=True)
class PhotometricSettings:
    """One fit; times are fractions of the run."""

    steps: int = 2000
    pictures: int = 1
    """Pictures per step."""
    points: int | None = 20_000
    """Splats at the start, spread by area; None: ``per_triangle`` on every triangle."""
    per_triangle: float = 10
    initial_opacity: float = 0.5
    initial_colour: float = 0.5
    sh_degree: int = 0
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What the pictures show where there is no head, sRGB."""

    dssim: float = 0.2
    """Share of 1 - SSIM in the loss, the rest is the mean absolute difference."""
    position_weight: float = 1e-4
    """Weights of Eq. 8-9. A mean over pixels pulls a splat far less than a prompt's score, so they are smaller than
    the paper's 0.1."""
    scale_weight: float = 1e-4

    lr_offset: float = 1e-2
    lr_scale: float = 2e-2
    lr_rotation: float = 1e-2
    lr_opacity: float = 5e-2
    lr_colour: float = 2e-2
    """For the constant term; the view-dependent ones learn at a twentieth of it."""
    lr_shape: float = 1e-3
    """For the head's identity coefficients, where they are given."""
    shape_freeze: float = 0.5
    """The identity stands still after this time, so that the splats settle on it."""
    final_lr: float = 0.05
    """Every learning rate falls to this share of itself, along a cosine."""

    density: DensitySettings = field(
        default_factory=lambda: DensitySettings(
            densify_from=0.1, densify_until=0.5, densify_every=0.05, prune_at=(0.35, 0.55), threshold=0.01, limit=40_000
        )
    )


def fit(
    head: Head,
    images: Tensor,  # [V, H, W, 3] sRGB in 0..1
    cameras: Camera,  # V cameras of that size
    expressions: Tensor,  # [V, E]
    joints: Tensor,  # [V, J, 3] axis-angle, radians
    settings: PhotometricSettings,
    generator: torch.Generator,
    *,
    identity: Tensor | None = None,  # [S]; learned in place
    report: Callable[[int, float, int], None] | None = None,  # step, loss, number of Gaussians
) -> RiggedGaussians:
    """A fresh avatar on ``head`` that looks like ``images``: L1 + D-SSIM, Eq. 8-9, density control, Adam.

    With ``identity`` the head's shape is learned too, starting from it. Everything is on the head's device; the same
    generator state gives the same avatar on the same machine. Raises ``FloatingPointError`` if the loss stops being a
    number.
    """
    views = images.shape[0]
    assert images.shape == (views, cameras.height, cameras.width, 3), images.shape
    assert len(cameras) == views, len(cameras)
    assert expressions.shape == (views, head.expression_size), expressions.shape
    assert joints.shape == (views, head.joint_count, 3), joints.shape
    if settings.steps < 1 or settings.pictures < 1:
        raise ValueError(f"{settings.steps} steps of {settings.pictures} pictures")
    images, expressions, joints = (values.to(head.template) for values in (images, expressions, joints))
    cameras = cameras.to(head.device)

    def rest() -> Tensor:
        return head.rest_vertices(None if identity is None else identity.detach()[None])[0]

    gaussians = super_dense(
        rest(),
        head.triangles,
        settings.per_triangle,
        settings.initial_opacity,
        settings.initial_colour,
        settings.sh_degree,
        generator,
        count=settings.points,
    ).requires_grad_()
    background = torch.tensor(settings.background).to(images)
    optimiser = _optimiser(gaussians, identity, settings)
    density = DensityControl(settings.density, settings.steps, head.arrays.unit)
    queue: list[int] = []

    for step in range(1, settings.steps + 1):
        while len(queue) < settings.pictures:
            queue += torch.randperm(views, generator=generator, device=generator.device).tolist()
        chosen, queue = queue[: settings.pictures], queue[settings.pictures :]
        _set_rates(optimiser, step / settings.steps, settings)
        optimiser.zero_grad()

        shape = None if identity is None else identity[None]
        vertices = head(expressions[chosen], joints[chosen], shape)  # [B, N, 3]
        shifts = [images.new_zeros(len(gaussians), 2, requires_grad=True) for _ in chosen]
        posed = [triangle_frames(one, head.triangles) for one in vertices]
        renders = [
            rasterise(
                bind(frames, gaussians.triangle, **gaussians.parameters()),
                cameras[view],
                background=background,
                screen_offsets=shift,
            )
            for frames, view, shift in zip(posed, chosen, shifts, strict=True)
        ]
        pictures = torch.stack([render.colour for render in renders])
        loss = likeness_loss(pictures, images[chosen], settings.dssim)
        position, scale = regularisation(gaussians, posed[0])
        (loss + settings.position_weight * position + settings.scale_weight * scale).backward()
        if not loss.isfinite():
            raise FloatingPointError(f"the loss of step {step} is {loss.item()}")
        _step(optimiser, gaussians)
        density.observe(
            torch.stack([shift.grad for shift in shifts]), torch.stack([render.visible for render in renders])
        )
        if density.due(step):
            density.step(step, gaussians, optimiser, triangle_frames(rest(), head.triangles), generator)
        if report is not None:
            report(step, loss.item(), len(gaussians))
    if identity is not None:
        identity.requires_grad_(False)
    return gaussians.requires_grad_(False)


def _optimiser(
    gaussians: RiggedGaussians, identity: Tensor | None, settings: PhotometricSettings
) -> torch.optim.Optimizer:
    rates = {
        "offsets": settings.lr_offset,
        "log_scales": settings.lr_scale,
        "quats": settings.lr_rotation,
        "opacity_logits": settings.lr_opacity,
        "sh": settings.lr_colour,
        "identity": settings.lr_shape,
    }
    parameters = gaussians.parameters()
    if identity is not None:
        parameters["identity"] = identity.requires_grad_()
    groups = [{"params": [p], "name": name, "lr": rates[name], "start": rates[name]} for name, p in parameters.items()]
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-15)


def _set_rates(optimiser: torch.optim.Optimizer, time: float, settings: PhotometricSettings) -> None:
    """Learning rates at ``time`` in 0..1 of the run."""
    factor = settings.final_lr + (1 - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * time))
    for group in optimiser.param_groups:
        frozen = group["name"] == "identity" and time > settings.shape_freeze
        group["lr"] = 0.0 if frozen else factor * group["start"]


@torch.no_grad()
def _step(optimiser: torch.optim.Optimizer, gaussians: RiggedGaussians) -> None:
    """Adam, with smaller steps for the view-dependent colour: Adam would divide a factor on its gradient out again."""
    before = gaussians.sh[:, 1:].clone()
    optimiser.step()
    gaussians.sh[:, 1:] = before + _VIEW_DEPENDENT_RATE * (gaussians.sh[:, 1:] - before)
