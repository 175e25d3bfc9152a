"""``rasterise``: Gaussians and cameras in, differentiable pictures out, whatever the machine."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..camera import Camera
from ..gaussians import Gaussians
from . import reference

BACKENDS = ("auto", "numba", "gsplat", "torch")


@dataclass(frozen=True)
class Render:
    """Pictures of N Gaussians from ``...`` cameras (none for a single camera), H rows of W pixels."""

    colour: Tensor  # [..., H, W, 3] over the background, display-referred sRGB, not clamped above
    alpha: Tensor  # [..., H, W] in 0..1
    depth: Tensor  # [..., H, W] sum of weight * camera z, metres; 0 where nothing is drawn
    visible: Tensor  # [..., N] bool: drawn, were nothing in front of it
    radii: Tensor  # [..., N] pixels, half the longer side of the splat's box; 0 where not visible

    @property
    def expected_depth(self) -> Tensor:  # [..., H, W]
        """Mean camera z of what is drawn, metres; 0 where nothing is."""
        drawn = self.alpha > 0
        return torch.where(drawn, self.depth / torch.where(drawn, self.alpha, 1.0), 0.0)


def rasterise(
    gaussians: Gaussians,
    camera: Camera,
    *,
    background: Tensor | None = None,  # [3] or [..., 3]; default black
    screen_offsets: Tensor | None = None,  # [..., N, 2] pixels added to the projected centres
    backend: str = "auto",
) -> Render:
    """Draw ``gaussians`` from one camera or a batch of cameras, as 3D Gaussian splatting does (``picture_constants``).

    Differentiable in every tensor of ``gaussians``, in ``background``, ``screen_offsets``, and the camera's
    ``world_to_camera`` and ``intrinsics``. Pass zeros that require a gradient as ``screen_offsets`` to read the
    screen-space gradient, which density control needs. The pose's gradient takes ``world_to_camera`` to be rigid.

    A Gaussian that holds a NaN or an infinity, names no rotation (a zero quaternion), lies nearer than ``camera.near``
    or outside the picture is not drawn and gets a zero gradient; it disturbs no other.

    ``backend``: "numba" (CPU, float32), "gsplat" (CUDA, float32), "torch" (the definition: slow, any device and
    floating type), or "auto": gsplat for CUDA tensors (numba, with one warning, where its kernels cannot be loaded)
    and numba for CPU tensors.

    Raises ValueError for a picture without pixels, a batch without cameras, a near plane that is not in front of a
    pinhole camera, or tensors that the back end cannot draw (gsplat: intrinsics that require a gradient too); UserError
    if gsplat is asked for and cannot run; AssertionError, whose message is the shape, for a wrong shape.
    """
    if camera.width <= 0 or camera.height <= 0:
        raise ValueError(f"a picture needs at least one pixel: {camera.width} x {camera.height}")
    if not camera.orthographic and camera.near <= 0:
        raise ValueError(f"a pinhole camera's near plane must be in front of it: {camera.near} m")
    if backend not in BACKENDS:
        raise ValueError(f"unknown back end {backend!r}: one of {', '.join(BACKENDS)}")
    batch, n = camera.world_to_camera.shape[:-2], len(gaussians)
    views = math.prod(batch)
    if views == 0:
        raise ValueError(f"no camera to draw from: a batch of shape {tuple(batch)}")
    like = gaussians.means
    background = like.new_zeros(3) if background is None else background.to(like)
    assert background.shape[-1:] == (3,), background.shape
    assert background.dim() <= len(batch) + 1, background.shape
    if screen_offsets is not None:
        assert screen_offsets.shape == (*batch, n, 2), screen_offsets.shape
        screen_offsets = screen_offsets.to(like).reshape(views, n, 2)
    colour, alpha, depth, radii = _render(backend, like)(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        gaussians.sh,
        camera.world_to_camera.to(like).reshape(views, 4, 4),
        camera.intrinsics.to(like).reshape(views, 3, 3),
        background.expand(*batch, 3).reshape(views, 3),
        screen_offsets,
        camera.width,
        camera.height,
        float(camera.near),
        camera.orthographic,
    )
    radii = radii.detach().reshape(*batch, n)
    return Render(
        colour=colour.reshape(*batch, *colour.shape[1:]),
        alpha=alpha.reshape(*batch, *alpha.shape[1:]),
        depth=depth.reshape(*batch, *depth.shape[1:]),
        visible=radii > 0,
        radii=radii,
    )


def _render(backend: str, like: Tensor) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The back end's ``render``; all have the signature of ``reference.render``."""
    if backend == "torch":
        return reference.render
    if backend == "gsplat" or (backend == "auto" and like.device.type == "cuda"):
        from . import cuda

        if backend == "gsplat" or cuda.why_unavailable() is None:
            return cuda.render
        _warn_once(f"Drawing on the CPU instead of the GPU, which is slow: {cuda.why_unavailable()}")
        return _on_cpu
    from . import cpu

    return cpu.render


def _on_cpu(*args):
    """The numba back end for tensors of another device."""
    from . import cpu

    results = cpu.render(*(arg.cpu() if isinstance(arg, Tensor) else arg for arg in args))
    return tuple(result.to(args[0].device) for result in results)


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
