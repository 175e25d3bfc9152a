"""HeadStudio's avatar: Gaussians rigged to the triangles of a parametric head (Sec. 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..gaussians import Gaussians
from ..heads.head import Head
from .binding import bind, triangle_frames
from .splats import SplatArrays

# Adam moves a logit without bound: outside this range float32's sigmoid is 0 or 1 and has no way back
_OPACITY_RANGE = (1e-6, 1 - 1e-6)


@dataclass
class RiggedGaussians:
    """K Gaussians in the frames of their triangles (``binding.py``); every field but ``triangle`` is a parameter.

    Mutable on purpose: density control replaces the tensors.
    """

    triangle: Tensor  # [K] int64
    offsets: Tensor  # [K, 3] in sqrt(area)
    log_scales: Tensor  # [K, 3] natural logarithm of scales in sqrt(area)
    quats: Tensor  # [K, 4] wxyz; need not be normalised
    opacity_logits: Tensor  # [K]
    sh: Tensor  # [K, C, 3] in the triangle's frame

    def __post_init__(self) -> None:
        k = self.triangle.shape[0]
        assert self.triangle.dtype == torch.int64, self.triangle.dtype
        assert self.offsets.shape == (k, 3), self.offsets.shape
        assert self.log_scales.shape == (k, 3), self.log_scales.shape
        assert self.quats.shape == (k, 4), self.quats.shape
        assert self.opacity_logits.shape == (k,), self.opacity_logits.shape
        assert self.sh.shape in {(k, c, 3) for c in (1, 4, 9, 16)}, self.sh.shape

    def __len__(self) -> int:
        return self.triangle.shape[0]

    def parameters(self) -> dict[str, Tensor]:
        """The five parameters by field name: the names of the optimiser's groups."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "triangle"}

    def requires_grad_(self, value: bool = True) -> RiggedGaussians:
        """Makes every parameter a leaf that takes (or does not take) gradients, in place."""
        for name, tensor in self.parameters().items():
            setattr(self, name, tensor.detach().requires_grad_(value))
        return self

    def to(self, *args, **kwargs) -> RiggedGaussians:
        """A detached copy through ``Tensor.to``; triangle ids keep their integer type."""
        moved = {name: tensor.detach().to(*args, **kwargs) for name, tensor in self.parameters().items()}
        return RiggedGaussians(triangle=self.triangle.to(moved["offsets"].device), **moved)

    def pose(
        self,
        vertices: Tensor,  # [N, 3] metres, posed
        triangles: Tensor,  # [M, 3]
    ) -> Gaussians:
        """Eq. 5: the Gaussians in world coordinates on this posed head."""
        return bind(triangle_frames(vertices, triangles), self.triangle, **self.parameters())

    def to_arrays(self) -> SplatArrays:
        """As an avatar file holds them: plain scales, opacities in 0..1, unit quaternions."""

        def array(tensor: Tensor) -> np.ndarray:
            return tensor.detach().cpu().float().numpy()

        return SplatArrays(
            triangle=self.triangle.cpu().numpy().astype(np.int32),
            offset=array(self.offsets),
            scale=array(self.log_scales.exp()),
            rotation=array(torch.nn.functional.normalize(self.quats, dim=-1)),
            sh=array(self.sh),
            opacity=array(self.opacity_logits.sigmoid()),
        )

    @classmethod
    def from_arrays(cls, splats: SplatArrays, device: torch.device | str = "cpu") -> RiggedGaussians:
        """The inverse of :meth:`to_arrays`, up to the quaternions' length and opacities of exactly 0 or 1."""

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=torch.float32, device=device)

        return cls(
            triangle=torch.tensor(splats.triangle, dtype=torch.int64, device=device),
            offsets=tensor(splats.offset),
            log_scales=tensor(splats.scale).log(),
            quats=tensor(splats.rotation),
            opacity_logits=tensor(splats.opacity).clamp(*_OPACITY_RANGE).logit(),
            sh=tensor(splats.sh),
        )


class RiggedAvatar:
    """A head and its rigged Gaussians: an :class:`~headstudio.avatar.model.AvatarModel`."""

    def __init__(self, head: Head, gaussians: RiggedGaussians):
        count = head.triangles.shape[0]
        if len(gaussians) and int(gaussians.triangle.max()) >= count:
            raise ValueError(f"a splat is bound to triangle {int(gaussians.triangle.max())}, the head has {count}")
        self.head = head
        self.gaussians = gaussians

    def parameters(self) -> dict[str, Tensor]:
        return self.gaussians.parameters()

    def pose(
        self,
        expression: Tensor,  # [E]
        joints: Tensor,  # [J, 3] axis-angle, radians
        identity: Tensor | None = None,  # [S]
    ) -> Gaussians:
        """Gaussians in world coordinates (metres) for one expression and one set of joint rotations."""
        rest = None if identity is None else identity[None]
        vertices = self.head(expression[None], joints[None], rest)[0]
        return self.gaussians.pose(vertices, self.head.triangles)
