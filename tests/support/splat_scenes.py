"""Random Gaussians and cameras for the rasteriser's tests, and the gradients of a picture."""

from __future__ import annotations

from dataclasses import replace

import torch
from headstudio.camera import Camera, orbit
from headstudio.gaussians import Gaussians
from headstudio.rasterise import Render, rasterise
from torch import Tensor

GAUSSIAN_FIELDS = ("means", "quats", "scales", "opacities", "sh")


def random_gaussians(n: int, degree: int, seed: int, size: float = 0.03) -> Gaussians:
    """``n`` Gaussians of standard deviation around ``size`` metres in a ball of about 0.3 m; float64 values that
    float32 holds exactly, so that both precisions draw the same scene."""
    g = torch.Generator().manual_seed(seed)
    gaussians = Gaussians(
        means=0.15 * torch.randn(n, 3, generator=g),
        quats=torch.randn(n, 4, generator=g),
        scales=size * torch.exp(0.5 * torch.randn(n, 3, generator=g)),
        opacities=torch.sigmoid(1.5 * torch.randn(n, generator=g)),
        sh=0.5 * torch.randn(n, (degree + 1) ** 2, 3, generator=g),
    )
    return gaussians.to(torch.float64)


def random_camera(seed: int, size: tuple[int, int], batch: tuple[int, ...] = (), orthographic: bool = False) -> Camera:
    """Cameras around the ball with unequal focal lengths and an off-centre principal point, like the above float64."""
    g = torch.Generator().manual_seed(1000 + seed)
    camera = orbit(360 * torch.rand(batch, generator=g), 60 * torch.rand(batch, generator=g) - 30, 1.2, 40.0, size)
    intrinsics = camera.intrinsics.clone()
    intrinsics[..., 1, 1] *= 1.1
    intrinsics[..., 0, 2] += 0.03 * size[0]
    intrinsics[..., 1, 2] -= 0.04 * size[1]
    if orthographic:
        intrinsics[..., :2, :2] *= 0.8
    return replace(camera, intrinsics=intrinsics, orthographic=orthographic).to(torch.float64)


def with_gradients(gaussians: Gaussians, camera: Camera) -> tuple[Gaussians, Camera]:
    """Copies whose tensors are leaves that require a gradient."""
    return (
        replace(gaussians, **{f: getattr(gaussians, f).clone().requires_grad_() for f in GAUSSIAN_FIELDS}),
        replace(
            camera,
            world_to_camera=camera.world_to_camera.clone().requires_grad_(),
            intrinsics=camera.intrinsics.clone().requires_grad_(),
        ),
    )


def picture_and_gradients(
    gaussians: Gaussians,
    camera: Camera,
    backend: str,
    dtype: torch.dtype,
    background: Tensor | None = None,
    device: str = "cpu",
    intrinsics_gradient: bool = True,
) -> tuple[Render, dict[str, Tensor]]:
    """The render, and the gradients of one fixed random weighting of its colour, alpha and depth."""
    gaussians, camera = with_gradients(gaussians.to(device, dtype), camera.to(device, dtype))
    camera.intrinsics.requires_grad_(intrinsics_gradient)
    batch = camera.world_to_camera.shape[:-2]
    background = torch.tensor([0.9, 0.4, 0.1]) if background is None else background
    background = background.detach().clone().to(device, dtype).requires_grad_()
    offsets = torch.zeros(*batch, len(gaussians), 2, dtype=dtype, device=device, requires_grad=True)
    render = rasterise(gaussians, camera, background=background, screen_offsets=offsets, backend=backend)
    g = torch.Generator().manual_seed(7)
    loss = sum(
        (image * torch.randn(image.shape, generator=g).to(image)).sum()
        for image in (render.colour, render.alpha, render.depth)
    )
    loss.backward()
    gradients = {f: getattr(gaussians, f).grad for f in GAUSSIAN_FIELDS}
    gradients |= {"world_to_camera": camera.world_to_camera.grad, "background": background.grad}
    gradients |= {"screen_offsets": offsets.grad}
    if intrinsics_gradient:
        gradients["intrinsics"] = camera.intrinsics.grad
    return render, gradients


def relative_error(value: Tensor, truth: Tensor) -> float:
    """Largest absolute error over the largest absolute true value of the whole tensor."""
    value, truth = value.detach().double().cpu(), truth.detach().double().cpu()
    scale = truth.abs().max().item() if truth.numel() else 0.0
    error = (value - truth).abs().max().item() if truth.numel() else 0.0
    return error / scale if scale > 0 else error
